package resource

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-proxy/sluice/api"
)

// forwardCluster is a dynamic forward proxy; more are fields of the cluster.
func forwardCluster(config, more string) string {
	return `name: c, lb_policy: CLUSTER_PROVIDED, cluster_type: {name: f, typed_config: {"@type": type.googleapis.com/` + typeForwardProxy + config + `}}` + more
}

func cacheOf(more string) string { return ", dns_cache_config: {name: names" + more + "}" }

func defaultCache() *api.DNSCache {
	return &api.DNSCache{Name: "names", Refresh: time.Minute, MinRefresh: 5 * time.Second, HostTTL: 5 * time.Minute, QueryTimeout: 5 * time.Second, MaxHosts: 1024, MaxPending: 1024}
}

func TestDNSCache(t *testing.T) {
	for _, tt := range []struct {
		what, in string
		want     func(*api.DNSCache)
		unbuilt  []string
	}{
		{what: "defaults"},
		{what: "times", in: `, dns_refresh_rate: 1s, dns_min_refresh_rate: 2s, host_ttl: 3s, dns_query_timeout: 0s, dns_failure_refresh_rate: {base_interval: 1s}, disable_dns_refresh_on_failure: true`,
			want: func(c *api.DNSCache) {
				c.Refresh, c.MinRefresh, c.HostTTL, c.QueryTimeout = time.Second, 2*time.Second, 3*time.Second, 0
				c.Failure, c.NoRefreshOnFailure = &api.Backoff{Base: time.Second, Max: 10 * time.Second}, true
			}},
		{what: "limits", in: `, max_hosts: 1, dns_cache_circuit_breaker: {max_pending_requests: 0}, preresolve_hostnames: [{address: a.test, port_value: 7}]`,
			want: func(c *api.DNSCache) {
				c.MaxHosts, c.MaxPending, c.Known = 1, 0, []api.NamedPort{{Name: "a.test", Port: 7}}
			}},
		{what: "whom to ask", in: `, dns_lookup_family: ALL, dns_resolution_config: {resolvers: [{socket_address: {address: 10.0.0.1, port_value: 53}}], dns_resolver_options: {use_tcp_for_dns_lookups: true}}`,
			want: func(c *api.DNSCache) {
				c.Family, c.Resolver = api.DNSAll, &api.Resolver{TCP: true, Servers: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:53")}}
			}},
		{what: "by TCP", in: `, use_tcp_for_dns_lookups: true`, want: func(c *api.DNSCache) { c.Resolver = &api.Resolver{TCP: true} }},
		{what: "denied", in: `, resolved_address_filter: {ranges: [{address_prefix: 10.1.2.3, prefix_len: 8}], invert_match: true}`,
			want: func(c *api.DNSCache) {
				c.Denied = &api.AddressMatcher{Ranges: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Invert: true}
			}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			want := defaultCache()
			if tt.want != nil {
				tt.want(want)
			}
			_, c, n, err := Cluster(pack(t, clusterOf(t, forwardCluster(cacheOf(tt.in), ""))))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, c.ByName.Cache, plainAddrs, cmpopts.IgnoreFields(api.DNSCache{}, "Settings"), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
				t.Error(d)
			}
			if c.ByName.Cache.Settings == "" || c.Discovery != api.DynamicForwardProxy || len(n.Unbuilt) > 0 {
				t.Errorf("settings %q, discovery %v, unbuilt %v", c.ByName.Cache.Settings, c.Discovery, n.Unbuilt)
			}
		})
	}
}

