package resource

import (
	"errors"
	"fmt"
	"net/netip"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	dfpclusterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/dynamic_forward_proxy/v3"
	snidfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_dynamic_forward_proxy/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
)

const (
	kindForwardProxy = "envoy.clusters.dynamic_forward_proxy"
	typeForwardProxy = "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig"
	typeSNIForward   = "envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig"
)

func forwardPolicies() policies {
	return policies{
		typeForwardProxy: policy{}.
			fields(inside, "dns_cache_config", "sub_clusters_config").
			fields(built, "allow_insecure_cluster_options").
			// Only HTTP has requests that could share a connection.
			fields(noted, "allow_coalesced_connections"),
		"envoy.extensions.clusters.dynamic_forward_proxy.v3.SubClustersConfig": policy{}.
			// What makes the clusters speaks HTTP: to TCP there are none.
			fields(built, "lb_policy").
			fields(noted, "max_sub_clusters", "sub_cluster_ttl", "dns_cluster_config").
			fields(refused, "preresolve_clusters"),
		typeSNIForward: policy{}.
			fields(inside, "dns_cache_config").
			fields(built, "port_value").
			// It is for filters of HTTP: the object has no text.
			fields(noted, "save_upstream_address"),
		"envoy.extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig": policy{}.
			fields(built, "name", "dns_lookup_family", "dns_refresh_rate", "dns_min_refresh_rate", "host_ttl", "max_hosts",
				"disable_dns_refresh_on_failure", "dns_failure_refresh_rate", "use_tcp_for_dns_lookups", "dns_resolution_config",
				"typed_dns_resolver_config", "preresolve_hostnames", "dns_query_timeout").
			fields(inside, "dns_cache_circuit_breaker", "resolved_address_filter").
			// What it remembers over a restart is asked for anew.
			fields(noted, "key_value_config"),
		"envoy.extensions.common.dynamic_forward_proxy.v3.DnsCacheCircuitBreakers": policy{}.
			fields(built, "max_pending_requests"),
		"envoy.type.matcher.v3.AddressMatcher": policy{}.
			fields(built, "ranges", "invert_match"),
	}
}

func forwardFilters() map[string]networkFilter {
	return map[string]networkFilter{
		typeSNIForward: {decode: func(w *walker, path string, m proto.Message) api.Filter {
			p := m.(*snidfpv3.FilterConfig)
			w.message(path, p.ProtoReflect())
			return api.Filter{SNIForwardProxy: &api.SNIForwardProxy{Port: uint16(p.GetPortValue()),
				Cache: w.dnsCache(path+".dns_cache_config", p.GetDnsCacheConfig())}}
		}},
	}
}

// forwardProxy reads a cluster whose hosts are the names that connections bring.
func (w *walker) forwardProxy(path string, c *api.Cluster, p *clusterv3.Cluster, m proto.Message) {
	e := m.(*dfpclusterv3.ClusterConfig)
	c.Discovery = api.DynamicForwardProxy
	c.Assignment = &api.Assignment{OverprovisioningFactor: api.DefaultOverprovisioningFactor}
	c.ByName = &api.ByName{}
	if s := e.GetSubClustersConfig(); s == nil {
		c.ByName.Cache = w.dnsCache(path+".dns_cache_config", e.GetDnsCacheConfig())
	} else if s.GetLbPolicy() == clusterv3.Cluster_CLUSTER_PROVIDED {
		w.fail(path+".sub_clusters_config", errors.New("unsupported lb_policy 'CLUSTER_PROVIDED' in sub_cluster_config"))
	}
	if !e.GetAllowInsecureClusterOptions() && !namesPeers(p) {
		w.fail(path, errors.New("dynamic_forward_proxy cluster must have auto_sni and auto_san_validation true unless allow_insecure_cluster_options is set."))
	}
}

// namesPeers says whether HTTP to the cluster's hosts would take their names for the
// SNI, and check them. Where nothing is said of either, it does.
func namesPeers(p *clusterv3.Cluster) bool {
	o := p.GetUpstreamHttpProtocolOptions() //nolint:staticcheck // deprecated, and in use
	if a := p.GetTypedExtensionProtocolOptions()[httpProtocolOptions]; a != nil {
		m, _, _, _ := open(a)
		t, _ := m.(*upstreamhttpv3.HttpProtocolOptions)
		if o = t.GetUpstreamHttpProtocolOptions(); o == nil {
			return false
		}
	}
	return o == nil || o.GetAutoSni() && o.GetAutoSanValidation()
}

