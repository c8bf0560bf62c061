package resource

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/api"
)

// Cluster decodes an envoy.config.cluster.v3.Cluster. Its Assignment is filled
// for STATIC, has names for DNS, and is nil for EDS. The name is returned also with an error, whenever
// it can be had.
func Cluster(a *anypb.Any) (name string, c *api.Cluster, n Notes, err error) {
	var p clusterv3.Cluster
	n, err = decode(a, &p)
	name = p.GetName()
	if err != nil {
		return name, nil, n, err
	}
	w := walker{policies: table()}
	w.message("", p.ProtoReflect())
	c = w.cluster(&p)
	n.Unbuilt = w.unbuilt
	if err := w.err(); err != nil {
		return name, nil, n, err
	}
	return name, c, n, nil
}

func (w *walker) cluster(p *clusterv3.Cluster) *api.Cluster {
	c := &api.Cluster{
		Name:            p.GetName(),
		AltStatName:     p.GetAltStatName(),
		ConnectTimeout:  w.duration("connect_timeout", p.GetConnectTimeout(), api.DefaultConnectTimeout),
		Balancing:       w.balancing(p),
		PanicThreshold:  api.DefaultPanicThreshold,
		CircuitBreakers: breakers(p.GetCircuitBreakers(), corev3.RoutingPriority_DEFAULT),
		HighBreakers:    breakers(p.GetCircuitBreakers(), corev3.RoutingPriority_HIGH),
		Metadata:        metadata(p.GetMetadata()),
		PerConnectionBufferLimit: w.bufferLimit("per_connection_buffer_limit_bytes",
			p.GetPerConnectionBufferLimitBytes()),
	}
	w.perHost(p.GetCircuitBreakers())
	w.protocolOptions(p)
	w.sockets(c, p)
	c.HTTP2 = w.http2(p, &c.Socket)
	if t := p.GetCommonLbConfig().GetHealthyPanicThreshold(); t != nil {
		c.PanicThreshold = t.GetValue()
		if math.IsNaN(c.PanicThreshold) { // every comparison of the constraint is false for it
			w.fail("common_lb_config.healthy_panic_threshold.value", errors.New("value must be inside range [0, 100] (NaN)"))
		}
	}
	c.IgnoreNewHosts = p.GetCommonLbConfig().GetIgnoreNewHostsUntilFirstHc()
	c.IgnoreHealthOnRemoval = p.GetIgnoreHealthOnHostRemoval()
	c.CloseOnHealthFailure = p.GetCloseConnectionsOnHostHealthFailure()
	w.healthChecks(c, p)
	c.Outlier = w.outlier(p.GetOutlierDetection())
	w.connections(c, p)
	w.discovery(c, p)
	if c.Balancing.Policy.Hashes() && c.Assignment != nil {
		w.weights(c.Assignment)
	}
	return c
}

// protocolOptions fails for options that nobody has; what they say is read elsewhere.
func (w *walker) protocolOptions(p *clusterv3.Cluster) {
	all := p.GetTypedExtensionProtocolOptions()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		path := "typed_extension_protocol_options[" + short(name) + "]"
		if !strings.HasPrefix(name, "envoy.") {
			w.fail(path, fmt.Errorf("Didn't find a registered network or http filter or protocol options implementation for name: '%s'", short(name)))
		} else if strings.HasPrefix(name, "envoy.extensions.upstreams.") && innerURL(all[name]) != name {
			w.fail(path, fmt.Errorf("Unable to unpack as %s", short(name)))
		}
	}
}

// sockets reads how endpoints are dialled.
func (w *walker) sockets(c *api.Cluster, p *clusterv3.Cluster) {
	c.Socket = w.upstreamSocket("transport_socket", p.GetTransportSocket())
	for i, m := range p.GetTransportSocketMatches() {
		at := fmt.Sprintf("transport_socket_matches[%d].transport_socket", i)
		if m.GetTransportSocket() == nil {
			w.fail(at, unregisteredSocket(nil))
		}
		c.SocketMatches = append(c.SocketMatches, api.SocketMatch{Name: m.GetName(), Match: m.GetMatch().AsMap(), Socket: w.upstreamSocket(at, m.GetTransportSocket())})
	}
}

func (w *walker) static(c *api.Cluster, p *clusterv3.Cluster) {
	c.Discovery = api.Static
	c.Assignment = &api.Assignment{OverprovisioningFactor: api.DefaultOverprovisioningFactor}
	if la := p.GetLoadAssignment(); la != nil {
		for _, l := range la.GetEndpoints() {
			if l.GetLedsClusterLocalityConfig() != nil {
				w.fail("load_assignment", fmt.Errorf("LEDS is only supported when EDS is used. Static cluster %s cannot use LEDS.", short(p.GetName())))
				return
			}
		}
		w.message("load_assignment", la.ProtoReflect())
		c.Assignment = w.assignment("load_assignment", la)
	}
}

func (w *walker) eds(c *api.Cluster, p *clusterv3.Cluster) {
	c.Discovery = api.EDS
	if p.GetLoadAssignment() != nil {
		w.unbuilt = append(w.unbuilt, "load_assignment")
	}
	e := p.GetEdsClusterConfig()
	if e == nil {
		w.fail("eds_cluster_config", errors.New("cannot create an EDS cluster without an EDS config"))
		return
	}
	w.message("eds_cluster_config", e.ProtoReflect())
	c.ServiceName = e.GetServiceName()
	src, err := Source("eds_cluster_config.eds_config", e.GetEdsConfig())
	if err != nil {
		w.fail("", err)
	}
	if (src.Kind == api.FromGRPC || src.Kind == api.FromREST) && src.Cluster == "" && err == nil {
		w.fail("eds_cluster_config.eds_config.api_config_source", errors.New("not supported yet (google_grpc)"))
	}
	c.Source = src
}

func uint32Or(v *wrapperspb.UInt32Value, or uint32) uint32 {
	if v == nil {
		return or
	}
	return v.GetValue()
}

// bufferLimit reads a limit in bytes. 0 asks Envoy for no limit at all; memory
// is bounded here, so it gets the default and a note.
func (w *walker) bufferLimit(path string, v *wrapperspb.UInt32Value) uint32 {
	if v != nil && v.GetValue() == 0 {
		w.unbuilt = append(w.unbuilt, path)
		return api.DefaultPerConnectionBufferLimit
	}
	return uint32Or(v, api.DefaultPerConnectionBufferLimit)
}

// Duration reads a duration that may not be negative, or has a default.
func Duration(path string, d *durationpb.Duration, or time.Duration) (time.Duration, error) {
	w := walker{}
	v := w.duration(path, d, or)
	return v, w.err()
}

// maxSeconds is what fits into a time.Duration, and into Envoy's.
const maxSeconds = math.MaxInt64 / int64(time.Second)

func (w *walker) duration(path string, d *durationpb.Duration, or time.Duration) time.Duration {
	switch {
	case d == nil:
		return or
	case d.GetSeconds() < 0 || d.GetNanos() < 0:
		w.fail(path, fmt.Errorf("Invalid duration: Expected positive duration (%ds %dns)", d.GetSeconds(), d.GetNanos()))
	case d.GetNanos() > 999999999 || d.GetSeconds() >= maxSeconds:
		w.fail(path, fmt.Errorf("Invalid duration: Duration out-of-range (%ds %dns)", d.GetSeconds(), d.GetNanos()))
	default:
		return d.AsDuration()
	}
	return or
}
