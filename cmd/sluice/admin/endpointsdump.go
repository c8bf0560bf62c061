package admin

import (
	"cmp"
	"slices"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/xds"
)

// endpointsDump shows the hosts in force, as Envoy does, not the resources that
// were sent: what a cluster really balances over is the question it answers.
func (s *Server) endpointsDump(d xds.Dump, match func(string) bool) *adminv3.EndpointsConfigDump {
	sent := map[string]xds.ResourceDump{}
	for _, r := range d.Resources[endpointType] {
		sent[r.Name] = r
	}
	cs := s.o.Plane.Clusters()
	slices.SortFunc(cs, func(x, y api.ClusterStatus) int { return cmp.Compare(x.Cluster.Name, y.Cluster.Name) })
	out := &adminv3.EndpointsConfigDump{}
	for _, c := range cs {
		name := c.Cluster.EDSName()
		if !match(name) {
			continue
		}
		cla, err := anypb.New(assignment(name, c))
		if err != nil {
			continue // a name that is not UTF-8 cannot come out of a proto
		}
		if c.Cluster.Static {
			out.StaticEndpointConfigs = append(out.StaticEndpointConfigs,
				&adminv3.EndpointsConfigDump_StaticEndpointConfig{EndpointConfig: cla})
			continue
		}
		r := sent[name]
		out.DynamicEndpointConfigs = append(out.DynamicEndpointConfigs, &adminv3.EndpointsConfigDump_DynamicEndpointConfig{
			VersionInfo: r.Version, EndpointConfig: cla, LastUpdated: timestamp(r.Updated), ErrorState: failure(r.Failed)})
	}
	return out
}

func assignment(name string, c api.ClusterStatus) *endpointv3.ClusterLoadAssignment {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	weights := map[localityKey]uint32{}
	overprovisioning := uint32(api.DefaultOverprovisioningFactor)
	if as := c.Cluster.Assignment; as != nil {
		if as.OverprovisioningFactor != 0 {
			overprovisioning = as.OverprovisioningFactor
		}
		for _, l := range as.Localities {
			weights[localityKey{l.Region, l.Zone, l.SubZone, l.Priority}] = l.Weight
		}
	}
	out.Policy = &endpointv3.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(overprovisioning), DropOverloads: drops(c.Cluster.Assignment)}
	groups := map[localityKey]*endpointv3.LocalityLbEndpoints{}
	for _, h := range c.Hosts {
		k := localityKey{h.Region, h.Zone, h.SubZone, h.Priority}
		g := groups[k]
		if g == nil {
			g = &endpointv3.LocalityLbEndpoints{
				Locality:            &corev3.Locality{Region: k.region, Zone: k.zone, SubZone: k.subZone},
				Priority:            k.priority,
				LoadBalancingWeight: wrapperspb.UInt32(weights[k]),
			}
			groups[k] = g
			out.Endpoints = append(out.Endpoints, g)
		}
		one := lbEndpoint(&h)
		if one.Metadata == nil && c.Cluster.DNS != nil { // as Envoy has it
			one.Metadata = &corev3.Metadata{}
		}
		g.LbEndpoints = append(g.LbEndpoints, one)
	}
	return out
}

func lbEndpoint(h *api.HostStatus) *endpointv3.LbEndpoint {
	e := &endpointv3.Endpoint{Address: endpointAddress(&h.Endpoint), HealthCheckConfig: &endpointv3.Endpoint_HealthCheckConfig{}, Hostname: h.Endpoint.Hostname}
	for _, a := range h.Endpoint.Additional {
		e.AdditionalAddresses = append(e.AdditionalAddresses, &endpointv3.Endpoint_AdditionalAddress{Address: endpointAddress(&api.Endpoint{Addr: a})})
	}
	if c := h.Endpoint.Check; c != nil {
		e.HealthCheckConfig.Hostname = c.Hostname
		if at := h.Endpoint.CheckAddr(); at != h.Endpoint.Addr {
			e.HealthCheckConfig.PortValue = uint32(at.Port())
		}
	}
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: e}, Metadata: hostMetadata(h.Endpoint.Metadata),
		HealthStatus: edsHealth(h.Flags.Coarse()), LoadBalancingWeight: wrapperspb.UInt32(h.Endpoint.Weight),
	}
}

func hostMetadata(md api.Metadata) *corev3.Metadata {
	if len(md) == 0 {
		return nil
	}
	out := &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{}}
	for name, values := range md {
		if s, err := structpb.NewStruct(values); err == nil { // they came out of one
			out.FilterMetadata[name] = s
		}
	}
	return out
}

// drops are in millions, however they were written.
func drops(as *api.Assignment) []*endpointv3.ClusterLoadAssignment_Policy_DropOverload {
	if as == nil || as.Drop.Share <= 0 {
		return nil
	}
	return []*endpointv3.ClusterLoadAssignment_Policy_DropOverload{{Category: as.Drop.Category,
		DropPercentage: &typev3.FractionalPercent{Numerator: uint32(as.Drop.Share * 1_000_000), Denominator: typev3.FractionalPercent_MILLION}}}
}

type localityKey struct {
	region, zone, subZone string
	priority              uint32
}
