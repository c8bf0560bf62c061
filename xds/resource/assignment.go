package resource

import (
	"errors"
	"fmt"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
)

// Assignment decodes an envoy.config.endpoint.v3.ClusterLoadAssignment. The
// name is its cluster_name, returned also with an error, whenever it can be had.
func Assignment(a *anypb.Any) (name string, as *api.Assignment, n Notes, err error) {
	var p endpointv3.ClusterLoadAssignment
	n, err = decode(a, &p)
	name = p.GetClusterName()
	if err != nil {
		return name, nil, n, err
	}
	w := walker{policies: table()}
	w.message("", p.ProtoReflect())
	as = w.assignment("", &p)
	n.Unbuilt = w.unbuilt
	if err := w.err(); err != nil {
		return name, nil, n, err
	}
	return name, as, n, nil
}

func (w *walker) assignment(path string, p *endpointv3.ClusterLoadAssignment) *api.Assignment {
	return w.localities(path, p, w.addressed)
}

// names reads an assignment whose addresses are names, each of which is resolved
// by itself.
func (w *walker) names(path string, p *endpointv3.ClusterLoadAssignment) *api.Assignment {
	return w.localities(path, p, w.dnsName)
}

func (w *walker) localities(path string, p *endpointv3.ClusterLoadAssignment, read func(string, *endpointv3.LbEndpoint, *api.Endpoint)) *api.Assignment {
	as := &api.Assignment{
		OverprovisioningFactor: uint32Or(p.GetPolicy().GetOverprovisioningFactor(), api.DefaultOverprovisioningFactor),
		WeightedHealth:         p.GetPolicy().GetWeightedPriorityHealth(),
		Drop:                   w.drop(join(path, "policy.drop_overloads"), p.GetPolicy()),
		StaleAfter:             w.duration(join(path, "policy.endpoint_stale_after"), p.GetPolicy().GetEndpointStaleAfter(), 0),
	}
	for i, l := range p.GetEndpoints() {
		at := join(path, fmt.Sprintf("endpoints[%d]", i))
		loc := api.Locality{
			Region:   l.GetLocality().GetRegion(),
			Zone:     l.GetLocality().GetZone(),
			SubZone:  l.GetLocality().GetSubZone(),
			Priority: l.GetPriority(),
			Weight:   l.GetLoadBalancingWeight().GetValue(),
			Metadata: metadata(l.GetMetadata()),
		}
		for j, e := range l.GetLbEndpoints() {
			loc.Endpoints = append(loc.Endpoints, w.endpoint(fmt.Sprintf("%s.lb_endpoints[%d]", at, j), e, read))
		}
		as.Localities = append(as.Localities, loc)
	}
	return as
}

// drop reads the one category of connections that are turned away.
func (w *walker) drop(path string, p *endpointv3.ClusterLoadAssignment_Policy) api.Drop {
	all := p.GetDropOverloads()
	if len(all) == 0 {
		return api.Drop{}
	}
	if len(all) > 1 {
		w.fail(path, fmt.Errorf("Cluster drop_overloads config has %d categories. Envoy only support one.", len(all)))
		return api.Drop{}
	}
	of := uint32(100)
	switch all[0].GetDropPercentage().GetDenominator() {
	case typev3.FractionalPercent_TEN_THOUSAND:
		of = 10000
	case typev3.FractionalPercent_MILLION:
		of = 1000000
	}
	n := all[0].GetDropPercentage().GetNumerator()
	d := api.Drop{Category: all[0].GetCategory(), Share: float64(n) / float64(of)}
	if d.Share > 1 {
		w.fail(path, fmt.Errorf("Cluster drop_overloads config is invalid. drop_ratio=%g(Numerator %d / Denominator %d). The valid range is 0~1.", d.Share, n, of))
	}
	return d
}

