package resource

import (
	"errors"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
)

var plainAddrs = cmpopts.EquateComparable(netip.AddrPort{})

const (
	on    = `name: l, address: {socket_address: {address: 127.0.0.1, port_value: 80}}`
	tcp   = `{name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: p, cluster: c}}`
	mongo = `{name: envoy.filters.network.tcp_proxy, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy, stat_prefix: p}}`
	hcm   = `{name: h, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: p, route_config: {}}}`
)

// proxy is a listener whose only chain holds a tcp_proxy with more fields.
func proxy(more string) string {
	return on + `, filter_chains: [{filters: [` + strings.TrimSuffix(tcp, "}}") + ", " + more + `}}]}]`
}

func chainWith(more string) string {
	return on + `, filter_chains: [{filters: [` + tcp + `], ` + more + `}]`
}
func plus(more string) string { return chainWith("") + ", " + more }

func TestListenerIsDecodedWithItsDefaults(t *testing.T) {
	for _, tt := range []struct {
		what, in string
		want     func(*api.Listener)
		unbuilt  []string
	}{
		{what: "everything by default", in: chainWith("")},
		{what: "no reuse port", in: plus("enable_reuse_port: false"), want: func(l *api.Listener) { l.ReusePort = false }},
		{what: "reuse port said", in: plus("enable_reuse_port: true")},
		{what: "stat prefix and backlog", in: plus("stat_prefix: s, tcp_backlog_size: 7"), want: func(l *api.Listener) {
			l.StatPrefix, l.Backlog = "s", 7
		}},
		{what: "a backlog beyond int32", in: plus("tcp_backlog_size: 4294967295"), want: func(l *api.Listener) { l.Backlog = math.MaxInt32 }},
		{what: "a buffer limit", in: plus("per_connection_buffer_limit_bytes: 4096"), want: func(l *api.Listener) {
			l.PerConnectionBufferLimit = 4096
		}},
		{what: "no buffer limit stays bounded", in: plus("per_connection_buffer_limit_bytes: 0"), unbuilt: []string{"per_connection_buffer_limit_bytes"}},
		{what: "harmless values of fields that are refused", in: plus("bind_to_port: true, use_original_dst: false")},
		{what: "further addresses, both families", in: plus(`additional_addresses: [{address: {socket_address: {address: "::", port_value: 0, ipv4_compat: true}}}]`),
			want: func(l *api.Listener) {
				l.Addresses = append(l.Addresses, api.BindAddress{Addr: netip.MustParseAddrPort("[::]:0"), IPv4Compat: true})
			}},
		{what: "chains by port and a default", in: on + `, filter_chains: [{name: a, filter_chain_match: {destination_port: 8080}, filters: []}, {name: b, filters: [` + tcp + `]}], default_filter_chain: {name: d, filters: [` + tcp + `]}`,
			want: func(l *api.Listener) {
				proxy := l.FilterChains[0].Filters
				l.FilterChains = []*api.FilterChain{{Name: "a", Match: api.FilterChainMatch{DestinationPort: 8080}}, {Name: "b", Filters: proxy}}
				l.DefaultFilterChain = &api.FilterChain{Name: "d", Filters: proxy}
			}},
		{what: "a match on the default chain is ignored, as Envoy does", in: plus("default_filter_chain: {filter_chain_match: {destination_port: 8080, server_names: [a]}}"),
			want:    func(l *api.Listener) { l.DefaultFilterChain = &api.FilterChain{} },
			unbuilt: []string{"default_filter_chain.filter_chain_match"}},
		{what: "idle timeout off", in: proxy("idle_timeout: 0s"), want: func(l *api.Listener) { l.FilterChains[0].Filters[0].TCPProxy.IdleTimeout = 0 }},
		{what: "idle timeout and attempts", in: proxy("idle_timeout: 1.5s, max_connect_attempts: 3"), want: func(l *api.Listener) {
			p := l.FilterChains[0].Filters[0].TCPProxy
			p.IdleTimeout, p.MaxConnectAttempts = 1500*time.Millisecond, 3
		}},
		{what: "access logs that are not built are noted", in: proxy(`access_log: [{name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig, common_config: {log_name: x, grpc_service: {envoy_grpc: {cluster_name: c}}}}}]`),
			unbuilt: []string{"filter_chains[0].filters[0] tcp_proxy.access_log[0] http_grpc_access_log_config"}},
		{what: "listener filters",
			in: plus(`listener_filters: [{name: x, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}], listener_filters_timeout: 0s, enable_mptcp: true, metadata: {filter_metadata: {a: {b: c}}}`),
			want: func(l *api.Listener) {
				l.ListenerFiltersTimeout = 0
				l.Metadata = api.Metadata{"a": {"b": "c"}}
				l.ListenerFilters = []api.ListenerFilter{{Name: "x", TLSInspector: &api.TLSInspector{MaxClientHello: 16 << 10}}}
			},
			unbuilt: []string{"enable_mptcp"}},
		{what: "Istio's metadata exchange is noted",
			in:      on + `, filter_chains: [{filters: [{name: m, typed_config: {"@type": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange, value: {protocol: istio-peer-exchange}}}, ` + tcp + `]}]`,
			unbuilt: []string{"filter_chains[0].filters[0] metadata_exchange"}},
		{what: "a plain transport socket", in: chainWith(`transport_socket: {name: any, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}`)},
	} {
		t.Run(tt.what, func(t *testing.T) {
			want := &api.Listener{
				Name: "l", ReusePort: true, PerConnectionBufferLimit: 1 << 20, ListenerFiltersTimeout: 15 * time.Second,
				Addresses: []api.BindAddress{{Addr: netip.MustParseAddrPort("127.0.0.1:80")}},
				FilterChains: []*api.FilterChain{{Filters: []api.Filter{{Name: "t", TCPProxy: &api.TCPProxy{
					StatPrefix: "p", Cluster: "c", IdleTimeout: time.Hour, MaxConnectAttempts: 1}}}}},
			}
			if tt.want != nil {
				tt.want(want)
			}
			name, got, n, err := Listener(pack(t, listenerOf(t, tt.in)))
			if err != nil || name != "l" {
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

func TestTCPProxyInsideATypedStructIsOne(t *testing.T) {
	_, l, n, err := Listener(pack(t, listenerOf(t, on+`, filter_chains: [{filters: [{name: x, typed_config: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/`+typeTCPProxy+`, value: {stat_prefix: p, cluster: c, later: 1}}}]}]`)))
	if err != nil {
		t.Fatal(err)
	}
	if got := l.FilterChains[0].Filters[0].TCPProxy.Cluster; got != "c" || n.Unknown != 1 {
		t.Errorf("cluster %q, %d unknown", got, n.Unknown)
	}
}

func TestAListenerWithoutNameIsCalledByItsAddress(t *testing.T) {
	name, l, _, err := Listener(pack(t, listenerOf(t, strings.TrimPrefix(chainWith(""), "name: l, "))))
	if err != nil || name != "127.0.0.1:80" || l.Name != name {
		t.Errorf("got %q, %v", name, err)
	}
}

// Where Envoy 1.40 refuses the same, the cause is its own.
func TestListenerIsRefusedByFieldAndValue(t *testing.T) {
	for _, tt := range []struct{ what, in, want string }{
		{"no address", `name: l`, "address: error adding listener named 'l': address is necessary"},
		{"a host name", `name: l, address: {socket_address: {address: foo, port_value: 1}}, default_filter_chain: {}`, "address.socket_address.address: malformed IP address: foo"},
		{"a scope", `name: l, address: {socket_address: {address: "fe80::1%lo", port_value: 1}}, default_filter_chain: {}`, `address.socket_address.address: IPv6 scope not supported yet ("fe80::1%lo")`},
		{"compat on IPv4", `name: l, address: {socket_address: {address: 127.0.0.1, port_value: 1, ipv4_compat: true}}, default_filter_chain: {}`, "address.socket_address.ipv4_compat: Only IPv6 address '::' or valid IPv4-mapped IPv6 address can set ipv4_compat: 127.0.0.1:1"},
		{"UDP", `name: l, address: {socket_address: {protocol: UDP, address: 127.0.0.1, port_value: 1}}, default_filter_chain: {}`, "address.socket_address.protocol: not supported yet (UDP)"},
		{"another network namespace", `name: l, address: {socket_address: {address: 127.0.0.1, port_value: 1, network_namespace_filepath: /run/n}}, default_filter_chain: {}`, `address.socket_address.network_namespace_filepath: not supported yet ("/run/n")`},
		{"an additional nothing", plus(`additional_addresses: [{}]`), `additional_addresses[0].address: Address must be set`},
		{"no chains", on, "filter_chains: error adding listener '127.0.0.1:80': no filter chains specified"},
		{"two chains for one port", on + `, filter_chains: [{name: a, filter_chain_match: {destination_port: 8080}}, {name: b, filter_chain_match: {destination_port: 8080}}]`, `filter_chains[1]: error adding listener '127.0.0.1:80': filter chain 'b' has the same matching rules defined as 'a'. duplicate matcher is: {"destination_port":8080}`},
		{"two chains for all", on + `, filter_chains: [{}, {filter_chain_match: {}}]`, `filter_chains[1]: error adding listener '127.0.0.1:80': filter chain '' has the same matching rules defined as ''. duplicate matcher is: {}`},
		{"TLS on the default chain", plus(`default_filter_chain: {transport_socket: {name: t}}`), `default_filter_chain.transport_socket: Didn't find a registered implementation for 't' with type URL: ''`},
		{"half a wildcard", chainWith(`filter_chain_match: {server_names: ["*w.b"]}`), `filter_chains[0].filter_chain_match.server_names[0]: partial wildcards are not supported in "server_names" ("*w.b")`},
		{"a match that Envoy has not built", chainWith(`filter_chain_match: {suffix_len: 1}`), `filter_chains[0].filter_chain_match.suffix_len: contains unimplemented fields (1)`},
		{"TLS", chainWith(`transport_socket: {name: raw_buffer, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext}}`), `filter_chains[0].transport_socket downstream_tls_context.common_tls_context.tls_certificates: No TLS certificates found for server context`},
		{"PROXY protocol, the old way", chainWith(`use_proxy_proto: true`), `filter_chains[0].use_proxy_proto: not supported yet (true)`},
		{"an unknown listener filter", plus(`listener_filters: [{name: o, typed_config: {"@type": type.googleapis.com/foo.Bar}}]`), `listener_filters[0] bar: Didn't find a registered implementation for 'o' with type URL: 'foo.Bar'`},
		{"mongo_proxy, named like another", on + `, filter_chains: [{filters: [` + mongo + `, ` + tcp + `]}]`, `filter_chains[0].filters[0] mongo_proxy: not supported yet (envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy)`},
		{"mongo_proxy inside a TypedStruct", on + `, filter_chains: [{filters: [{name: m, typed_config: {"@type": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy, value: {stat_prefix: x}}}, ` + tcp + `]}]`, `filter_chains[0].filters[0] mongo_proxy: not supported yet (envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy)`},
		{"an unknown filter", on + `, filter_chains: [{filters: [{name: x, typed_config: {"@type": type.googleapis.com/foo.Bar}}, ` + tcp + `]}]`, `filter_chains[0].filters[0] bar: Didn't find a registered implementation for 'x' with type URL: 'foo.Bar'`},
		{"a filter by name alone", on + `, filter_chains: [{filters: [{name: envoy.filters.network.tcp_proxy}]}]`, `filter_chains[0].filters[0]: Didn't find a registered implementation for 'envoy.filters.network.tcp_proxy' with type URL: ''`},
		{"a discovered filter", on + `, filter_chains: [{filters: [{name: x, config_discovery: {config_source: {ads: {}}, type_urls: [a]}}]}]`, "filter_chains[0].filters[0].config_discovery.type_urls[0]: Error: no factory found for a required type URL a."},
		{"two terminal filters", on + `, filter_chains: [{filters: [` + tcp + `, ` + tcp + `]}]`, "filter_chains[0].filters[0] tcp_proxy: Error: terminal filter named t of type envoy.filters.network.tcp_proxy must be the last filter in a network filter chain."},
		{"no terminal filter", on + `, filter_chains: [{filters: [{name: m, typed_config: {"@type": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/stats.PluginConfig}}]}]`, "filter_chains[0].filters[0] plugin_config: Error: non-terminal filter named m of type stats.PluginConfig is the last filter in a network filter chain."},
		{"a tunnel's path without a POST", proxy(`tunneling_config: {hostname: a, post_path: /p}`), "filter_chains[0].filters[0] tcp_proxy.tunneling_config.post_path: Can't set a post path when POST method isn't used"},
		{"a tunnel to a command that is none", proxy(`tunneling_config: {hostname: "%NOPE%"}`), "filter_chains[0].filters[0] tcp_proxy.tunneling_config.hostname: Not supported field in StreamInfo: NOPE"},
		{"a tunnel with another host", proxy(`tunneling_config: {hostname: a, headers_to_add: [{header: {key: Host, value: b}}]}`), "filter_chains[0].filters[0] tcp_proxy.tunneling_config.headers_to_add[0].header.key: :-prefixed or host headers may not be modified"},
		{"a tunnel with two actions for a header", proxy(`tunneling_config: {hostname: a, headers_to_add: [{header: {key: a, value: b}, append: false, append_action: ADD_IF_ABSENT}]}`), "filter_chains[0].filters[0] tcp_proxy.tunneling_config.headers_to_add[0]: Both append and append_action are set and it's not allowed"},
		{"early data without a bound", proxy(`upstream_connect_mode: ON_DOWNSTREAM_DATA`), `filter_chains[0].filters[0] tcp_proxy: max_early_data_bytes must be set when upstream_connect_mode is not IMMEDIATE`},
		{"a negative duration", proxy(`idle_timeout: -1s`), `filter_chains[0].filters[0] tcp_proxy.idle_timeout: Invalid duration: Expected positive duration (-1s 0ns)`},
		{"a duration beyond 292 years", proxy(`idle_timeout: 9300000000s`), `filter_chains[0].filters[0] tcp_proxy.idle_timeout: Invalid duration: Duration out-of-range (9300000000s 0ns)`},
		{"a broken constraint inside an Any", proxy(`max_connect_attempts: 0`), `filter_chains[0].filters[0] tcp_proxy.max_connect_attempts: Proto constraint validation failed (TcpProxyValidationError.MaxConnectAttempts: value must be greater than or equal to 1) (0)`},
		{"a broken constraint in what is only noted", plus(`access_log: [{name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog}}]`), `access_log[0] file_access_log.path: Proto constraint validation failed (FileAccessLogValidationError.Path: value length must be at least 1 characters) ("")`},
		{"two faults, both named", plus(`api_listener: {}, fcds_config: {}`), `fcds_config: not supported yet ({}); api_listener: not supported yet ({})`},
	} {
		t.Run(tt.what, func(t *testing.T) {
			name, l, _, err := Listener(pack(t, listenerOf(t, tt.in)))
			if err == nil {
				t.Fatalf("accepted: %+v", l)
			}
			if name != "l" || l != nil {
				t.Errorf("name %q, listener %v", name, l)
			}
			if d := cmp.Diff(tt.want, err.Error()); d != "" {
				t.Error(d)
			}
			if errors.Is(err, ErrConstraint) {
				t.Error("it would cost the whole response")
			}
		})
	}
}

func TestABrokenConstraintOfTheResourceItselfIsTold(t *testing.T) {
	name, _, _, err := Listener(pack(t, listenerOf(t, on+`, filter_chains: [{filters: [{name: ""}]}]`)))
	want := `filter_chains[0].filters[0].name: Proto constraint validation failed (FilterValidationError.Name: value length must be at least 1 characters) ("")`
	if name != "l" || !errors.Is(err, ErrConstraint) || err.Error() != want {
		t.Errorf("got %q, %v", name, err)
	}
}

func TestWhatIsNoListenerIsRefused(t *testing.T) {
	_, _, _, err := Listener(pack(t, clusterOf(t, "name: c")))
	if !errors.Is(err, ErrType) || err.Error() != `type_url: unexpected resource type: want envoy.config.listener.v3.Listener ("type.googleapis.com/envoy.config.cluster.v3.Cluster")` {
		t.Error(err)
	}
	a := pack(t, &listenerv3.Listener{})
	a.Value = []byte{0xff}
	if _, _, _, err = Listener(a); !errors.Is(err, ErrConstraint) {
		t.Error(err)
	}
	if _, _, _, err = Listener(nil); !errors.Is(err, ErrType) {
		t.Error(err)
	}
}

func TestUnknownFieldsAreCountedByMessageAlsoInsideAny(t *testing.T) {
	l := listenerOf(t, chainWith(""))
	unknown := []byte{0xf8, 0xff, 0x01, 1} // field 4095, a varint
	l.ProtoReflect().SetUnknown(unknown)
	l.GetFilterChains()[0].ProtoReflect().SetUnknown(append(unknown, unknown...))
	cfg := l.GetFilterChains()[0].GetFilters()[0].GetTypedConfig()
	cfg.Value = append(cfg.Value, unknown...)
	_, _, n, err := Listener(pack(t, l))
	if err != nil || n.Unknown != 3 {
		t.Errorf("got %d, %v", n.Unknown, err)
	}
}

// Found by the fuzzer: names end up in paths.
func TestErrorsStayOnOneLine(t *testing.T) {
	l := listenerOf(t, chainWith(""))
	l.GetFilterChains()[0].GetFilters()[0].GetTypedConfig().TypeUrl = "a/B\nc"
	_, _, _, err := Listener(&anypb.Any{TypeUrl: "x/envoy.config.listener.v3.Listener", Value: mustMarshal(t, l)})
	if err == nil || strings.ContainsAny(err.Error(), "\n") {
		t.Errorf("%q", err)
	}
}

func TestAnAnyInAnAnyIsBounded(t *testing.T) {
	nest := func(levels int) error {
		a := &anypb.Any{}
		for range levels {
			a = pack(t, a)
		}
		l := listenerOf(t, chainWith("")+`, access_log: [{name: a}]`)
		l.GetAccessLog()[0].ConfigType = nil
		l.Metadata = nil
		l.GetListenerFilters()
		l.ListenerFilters = []*listenerv3.ListenerFilter{{Name: "x", ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: a}}}
		_, _, _, err := Listener(pack(t, l))
		return err
	}
	if err := nest(maxAnyDepth + 5); err == nil || !strings.Contains(err.Error(), "nested too deep") {
		t.Error(err)
	}
	if err := nest(maxAnyDepth - 5); err == nil || strings.Contains(err.Error(), "nested too deep") {
		t.Error(err)
	}
}