// dnsCache reads a cache, which passed its constraints.
func (w *walker) dnsCache(path string, p *dfpv3.DnsCacheConfig) *api.DNSCache {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err != nil {
		w.fail(path, err)
	}
	c := &api.DNSCache{
		Name: p.GetName(), Settings: string(b), Family: api.DNSFamily(p.GetDnsLookupFamily()), // the same numbers
		Refresh:            w.duration(path+".dns_refresh_rate", p.GetDnsRefreshRate(), api.DefaultCacheRefreshRate),
		MinRefresh:         w.duration(path+".dns_min_refresh_rate", p.GetDnsMinRefreshRate(), api.DefaultCacheMinRefreshRate),
		HostTTL:            w.duration(path+".host_ttl", p.GetHostTtl(), api.DefaultCacheHostTTL),
		QueryTimeout:       w.duration(path+".dns_query_timeout", p.GetDnsQueryTimeout(), api.DefaultCacheQueryTimeout),
		NoRefreshOnFailure: p.GetDisableDnsRefreshOnFailure(),
		MaxHosts:           uint32Or(p.GetMaxHosts(), api.DefaultCacheMaxHosts),
		MaxPending:         uint32Or(p.GetDnsCacheCircuitBreaker().GetMaxPendingRequests(), api.DefaultCacheMaxPending),
	}
	if f := p.GetDnsFailureRefreshRate(); f != nil {
		c.Failure = w.cacheBackoff(path+".dns_failure_refresh_rate", f)
	}
	if n := len(p.GetPreresolveHostnames()); n > int(c.MaxHosts) {
		w.fail(path, fmt.Errorf("DNS Cache [%s] configured with preresolve_hostnames=%d larger than max_hosts=%d", short(p.GetName()), n, c.MaxHosts))
	}
	for _, s := range p.GetPreresolveHostnames() {
		c.Known = append(c.Known, api.NamedPort{Name: s.GetAddress(), Port: uint16(s.GetPortValue())})
	}
	if f := p.GetResolvedAddressFilter(); f != nil {
		c.Denied = &api.AddressMatcher{Invert: f.GetInvertMatch()}
		for i, r := range f.GetRanges() {
			text := fmt.Sprintf("%s/%d", r.GetAddressPrefix(), r.GetPrefixLen().GetValue())
			one, err := netip.ParsePrefix(text)
			if err != nil {
				w.fail(fmt.Sprintf("%s.resolved_address_filter.ranges[%d]", path, i), fmt.Errorf("invalid ip/mask combo '%s' (format is <ip>/<# mask bits>)", short(text)))
				continue
			}
			c.Denied.Ranges = append(c.Denied.Ranges, one.Masked())
		}
	}
	c.Resolver = w.cacheResolver(path, p)
	return c
}

// cacheBackoff reads one whose most may be less than its base, as Envoy does here.
func (w *walker) cacheBackoff(path string, p *clusterv3.Cluster_RefreshRate) *api.Backoff {
	b := &api.Backoff{Base: w.duration(path+".base_interval", p.GetBaseInterval(), 0)}
	b.Max = w.duration(path+".max_interval", p.GetMaxInterval(), 10*b.Base)
	return b
}

// cacheResolver reads whom the cache asks; nil leaves it to the bootstrap.
func (w *walker) cacheResolver(path string, p *dfpv3.DnsCacheConfig) *api.Resolver {
	older := p.GetDnsResolutionConfig() //nolint:staticcheck // deprecated, and in use
	tcp := p.GetUseTcpForDnsLookups()   //nolint:staticcheck // deprecated, and in use
	switch {
	case p.GetTypedDnsResolverConfig() != nil:
		return w.typedResolver(path+".typed_dns_resolver_config", p.GetTypedDnsResolverConfig())
	case older != nil:
		return w.olderResolver(path+".dns_resolution_config", older)
	case tcp:
		return &api.Resolver{TCP: true}
	}
	return nil
}
