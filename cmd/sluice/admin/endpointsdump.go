package admin

import (
	"cmp"
	"slices"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/anypb"
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
		if d := c.Cluster.Discovery; d == api.Static || d != api.EDS && c.Cluster.Static {
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
	out.Policy = &endpointv3.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(overprovisioning)}
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
		g.LbEndpoints = append(g.LbEndpoints, &endpointv3.LbEndpoint{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
				Address:           endpointAddress(&h.Endpoint),
				HealthCheckConfig: &endpointv3.Endpoint_HealthCheckConfig{},
				Hostname:          h.Endpoint.Hostname,
			}},
			HealthStatus:        edsHealth(h.Endpoint.Health),
			LoadBalancingWeight: wrapperspb.UInt32(h.Endpoint.Weight),
		})
	}
	return out
}

type localityKey struct {
	region, zone, subZone string
	priority              uint32
}
