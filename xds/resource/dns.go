package resource

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	commondnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsclusterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	getaddrinfov3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/getaddrinfo/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluice-proxy/sluice/api"
)

func dnsPolicies() policies {
	return policies{
		"envoy.extensions.clusters.dns.v3.DnsCluster": policy{}.
			fields(built, "dns_refresh_rate", "dns_failure_refresh_rate", "respect_dns_ttl", "dns_jitter",
				"typed_dns_resolver_config", "dns_lookup_family", "all_addresses_in_single_endpoint", "dns_min_refresh_rate"),
		"envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig": policy{}.
			fields(built, "resolvers", "use_resolvers_as_fallback", "query_timeout_seconds", "query_tries", "rotate_nameservers",
				"edns0_max_payload_size").
			fields(inside, "dns_resolver_options").
			// How c-ares keeps its sockets and what it has heard.
			fields(noted, "filter_unroutable_families", "udp_max_queries", "max_udp_channel_duration", "reinit_channel_on_timeout", "qcache_max_ttl"),
		"envoy.config.core.v3.DnsResolverOptions": policy{}.
			fields(built, "use_tcp_for_dns_lookups", "no_default_search_domain"),
		"envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig": policy{}.
			fields(built, "num_retries").
			fields(noted, "num_resolver_threads"),
		"envoy.config.core.v3.DnsResolutionConfig": policy{}.
			fields(built, "resolvers").
			fields(inside, "dns_resolver_options"),
	}
}

// dns reads a STRICT_DNS or LOGICAL_DNS cluster.
func (w *walker) dns(c *api.Cluster, p *clusterv3.Cluster, logical bool) {
	d := &api.DNS{
		Family: api.DNSFamily(p.GetDnsLookupFamily()), One: logical, RespectTTL: p.GetRespectDnsTtl(), // the same numbers
		Refresh: w.duration("dns_refresh_rate", p.GetDnsRefreshRate(), api.DefaultDNSRefreshRate),
		Jitter:  w.duration("dns_jitter", p.GetDnsJitter(), 0),
	}
	if f := p.GetDnsFailureRefreshRate(); f != nil {
		d.Failure = w.failureRate("dns_failure_refresh_rate", f.GetBaseInterval(), f.GetMaxInterval())
	}
	d.Resolver = w.resolver(p.GetTypedDnsResolverConfig(), p.GetDnsResolutionConfig(), p.GetDnsResolvers(), p.GetUseTcpForDnsLookups())
	w.named(c, p, d)
}

// dnsCluster reads a DnsCluster, which has what the cluster itself has otherwise.
func (w *walker) dnsCluster(path string, c *api.Cluster, p *clusterv3.Cluster, m proto.Message) {
	e := m.(*dnsclusterv3.DnsCluster)
	d := &api.DNS{
		One: e.GetAllAddressesInSingleEndpoint(), RespectTTL: e.GetRespectDnsTtl(),
		Refresh:    w.duration(path+".dns_refresh_rate", e.GetDnsRefreshRate(), api.DefaultDNSRefreshRate),
		MinRefresh: w.duration(path+".dns_min_refresh_rate", e.GetDnsMinRefreshRate(), 0),
		Jitter:     w.duration(path+".dns_jitter", e.GetDnsJitter(), 0),
	}
	switch e.GetDnsLookupFamily() { // other numbers than the cluster's
	case commondnsv3.DnsLookupFamily_V4_ONLY:
		d.Family = api.DNSV4Only
	case commondnsv3.DnsLookupFamily_V6_ONLY:
		d.Family = api.DNSV6Only
	case commondnsv3.DnsLookupFamily_V4_PREFERRED:
		d.Family = api.DNSV4Preferred
	case commondnsv3.DnsLookupFamily_ALL:
		d.Family = api.DNSAll
	}
	if f := e.GetDnsFailureRefreshRate(); f != nil {
		d.Failure = w.failureRate(path+".dns_failure_refresh_rate", f.GetBaseInterval(), f.GetMaxInterval())
	}
	d.Resolver = w.resolver(e.GetTypedDnsResolverConfig(), nil, nil, false)
	w.named(c, p, d)
}

func (w *walker) failureRate(path string, base, most *durationpb.Duration) *api.Backoff {
	b := &api.Backoff{Base: w.duration(path+".base_interval", base, 0)}
	b.Max = w.duration(path+".max_interval", most, 10*b.Base)
	if b.Max < b.Base {
		w.fail(path, errors.New("dns_failure_refresh_rate must have max_interval greater than or equal to the base_interval"))
	}
	return b
}