func TestForwardProxyIsRefusedAsEnvoyDoes(t *testing.T) {
	const insecure = "dynamic_forward_proxy cluster must have auto_sni and auto_san_validation true unless allow_insecure_cluster_options is set."
	typed := func(more string) string {
		return `, typed_extension_protocol_options: {` + httpProtocolOptions + `: {"@type": type.googleapis.com/` + httpProtocolOptions + `, explicit_http_config: {http_protocol_options: {}}` + more + `}}`
	}
	for _, tt := range []struct{ what, in, want string }{
		{"a balancer", strings.Replace(forwardCluster(cacheOf(""), ""), "lb_policy: CLUSTER_PROVIDED, ", "", 1), "cluster provided LB not specified but cluster 'c' provided one"},
		{"no SNI", forwardCluster(cacheOf(""), `, upstream_http_protocol_options: {auto_san_validation: true}`), insecure},
		{"no SNI, by its typed options", forwardCluster(cacheOf(""), typed("")), insecure},
		{"no validation, by its typed options", forwardCluster(cacheOf(""), typed(", upstream_http_protocol_options: {auto_sni: true}")), insecure},
		{"typed options of both", forwardCluster(cacheOf(""), typed(", upstream_http_protocol_options: {auto_sni: true, auto_san_validation: true}")), ""},
		{"insecure, and allowed", forwardCluster(cacheOf("")+", allow_insecure_cluster_options: true", typed("")), ""},
		{"a cache without a name", forwardCluster(", dns_cache_config: {}", ""), "value length must be at least 1 characters"},
		{"more names than fit", forwardCluster(cacheOf(", max_hosts: 1, preresolve_hostnames: [{address: a, port_value: 1}, {address: b, port_value: 1}]"), ""), "DNS Cache [names] configured with preresolve_hostnames=2 larger than max_hosts=1"},
		{"failures that are asked for sooner", forwardCluster(cacheOf(", dns_failure_refresh_rate: {base_interval: 2s, max_interval: 1s}"), ""), ""},
		{"sub clusters", forwardCluster(", sub_clusters_config: {lb_policy: ROUND_ROBIN}", ""), ""},
		{"sub clusters that bring a balancer", forwardCluster(", sub_clusters_config: {lb_policy: CLUSTER_PROVIDED}", ""), "unsupported lb_policy 'CLUSTER_PROVIDED' in sub_cluster_config"},
		{"sub clusters that are known before", forwardCluster(", sub_clusters_config: {preresolve_clusters: [{address: a, port_value: 1}]}", ""), "preresolve_clusters: not supported yet"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			_, _, _, err := Cluster(pack(t, clusterOf(t, tt.in)))
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestCachesOfOneNameHaveTheSameSettings(t *testing.T) {
	read := func(more string) *api.DNSCache {
		t.Helper()
		_, c, _, err := Cluster(pack(t, clusterOf(t, forwardCluster(cacheOf(more), ""))))
		if err != nil {
			t.Fatal(err)
		}
		return c.ByName.Cache
	}
	all := api.DNSCaches{}
	if err := all.AdmitAll([]*api.DNSCache{read(""), read("")}); err != nil {
		t.Error(err)
	}
	// What it would be anyway is another setting, to Envoy.
	if err := all.Admit(read(", dns_refresh_rate: 60s")); err == nil || err.Error() != "config specified DNS cache 'names' with different settings" {
		t.Errorf("got %v", err)
	}
}

func TestSNIForwardProxyIsDecoded(t *testing.T) {
	for _, tt := range []struct {
		in, want string // of an error
		port     uint16
	}{
		{in: "dns_cache_config: {name: names}"},
		{in: "dns_cache_config: {name: names}, port_value: 443, save_upstream_address: true", port: 443},
		{in: "", want: "value is required"},
		{in: "dns_cache_config: {name: names}, port_value: 0", want: "value must be inside range (0, 65535]"},
		{in: "dns_cache_config: {name: names, host_ttl: 0s}", want: "value must be greater than 0s"},
		{in: `dns_cache_config: {name: names, typed_dns_resolver_config: {name: foo, typed_config: {"@type": type.googleapis.com/google.protobuf.Empty}}}`,
			want: "dns_cache_config.typed_dns_resolver_config: Didn't find a registered implementation for 'foo' with type URL: 'google.protobuf.Empty'"},
	} {
		_, l, _, err := Listener(pack(t, listenerOf(t, before(networkFilterText("sni_dynamic_forward_proxy", "FilterConfig", tt.in)))))
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want %s", tt.in, err, tt.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		f := l.FilterChains[0].Filters[0].SNIForwardProxy
		if f == nil || f.Port != tt.port || f.Cache.Name != "names" || len(l.DNSCaches()) != 1 || l.DNSCaches()[0] != f.Cache {
			t.Errorf("%s: got %+v", tt.in, f)
		}
	}
}
