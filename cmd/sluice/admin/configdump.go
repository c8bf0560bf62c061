package admin

import (
	"cmp"
	"net/http"
	"regexp"
	"slices"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sluice-proxy/sluice/xds"
)

// The type URLs that xds.Dump is keyed by.
const (
	clusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	listenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	endpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
)

// configDump answers as Envoy's config_dump_handler.cc does.
func (s *Server) configDump(a *answer, q query) {
	match := func(string) bool { return true }
	if expr := q.value("name_regex"); expr != "" {
		re, err := fullMatch(expr)
		if err != nil {
			a.fail(http.StatusBadRequest, "INVALID_ARGUMENT: Error while parsing name_regex from %s: %v", expr, err)
			a.contentType = plainText
			return
		}
		match = matcher(re)
	}
	configs := s.configs(q.has("include_eds"), match)
	var err *dumpError
	if mask := parseMask(q.value("mask")); q.value("resource") != "" {
		configs, err = pickResource(configs, q.value("resource"), mask)
	} else if mask != nil {
		configs, err = maskConfigs(configs, mask, q.value("mask"))
	}
	if err != nil {
		a.fail(err.code, "%s", err.text)
		a.contentType = plainText
		return
	}
	dump := &adminv3.ConfigDump{}
	for _, c := range configs {
		any := &anypb.Any{}
		// Never fails: the messages are built here, strings in Any are bytes.
		if anypb.MarshalFrom(any, c, proto.MarshalOptions{AllowPartial: true}) == nil {
			dump.Configs = append(dump.Configs, any)
		}
	}
	writeProto(a, readable(dump), false)
}

func matcher(re *regexp.Regexp) func(string) bool { return re.MatchString }

// configs are the parts of the dump, in Envoy's order: by the name of the part.
func (s *Server) configs(eds bool, match func(string) bool) []proto.Message {
	d := s.o.Configs.Dump()
	out := []proto.Message{
		&adminv3.BootstrapConfigDump{Bootstrap: s.o.Bootstrap, LastUpdated: timestamp(s.o.Started)},
		clustersDump(d, match),
	}
	if ecds := ecdsDump(d, match); len(ecds.EcdsFilters) > 0 {
		out = append(out, ecds)
	}
	if eds {
		out = append(out, s.endpointsDump(d, match))
	}
	return append(out, listenersDump(d, match), secretsDump(d, match))
}

func clustersDump(d xds.Dump, match func(string) bool) *adminv3.ClustersConfigDump {
	out := &adminv3.ClustersConfigDump{VersionInfo: d.VersionInfo[clusterType]}
	for _, r := range byName(d.Resources[clusterType], match) {
		if r.Static {
			out.StaticClusters = append(out.StaticClusters, &adminv3.ClustersConfigDump_StaticCluster{
				Cluster: r.Active, LastUpdated: timestamp(r.Updated)})
			continue
		}
		dynamic := func(c *anypb.Any) *adminv3.ClustersConfigDump_DynamicCluster {
			return &adminv3.ClustersConfigDump_DynamicCluster{
				VersionInfo: r.Version, Cluster: c, LastUpdated: timestamp(r.Updated), ErrorState: failure(r.Failed)}
		}
		if r.Active != nil {
			out.DynamicActiveClusters = append(out.DynamicActiveClusters, dynamic(r.Active))
		}
		// A cluster that was refused before it was ever good is shown too, which
		// Envoy does not do. It stands among the warming ones, for readers take
		// for granted that an active one has a cluster.
		if r.Warming != nil || r.Active == nil && r.Failed != nil {
			out.DynamicWarmingClusters = append(out.DynamicWarmingClusters, dynamic(r.Warming))
		}
	}
	return out
}

func listenersDump(d xds.Dump, match func(string) bool) *adminv3.ListenersConfigDump {
	out := &adminv3.ListenersConfigDump{VersionInfo: d.VersionInfo[listenerType]}
	for _, r := range d.Resources[listenerType] { // in the order in which they came
		if !match(r.Name) {
			continue
		}
		if r.Static {
			out.StaticListeners = append(out.StaticListeners, &adminv3.ListenersConfigDump_StaticListener{
				Listener: r.Active, LastUpdated: timestamp(r.Updated)})
			continue
		}
		state := func(l *anypb.Any) *adminv3.ListenersConfigDump_DynamicListenerState {
			if l == nil {
				return nil
			}
			return &adminv3.ListenersConfigDump_DynamicListenerState{
				VersionInfo: r.Version, Listener: l, LastUpdated: timestamp(r.Updated)}
		}
		out.DynamicListeners = append(out.DynamicListeners, &adminv3.ListenersConfigDump_DynamicListener{
			Name: r.Name, ActiveState: state(r.Active), WarmingState: state(r.Warming), ErrorState: failure(r.Failed)})
	}
	return out
}

func failure(f *xds.FailedUpdate) *adminv3.UpdateFailureState {
	if f == nil {
		return nil
	}
	return &adminv3.UpdateFailureState{
		FailedConfiguration: f.Attempted, LastUpdateAttempt: timestamp(f.At), Details: f.Details, VersionInfo: f.Version}
}

func byName(rs []xds.ResourceDump, match func(string) bool) []xds.ResourceDump {
	rs = slices.DeleteFunc(slices.Clone(rs), func(r xds.ResourceDump) bool { return !match(r.Name) })
	slices.SortStableFunc(rs, func(x, y xds.ResourceDump) int { return cmp.Compare(x.Name, y.Name) })
	return rs
}

// timestamp is nil for a time that is not known, and in milliseconds, as Envoy's are.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t.Truncate(time.Millisecond))
}