// named reads the names.
func (w *walker) named(c *api.Cluster, p *clusterv3.Cluster, d *api.DNS) {
	c.Discovery, c.DNS = api.StrictDNS, d
	if d.One {
		c.Discovery = api.LogicalDNS
	}
	if v := p.GetWaitForWarmOnInit(); v != nil {
		d.WithoutWarming = !v.GetValue()
	}
	c.Assignment = &api.Assignment{OverprovisioningFactor: api.DefaultOverprovisioningFactor}
	la := p.GetLoadAssignment()
	if la != nil {
		w.message("load_assignment", la.ProtoReflect())
		c.Assignment = w.names("load_assignment", la)
	}
	switch n := c.Assignment.Hosts(); {
	case !d.One:
	case la == nil:
		w.fail("load_assignment", errors.New("LOGICAL_DNS clusters must have a single host"))
	case n != 1 || len(la.GetEndpoints()) != 1:
		w.fail("load_assignment", fmt.Errorf("LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint"))
	}
}

// resolver reads who is asked, by the newest of the fields that is set; nil leaves
// it to the bootstrap.
func (w *walker) resolver(typed *corev3.TypedExtensionConfig, older *corev3.DnsResolutionConfig, oldest []*corev3.Address, tcp bool) *api.Resolver {
	switch {
	case typed != nil:
		return w.typedResolver("typed_dns_resolver_config", typed)
	case older != nil:
		return w.olderResolver("dns_resolution_config", older)
	case len(oldest) > 0 || tcp:
		return &api.Resolver{Servers: w.servers("dns_resolvers", oldest), TCP: tcp}
	}
	return nil
}

func (w *walker) olderResolver(path string, p *corev3.DnsResolutionConfig) *api.Resolver {
	w.message(path, p.ProtoReflect())
	return &api.Resolver{Servers: w.servers(path+".resolvers", p.GetResolvers()),
		TCP: p.GetDnsResolverOptions().GetUseTcpForDnsLookups(), NoSearch: p.GetDnsResolverOptions().GetNoDefaultSearchDomain()}
}

func (w *walker) typedResolver(path string, p *corev3.TypedExtensionConfig) *api.Resolver {
	m, kind, _, err := open(p.GetTypedConfig())
	if err == nil && m != nil {
		err = constraint(path+".typed_config", m)
	}
	if err != nil {
		w.fail("", err)
		return nil
	}
	if m != nil {
		defer w.message(path+".typed_config", m.ProtoReflect())
	}
	switch m := m.(type) {
	case *caresv3.CaresDnsResolverConfig:
		r := &api.Resolver{
			Servers: w.servers(path+".typed_config.resolvers", m.GetResolvers()), Fallback: m.GetUseResolversAsFallback(),
			TCP: m.GetDnsResolverOptions().GetUseTcpForDnsLookups(), NoSearch: m.GetDnsResolverOptions().GetNoDefaultSearchDomain(),
			Rotate: m.GetRotateNameservers(), Payload: uint16(m.GetEdns0MaxPayloadSize().GetValue()), Tries: int(m.GetQueryTries().GetValue()),
		}
		if t := m.GetQueryTimeoutSeconds().GetValue(); t > 0 {
			r.Timeout = time.Duration(min(t, 3600)) * time.Second
		}
		return r
	case *getaddrinfov3.GetAddrInfoDnsResolverConfig:
		r := &api.Resolver{System: true, Retries: -1}
		if n := m.GetNumRetries(); n != nil {
			r.Retries = int(n.GetValue())
		}
		return r
	}
	cause := fmt.Sprintf("Didn't find a registered implementation for '%s' with type URL: '%s'", short(p.GetName()), short(kind))
	if m != nil && m.ProtoReflect().Descriptor().ParentFile().Package() == "envoy.extensions.network.dns_resolver.hickory.v3" {
		cause = "not supported yet (" + kind + ")"
	}
	w.fail(path, errors.New(cause))
	return nil
}

// servers reads addresses whose port, if none is given, is DNS's.
func (w *walker) servers(path string, in []*corev3.Address) []netip.AddrPort {
	var out []netip.AddrPort
	for i, a := range in {
		at := fmt.Sprintf("%s[%d]", path, i)
		w.message(at, a.ProtoReflect())
		s, _ := w.addr(at, a)
		if s.Port() == 0 {
			s = netip.AddrPortFrom(s.Addr(), 53)
		}
		out = append(out, s)
	}
	return out
}

// DNSResolver reads the resolver of the bootstrap; nil if it asks for none.
func DNSResolver(typed *corev3.TypedExtensionConfig, older *corev3.DnsResolutionConfig, tcp bool) (*api.Resolver, error) {
	w := walker{policies: table()}
	r := w.resolver(typed, older, nil, tcp)
	return r, w.err()
}

// DNS reads how a cluster that passed its constraints resolves names; nil if it
// has none.
func DNS(p *clusterv3.Cluster) (*api.DNS, error) {
	w := walker{policies: table()}
	c := &api.Cluster{}
	w.discovery(c, p)
	return c.DNS, w.err()
}
