package admin

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/api"
)

func (s *Server) clusters(a *answer, q query) {
	match := func(string) bool { return true }
	if expr := q.value("filter"); expr != "" {
		re, err := compile(expr)
		if err != nil {
			a.fail(http.StatusBadRequest, "Invalid re2 regex")
			return
		}
		match = re.MatchString
	}
	cs := slices.DeleteFunc(s.o.Plane.Clusters(), func(c api.ClusterStatus) bool { return !match(c.Cluster.Name) })
	slices.SortFunc(cs, func(x, y api.ClusterStatus) int { return cmp.Compare(x.Cluster.Name, y.Cluster.Name) })
	if q.value("format") == "json" {
		writeProto(a, clustersProto(cs), false)
		return
	}
	for _, c := range cs {
		writeCluster(a, c)
	}
}

// The order of the lines is Envoy's (clusters_handler.cc).
func writeCluster(a *answer, c api.ClusterStatus) {
	name := c.Cluster.Name
	fmt.Fprintf(a, "%s::observability_name::%s\n", name, c.Cluster.StatName())
	writeOutlier(a, name, c.Outlier)
	normal, high := breakers(c)
	writeBreakers(a, name, "default", normal, c.MaxRetries)
	writeBreakers(a, name, "high", high, high.Retries(0))
	fmt.Fprintf(a, "%s::added_via_api::%t\n", name, !c.Cluster.Static)
	if sn := c.Cluster.ServiceName; sn != "" {
		fmt.Fprintf(a, "%s::eds_service_name::%s\n", name, sn)
	}
	for _, h := range c.Hosts {
		p := fmt.Sprintf("%s::%s::", name, h.Endpoint.Address())
		for _, f := range hostFigures(h) {
			fmt.Fprintf(a, "%s%s::%d\n", p, f.name, f.value)
		}
		fmt.Fprintf(a, "%shostname::%s\n", p, h.Endpoint.Hostname)
		fmt.Fprintf(a, "%shealth_flags::%s\n", p, h.Flags)
		fmt.Fprintf(a, "%sweight::%d\n", p, h.Endpoint.Weight)
		fmt.Fprintf(a, "%sregion::%s\n%szone::%s\n%ssub_zone::%s\n", p, h.Region, p, h.Zone, p, h.SubZone)
		fmt.Fprintf(a, "%scanary::%t\n%spriority::%d\n", p, h.Canary, p, h.Priority)
		fmt.Fprintf(a, "%ssuccess_rate::%s\n%slocal_origin_success_rate::%s\n", p, percentText(h.SuccessRate.External), p, percentText(h.SuccessRate.Local))
	}
}

// breakers are the limits in force of both priorities.
func breakers(c api.ClusterStatus) (normal, high *api.CircuitBreakers) {
	if c.Breakers == nil {
		return &c.Cluster.CircuitBreakers, &c.Cluster.HighBreakers
	}
	return c.Breakers, c.HighBreakers
}

func writeBreakers(a *answer, name, priority string, b *api.CircuitBreakers, retries uint64) {
	p := fmt.Sprintf("%s::%s_priority::", name, priority)
	fmt.Fprintf(a, "%smax_connections::%d\n%smax_pending_requests::%d\n%smax_requests::%d\n%smax_retries::%d\n",
		p, b.MaxConnections, p, b.MaxPendingRequests, p, b.MaxRequests, p, retries)
}

type figure struct {
	name  string
	value uint64
	gauge bool
}

// hostFigures are sorted by name, as the text has them. Those that Envoy counts
// for HTTP only stay 0.
func hostFigures(h api.HostStatus) []figure {
	return []figure{
		{"cx_active", h.CxActive, true},
		{"cx_connect_fail", h.CxConnectFail, false},
		{"cx_total", h.CxTotal, false},
		{"rq_active", h.RqActive, true},
		{"rq_error", 0, false},
		{"rq_pending_active", h.RqPendingActive, true},
		{"rq_success", 0, false},
		{"rq_timeout", 0, false},
		{"rq_total", h.RqTotal, false},
	}
}

func clustersProto(cs []api.ClusterStatus) *adminv3.Clusters {
	out := &adminv3.Clusters{}
	for _, c := range cs {
		normal, high := breakers(c)
		st := &adminv3.ClusterStatus{
			Name:              c.Cluster.Name,
			AddedViaApi:       !c.Cluster.Static,
			ObservabilityName: c.Cluster.StatName(),
			EdsServiceName:    c.Cluster.ServiceName,
			CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{
				thresholds(corev3.RoutingPriority_DEFAULT, normal, c.MaxRetries),
				thresholds(corev3.RoutingPriority_HIGH, high, high.Retries(0)),
			}},
		}
		if o := c.Outlier; o != nil {
			st.SuccessRateEjectionThreshold, st.LocalOriginSuccessRateEjectionThreshold = percent(o.Threshold.External), percent(o.Threshold.Local)
		}
		for _, h := range c.Hosts {
			hs := &adminv3.HostStatus{
				Address:      endpointAddress(&h.Endpoint),
				HealthStatus: healthStatus(h),
				Weight:       h.Endpoint.Weight,
				Hostname:     h.Endpoint.Hostname,
				Priority:     h.Priority,
				Locality:     &corev3.Locality{Region: h.Region, Zone: h.Zone, SubZone: h.SubZone},
			}
			hs.SuccessRate, hs.LocalOriginSuccessRate = percent(h.SuccessRate.External), percent(h.SuccessRate.Local)
			// Counters first, then gauges.
			for _, gauges := range []bool{false, true} {
				for _, f := range hostFigures(h) {
					if f.gauge == gauges {
						m := &adminv3.SimpleMetric{Name: f.name, Value: f.value}
						if gauges {
							m.Type = adminv3.SimpleMetric_GAUGE
						}
						hs.Stats = append(hs.Stats, m)
					}
				}
			}
			st.HostStatuses = append(st.HostStatuses, hs)
		}
		out.ClusterStatuses = append(out.ClusterStatuses, st)
	}
	return out
}

func thresholds(p corev3.RoutingPriority, b *api.CircuitBreakers, retries uint64) *clusterv3.CircuitBreakers_Thresholds {
	return &clusterv3.CircuitBreakers_Thresholds{
		Priority:           p,
		MaxConnections:     wrapperspb.UInt32(b.MaxConnections),
		MaxPendingRequests: wrapperspb.UInt32(b.MaxPendingRequests),
		MaxRequests:        wrapperspb.UInt32(b.MaxRequests),
		MaxRetries:         wrapperspb.UInt32(uint32(retries)),
	}
}
