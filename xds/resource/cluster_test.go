package resource

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-proxy/sluice/api"
)

const eds = `name: c, type: EDS, eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}}`

func TestClusterIsDecodedWithItsDefaults(t *testing.T) {
	edsOf := func(c *api.Cluster) {
		c.Discovery, c.Assignment, c.Source = api.EDS, nil, api.ConfigSource{InitialFetchTimeout: 15 * time.Second}
	}
	for _, tt := range []struct {
		what, in string
		want     func(*api.Cluster)
		unbuilt  []string
	}{
		{what: "a name alone is an empty STATIC", in: `name: c`},
		{what: "EDS", in: eds, want: edsOf},
		{what: "EDS by another name that waits for ever", in: `name: c, type: EDS, eds_cluster_config: {service_name: s, eds_config: {self: {}, initial_fetch_timeout: 0s}}`, want: func(c *api.Cluster) {
			edsOf(c)
			c.ServiceName, c.Source = "s", api.ConfigSource{Kind: api.FromSelf}
		}},
		{what: "EDS ignores a load assignment", in: eds + `, load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint_name: x}]}]}`, want: edsOf, unbuilt: []string{"load_assignment"}},
		{what: "STATIC with an endpoint", in: `name: c, load_assignment: {cluster_name: other, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: "::1", port_value: 9}}}}]}]}`, want: func(c *api.Cluster) {
			c.Assignment.Localities = []api.Locality{{Endpoints: []api.Endpoint{{Addr: netip.MustParseAddrPort("[::1]:9"), Weight: 1}}}}
		}},
		{what: "least request", in: `name: c, lb_policy: LEAST_REQUEST, least_request_lb_config: {choice_count: 3, active_request_bias: {default_value: 1, runtime_key: k}}`, want: func(c *api.Cluster) {
			c.Balancing.Policy, c.Balancing.ChoiceCount = api.LeastRequest, 3
		}, unbuilt: []string{"least_request_lb_config.active_request_bias.runtime_key"}},
		{what: "random", in: `name: c, lb_policy: RANDOM`, want: func(c *api.Cluster) { c.Balancing.Policy = api.Random }},
		{what: "numbers", in: `name: c, alt_stat_name: a, connect_timeout: 0.25s, per_connection_buffer_limit_bytes: 32768, common_lb_config: {healthy_panic_threshold: {value: 0}}`, want: func(c *api.Cluster) {
			c.AltStatName, c.ConnectTimeout, c.PerConnectionBufferLimit, c.PanicThreshold = "a", 250*time.Millisecond, 32768, 0
		}},
		{what: "the first DEFAULT thresholds", in: `name: c, circuit_breakers: {thresholds: [{priority: HIGH, max_connections: 1}, {max_connections: 0, max_retries: 9, track_remaining: true}, {max_connections: 7}]}`, want: func(c *api.Cluster) {
			c.CircuitBreakers.MaxConnections, c.CircuitBreakers.MaxRetries, c.CircuitBreakers.TrackRemaining = 0, 9, true
			c.HighBreakers.MaxConnections = 1
		}},
		{what: "the first limit of each host", in: `name: c, circuit_breakers: {per_host_thresholds: [{priority: HIGH, max_connections: 1}, {max_connections: 2}, {max_connections: 3}]}`, want: func(c *api.Cluster) {
			c.HighBreakers.PerHost, c.CircuitBreakers.PerHost = pointer(1), pointer(2)
		}},
		{what: "budgets of retries, and pools", in: `name: c, circuit_breakers: {thresholds: [{retry_budget: {}, max_connection_pools: 7}, {priority: HIGH, retry_budget: {budget_percent: {value: 50}, min_retry_concurrency: 0}}]}`, want: func(c *api.Cluster) {
			c.CircuitBreakers.MaxPools, c.CircuitBreakers.Budget = pointer(7), &api.RetryBudget{Percent: 20, Least: 3}
			c.HighBreakers.Budget = &api.RetryBudget{Percent: 50}
		}},
		{what: "changes of hosts, which close nothing", in: `name: c, common_lb_config: {close_connections_on_host_set_change: true}`},
		{what: "what every control plane sends beside",
			in: `name: c, typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}, metadata: {filter_metadata: {f: {k: [1, true]}}}, upstream_connection_options: {tcp_keepalive: {}}, filters: [{name: m, typed_config: {"@type": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange}}]`,
			want: func(c *api.Cluster) {
				c.Metadata, c.Keepalive = api.Metadata{"f": {"k": []any{1.0, true}}}, &api.Keepalive{}
				h := api.DefaultHTTP2()
				c.HTTP2 = &h
			},
			unbuilt: []string{"filters"}},
		{what: "plain transport sockets, no selectors", in: `name: c, lb_subset_config: {fallback_policy: ANY_ENDPOINT}, transport_socket_matches: [{name: a, match: {}, transport_socket: {name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}]`,
			want: func(c *api.Cluster) { c.SocketMatches = []api.SocketMatch{{Name: "a", Match: map[string]any{}}} }},
		{what: "figures of TCP", in: `name: c, transport_socket: {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tcp_stats.v3.Config, update_period: 2s, transport_socket: {name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}`, want: func(c *api.Cluster) {
			c.Socket.TCPStats = &api.TCPStats{Period: 2 * time.Second}
		}},
		{what: "sockets by metadata", in: `name: c, transport_socket_matches: [{name: tls, match: {tlsMode: istio}, transport_socket: {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: a}}}, {name: any, transport_socket: {name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}]`,
			want: func(c *api.Cluster) {
				c.SocketMatches = []api.SocketMatch{{Name: "tls", Match: map[string]any{"tlsMode": "istio"}, Socket: api.UpstreamSocket{
					TLS: &api.UpstreamTLS{SNI: "a", MaxSessionKeys: 1, TLSContext: api.TLSContext{Params: clientParams()}}}}, {Name: "any", Match: map[string]any{}}}
			}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			want := &api.Cluster{
				Name: "c", ConnectTimeout: 5 * time.Second, Balancing: defaultBalancing(), PanicThreshold: 50, PerConnectionBufferLimit: 1 << 20,
				CircuitBreakers: api.CircuitBreakers{MaxConnections: 1024, MaxPendingRequests: 1024, MaxRequests: 1024, MaxRetries: 3},
				HighBreakers:    api.CircuitBreakers{MaxConnections: 1024, MaxPendingRequests: 1024, MaxRequests: 1024, MaxRetries: 3},
				Assignment:      &api.Assignment{OverprovisioningFactor: 140},
			}
			if tt.want != nil {
				tt.want(want)
			}
			name, got, n, err := Cluster(pack(t, clusterOf(t, tt.in)))
			if err != nil || name != "c" {
				t.Fatalf("got %q, %v", name, err)
			}
			if d := cmp.Diff(want, got, plainAddrs); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(Notes{Unbuilt: tt.unbuilt}, n, cmpopts.EquateEmpty()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestClusterIsRefusedByFieldAndValue(t *testing.T) {
	for _, tt := range []struct{ what, in, want string }{
		{"a type that there is not", `name: c, cluster_type: {name: foo}`, `cluster_type: Didn't find a registered cluster factory implementation for name: 'foo' ({"name":"foo"})`},
		{"an aggregate with a balancer", `name: c, cluster_type: {name: envoy.clusters.aggregate, typed_config: {"@type": type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [a]}}`, "lb_policy: cluster manager: cluster provided LB not specified but cluster 'c' provided one. Check cluster documentation."},
		{"ORIGINAL_DST with a balancer", `name: c, type: ORIGINAL_DST`, "lb_policy: cluster: LB policy ROUND_ROBIN is not valid for Cluster type ORIGINAL_DST. Only 'CLUSTER_PROVIDED' is allowed with cluster type 'ORIGINAL_DST'"},
		{"ORIGINAL_DST by name with a balancer", `name: c, cluster_type: {name: envoy.cluster.original_dst}`, "lb_policy: cluster: LB policy ROUND_ROBIN is not valid for Cluster type envoy.cluster.original_dst. Only 'CLUSTER_PROVIDED' is allowed with cluster type 'ORIGINAL_DST'"},
		{"ORIGINAL_DST with endpoints", `name: c, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, load_assignment: {cluster_name: c}`, "load_assignment: ORIGINAL_DST clusters must have no load assignment configured"},
		{"LOGICAL_DNS without a host", `name: c, type: LOGICAL_DNS`, "load_assignment: LOGICAL_DNS clusters must have a single host"},
		{"LOGICAL_DNS with two hosts", `name: c, type: LOGICAL_DNS, load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: a, port_value: 1}}}}, {endpoint: {address: {socket_address: {address: b, port_value: 1}}}}]}]}`, "load_assignment: LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint"},
		{"a resolver that there is not", `name: c, type: STRICT_DNS, typed_dns_resolver_config: {name: foo, typed_config: {"@type": type.googleapis.com/google.protobuf.Empty}}`, "typed_dns_resolver_config: Didn't find a registered implementation for 'foo' with type URL: 'google.protobuf.Empty'"},
		{"a failure rate that shrinks", `name: c, type: STRICT_DNS, dns_failure_refresh_rate: {base_interval: 2s, max_interval: 1s}`, "dns_failure_refresh_rate: dns_failure_refresh_rate must have max_interval greater than or equal to the base_interval"},
		{"an EDS source for a DNS cluster", `name: c, type: STRICT_DNS, eds_cluster_config: {}`, "eds_cluster_config: eds_cluster_config set in a non-EDS cluster"},
		{"EDS without a source", `name: c, type: EDS`, "eds_cluster_config: cannot create an EDS cluster without an EDS config"},
		{"EDS with an empty source", `name: c, type: EDS, eds_cluster_config: {service_name: s}`, "eds_cluster_config.eds_config: Missing config source specifier in envoy::config::core::v3::ConfigSource"},
		{"EDS from another server", `name: c, type: EDS, eds_cluster_config: {eds_config: {api_config_source: {api_type: GRPC}}}`, `eds_cluster_config.eds_config.api_config_source.grpc_services: API configs must have either a gRPC service or a cluster name defined`},
		{"an EDS source for a STATIC cluster", `name: c, eds_cluster_config: {}`, "eds_cluster_config: eds_cluster_config set in a non-EDS cluster"},
		{"a server's TLS", `name: c, transport_socket: {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext}}`, "transport_socket: Didn't find a registered implementation for 't' with type URL: 'envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext'"},
		{"TLS by match", `name: c, transport_socket_matches: [{name: m, transport_socket: {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: "\u0000"}}}]`, "transport_socket_matches[0].transport_socket upstream_tls_context.sni: SNI names containing NULL-byte are not allowed"},
		{"a match without a socket", `name: c, transport_socket_matches: [{name: m}]`, "transport_socket_matches[0].transport_socket: Didn't find a registered implementation for '' with type URL: ''"},
		{"figures of the TCP of nothing", `name: c, transport_socket: {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tcp_stats.v3.Config}}`, "transport_socket config.transport_socket: Proto constraint validation failed (ConfigValidationError.TransportSocket: value is required)"},
		{"another socket", `name: c, transport_socket: {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.alts.v3.Alts, handshaker_service: x}}`, "transport_socket: not supported yet (envoy.extensions.transport_sockets.alts.v3.Alts)"},
		{"a source address that is none", `name: c, upstream_bind_config: {source_address: {address: foo, port_value: 0}}`, "upstream_bind_config.source_address.address: malformed IP address: foo"},
		{"two source addresses of one family", `name: c, upstream_bind_config: {source_address: {address: 127.0.0.1, port_value: 0}, extra_source_addresses: [{address: {address: 127.0.0.2, port_value: 0}}]}`, "upstream_bind_config: Cluster c's upstream binding config has two same IP version source addresses. Only two different IP version source addresses can be supported in BindConfig's source_address and extra_source_addresses/additional_source_addresses fields"},
		{"extra source addresses alone", `name: c, upstream_bind_config: {extra_source_addresses: [{address: {address: "::1", port_value: 0}}]}`, "upstream_bind_config: Cluster c's upstream binding config has extra/additional source addresses but no source_address. Extra/additional addresses cannot be specified if source_address is not set."},
		{"an upstream filter", `name: c, filters: [{name: m, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: p}}]`, "filters[0]: not supported yet (envoy.extensions.filters.network.rbac.v3.RBAC)"},
		{"no number for the panic threshold", `name: c, common_lb_config: {healthy_panic_threshold: {value: NaN}}`, "common_lb_config.healthy_panic_threshold.value: value must be inside range [0, 100] (NaN)"},
		{"a host name", `name: c, load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: localhost, port_value: 9}}}}]}]}`,
			"load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: malformed IP address: localhost. Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			name, c, _, err := Cluster(pack(t, clusterOf(t, tt.in)))
			if err == nil {
				t.Fatalf("accepted: %+v", c)
			}
			if d := cmp.Diff(tt.want, err.Error()); d != "" || name != "c" || errors.Is(err, ErrConstraint) {
				t.Error(name, d)
			}
		})
	}
}

func TestABrokenConstraintOfAClusterIsTold(t *testing.T) {
	for in, want := range map[string]string{
		`name: c, connect_timeout: 0s`:                                       `connect_timeout: Proto constraint validation failed (ClusterValidationError.ConnectTimeout: value must be greater than 0s) ("0s")`,
		`name: c, least_request_lb_config: {choice_count: 1}`:                `least_request_lb_config.choice_count: Proto constraint validation failed (LeastRequestLbConfigValidationError.ChoiceCount: value must be greater than or equal to 2) (1)`,
		`name: c, load_assignment: {endpoints: [{priority: 129}]}`:           `load_assignment.cluster_name: Proto constraint validation failed (ClusterLoadAssignmentValidationError.ClusterName: value length must be at least 1 characters) ("")`,
		`name: c, common_lb_config: {healthy_panic_threshold: {value: 101}}`: `common_lb_config.healthy_panic_threshold.value: Proto constraint validation failed (PercentValidationError.Value: value must be inside range [0, 100]) (101)`,
	} {
		_, _, _, err := Cluster(pack(t, clusterOf(t, in)))
		if !errors.Is(err, ErrConstraint) || err.Error() != want {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestAssignmentIsDecoded(t *testing.T) {
	in := `cluster_name: s, policy: {overprovisioning_factor: 200, endpoint_stale_after: 1s, drop_overloads: [{category: a, drop_percentage: {}}]}, endpoints: [
  {priority: 1, load_balancing_weight: 5, locality: {region: r, zone: z, sub_zone: u}, lb_endpoints: [
    {health_status: UNHEALTHY, load_balancing_weight: 3, metadata: {filter_metadata: {f: {k: v}}}, endpoint: {hostname: h, address: {socket_address: {address: 10.0.0.1, port_value: 0}}}},
    {health_status: DEGRADED, endpoint: {address: {socket_address: {address: "::ffff:10.0.0.2", port_value: 65535}}, health_check_config: {port_value: 1}}}]},
  {}]`
	name, got, n, err := Assignment(pack(t, assignmentOf(t, in)))
	if err != nil || name != "s" {
		t.Fatal(name, err)
	}
	want := &api.Assignment{OverprovisioningFactor: 200, Drop: api.Drop{Category: "a"}, StaleAfter: time.Second, Localities: []api.Locality{{
		Region: "r", Zone: "z", SubZone: "u", Priority: 1, Weight: 5, Endpoints: []api.Endpoint{
			{Addr: netip.MustParseAddrPort("10.0.0.1:0"), Hostname: "h", Weight: 3, Health: api.HealthUnhealthy, Metadata: api.Metadata{"f": {"k": "v"}}},
			{Addr: netip.MustParseAddrPort("[::ffff:10.0.0.2]:65535"), Weight: 1, Health: api.HealthDegraded,
				Check: &api.EndpointCheck{Port: 1}},
		}}, {}}}
	if d := cmp.Diff(want, got, plainAddrs); d != "" {
		t.Error(d)
	}
	if len(n.Unbuilt) > 0 {
		t.Error(n.Unbuilt)
	}
}

func TestAssignmentIsRefusedByFieldAndValue(t *testing.T) {
	one := func(e string) string { return `cluster_name: s, endpoints: [{lb_endpoints: [` + e + `]}]` }
	const hint = ". Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'"
	for _, tt := range []struct{ what, in, want string }{
		{"a host name", one(`{endpoint: {address: {socket_address: {address: localhost, port_value: 9}}}}`), "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: malformed IP address: localhost" + hint},
		{"no address", one(`{endpoint: {}}`), "endpoints[0].lb_endpoints[0].endpoint.address: Address must be set" + hint},
		{"no endpoint", one(`{}`), "endpoints[0].lb_endpoints[0].endpoint.address: Address must be set" + hint},
		{"a pipe of a long name", one(`{endpoint: {address: {pipe: {path: /` + strings.Repeat("a", 120) + `}}}}`), `endpoints[0].lb_endpoints[0].endpoint.address.pipe.path: Path "/` + strings.Repeat("a", 119) + `…" exceeds maximum UNIX domain socket path size of 108.`},
		{"a name for an endpoint", one(`{endpoint_name: e}`), `endpoints[0].lb_endpoints[0].endpoint.address: Address must be set. Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'`},
		{"two kinds of drops", `cluster_name: s, policy: {drop_overloads: [{category: a, drop_percentage: {}}, {category: b, drop_percentage: {}}]}`, "policy.drop_overloads: Cluster drop_overloads config has 2 categories. Envoy only support one."},
		{"LEDS", `cluster_name: s, endpoints: [{leds_cluster_locality_config: {leds_config: {ads: {}}, leds_collection_name: e}}]`, `endpoints[0].leds_cluster_locality_config: not supported yet ({"leds_config":{"ads":{}},"leds_collection_name":"e"})`},
	} {
		t.Run(tt.what, func(t *testing.T) {
			name, as, _, err := Assignment(pack(t, assignmentOf(t, tt.in)))
			if err == nil {
				t.Fatalf("accepted: %+v", as)
			}
			if d := cmp.Diff(tt.want, err.Error()); d != "" || name != "s" {
				t.Error(name, d)
			}
		})
	}
}

func pointer(n uint32) *uint32 { return &n }