func (w *walker) endpoint(path string, p *endpointv3.LbEndpoint, read func(string, *endpointv3.LbEndpoint, *api.Endpoint)) api.Endpoint {
	e := api.Endpoint{
		Hostname: p.GetEndpoint().GetHostname(),
		Weight:   uint32Or(p.GetLoadBalancingWeight(), 1),
		Metadata: metadata(p.GetMetadata()),
	}
	if h := p.GetHealthStatus(); h >= 0 && h <= corev3.HealthStatus_DEGRADED {
		e.Health = api.Health(h) // the same numbers; one that Envoy does not know says nothing
	}
	e.TLVs = w.hostTLVs(path+".metadata.typed_filter_metadata", p.GetMetadata())
	read(path, p, &e)
	w.endpointCheck(path+".endpoint.health_check_config", &e, p.GetEndpoint().GetHealthCheckConfig())
	return e
}

// dnsName reads a name and a port.
func (w *walker) dnsName(path string, p *endpointv3.LbEndpoint, e *api.Endpoint) {
	if a := p.GetEndpoint().GetAddress(); a != nil {
		w.message(path+".endpoint.address", a.ProtoReflect())
	}
	s := p.GetEndpoint().GetAddress().GetSocketAddress()
	if s.GetResolverName() != "" {
		w.fail(path+".endpoint.address.socket_address.resolver_name", errors.New("STRICT_DNS clusters must NOT have a custom resolver name set"))
	}
	e.Name, e.Addr = s.GetAddress(), netip.AddrPortFrom(netip.Addr{}, uint16(s.GetPortValue()))
	if e.Hostname == "" {
		e.Hostname = e.Name
	}
}

// addressed reads an address.
func (w *walker) addressed(path string, p *endpointv3.LbEndpoint, e *api.Endpoint) {
	const hint = "Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'"
	switch a := p.GetEndpoint().GetAddress(); {
	case a == nil:
		w.fail(path+".endpoint.address", errors.New("Address must be set. "+hint))
	case a.GetPipe() != nil:
		e.Path = w.pipe(path+".endpoint.address.pipe", a.GetPipe())
	case a.GetSocketAddress().GetResolverName() != "":
		w.fail(path+".endpoint.address.socket_address.resolver_name", fmt.Errorf("Unknown address resolver: %s. %s", short(a.GetSocketAddress().GetResolverName()), hint))
	case a.GetSocketAddress().GetNamedPort() != "":
		w.fail(path+".endpoint.address.socket_address.named_port", errors.New("IP resolver can't handle port specifier type 4. "+hint))
	case a.GetSocketAddress().GetNetworkNamespaceFilepath() != "":
		w.fail(path+".endpoint.address.socket_address.network_namespace_filepath", errors.New("Invalid host configuration: hosts cannot specify network namespaces with their address"))
	default:
		before := len(w.errs)
		if s := a.GetSocketAddress(); s != nil && s.GetProtocol() != corev3.SocketAddress_TCP { // Envoy does not look at it
			a, _ = proto.Clone(a).(*corev3.Address)
			a.GetSocketAddress().Protocol = corev3.SocketAddress_TCP
		}
		w.message(path+".endpoint.address", a.ProtoReflect())
		e.Addr, _ = w.addr(path+".endpoint.address", a)
		if len(w.errs) > before && !e.Addr.IsValid() {
			last := len(w.errs) - 1
			w.errs[last] = fmt.Errorf("%w. %s", w.errs[last], hint)
		}
	}
	for i, more := range p.GetEndpoint().GetAdditionalAddresses() {
		at := fmt.Sprintf("%s.endpoint.additional_addresses[%d].address", path, i)
		switch {
		case more.GetAddress() == nil:
			w.fail(at, errors.New("Address must be set. "+hint))
			continue
		case more.GetAddress().GetSocketAddress() == nil:
			w.fail(at, errAdditional)
			continue
		}
		w.message(at, more.GetAddress().ProtoReflect())
		a, _ := w.addr(at, more.GetAddress())
		e.Additional = append(e.Additional, a)
	}
}
