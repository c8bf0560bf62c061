package resource

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/api"
)

const (
	routerFilter = `{name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}`
	toC          = `{match: {prefix: /}, route: {cluster: c}}`
)

func httpFilterOf(kind, rest string) string {
	return `{name: f, typed_config: {"@type": type.googleapis.com/` + kind + rest + `}}, ` + routerFilter
}

// manager is a connection manager; route is its route specifier.
func manager(route, filters, more string) string {
	return `{name: h, typed_config: {"@type": type.googleapis.com/` + typeHTTP + `, stat_prefix: p, ` + route + `, http_filters: [` + filters + `]` + more + `}}`
}

func routes(routes string) string {
	return `route_config: {name: r, virtual_hosts: [{name: v, domains: ["*"], routes: [` + routes + `]}]}`
}

// chainOf decodes a listener that has a TCP chain beside the connection manager.
func chainOf(t *testing.T, hcm string) (api.Filter, Notes, error) {
	t.Helper()
	_, l, n, err := Listener(pack(t, listenerOf(t, on+`, filter_chains: [{filter_chain_match: {destination_port: 1}, filters: [`+tcp+`]}, {filters: [`+hcm+`]}]`)))
	if err != nil {
		return api.Filter{}, n, err
	}
	return l.FilterChains[1].Filters[0], n, nil
}

// TestAnHTTPChainWithOneWayIsTCP: all that Envoy would do there is to change
// headers.
func TestAnHTTPChainWithOneWayIsTCP(t *testing.T) {
	const fault = "envoy.extensions.filters.http.fault.v3.HTTPFault"
	for what, hcm := range map[string]string{
		"prefix /":           manager(routes(toC), routerFilter, ""),
		"no prefix":          manager(routes(`{match: {prefix: ""}, route: {cluster: c, timeout: 0s}}`), routerFilter, ""),
		"HTTP/2":             manager(routes(toC), routerFilter, ", codec_type: HTTP2, http2_protocol_options: {}"),
		"grpc_stats":         manager(routes(toC), httpFilterOf("envoy.extensions.filters.http.grpc_stats.v3.FilterConfig", ""), ""),
		"cors":               manager(routes(toC), httpFilterOf("envoy.extensions.filters.http.cors.v3.Cors", ""), ""),
		"fault without any":  manager(routes(toC), httpFilterOf(fault, ""), ""),
		"rbac without rules": manager(routes(toC), httpFilterOf("envoy.extensions.filters.http.rbac.v3.RBAC", ""), ""),
		"a filter that is off": manager(routes(toC), `{name: f, disabled: true, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua}}, `+
			routerFilter, ""),
		"Istio's": manager(routes(`{name: default, match: {prefix: /}, route: {cluster: c, timeout: 0s, max_stream_duration: {max_stream_duration: 0s, grpc_timeout_header_max: 0s}}, decorator: {operation: "a:80/*"}}`),
			`{name: istio.metadata_exchange, typed_config: {"@type": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/io.istio.http.peer_metadata.Config, value: {downstream_discovery: [{istio_headers: {}}]}}}, `+
				`{name: istio.stats, typed_config: {"@type": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/stats.PluginConfig, value: {}}}, `+routerFilter,
			`, use_remote_address: false, normalize_path: true, forward_client_cert_details: APPEND_FORWARD, set_current_client_cert_details: {subject: true}, upgrade_configs: [{upgrade_type: websocket}], stream_idle_timeout: 0s`),
	} {
		f, _, err := chainOf(t, hcm)
		want := &api.TCPProxy{StatPrefix: "p", Cluster: "c", IdleTimeout: api.DefaultIdleTimeout, MaxConnectAttempts: 1, ForHTTP: true}
		if d := cmp.Diff(want, f.TCPProxy); d != "" || err != nil {
			t.Errorf("%s: %v %v %s", what, err, f.UnservedHTTP, d)
		}
	}
	f, _, err := chainOf(t, manager(routes(`{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a, weight: 1}, {name: b, weight: 3}]}}}`), routerFilter, ""))
	if d := cmp.Diff([]api.WeightedCluster{{Name: "a", Weight: 1}, {Name: "b", Weight: 3}}, f.TCPProxy.Clusters); d != "" || err != nil {
		t.Error(err, d)
	}
}

// TestAnHTTPChainThatChoosesIsServedAsHTTP.
func TestAnHTTPChainThatChoosesIsServedAsHTTP(t *testing.T) {
	for what, hcm := range map[string]string{
		"a path":           manager(routes(`{match: {path: /}, route: {cluster: c}}`), routerFilter, ""),
		"two routes":       manager(routes(`{match: {prefix: /a}, direct_response: {status: 200}}, `+toC), routerFilter, ""),
		"a header":         manager(routes(`{match: {prefix: /, headers: [{name: a, present_match: true}]}, route: {cluster: c}}`), routerFilter, ""),
		"a domain":         manager(`route_config: {virtual_hosts: [{name: v, domains: [a.b], routes: [`+toC+`]}]}`, routerFilter, ""),
		"a rewrite":        manager(routes(`{match: {prefix: /}, route: {cluster: c, prefix_rewrite: /x}}`), routerFilter, ""),
		"another host":     manager(routes(`{match: {prefix: /}, route: {cluster: c, host_rewrite_literal: x}}`), routerFilter, ""),
		"a header more":    manager(routes(`{match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: a, value: b}}]}`), routerFilter, ""),
		"a health check":   manager(routes(toC), httpFilterOf("envoy.extensions.filters.http.health_check.v3.HealthCheck", `, pass_through_mode: false, headers: [{name: ":path", string_match: {exact: /ready}}]`), ""),
		"no virtual hosts": manager("route_config: {}", routerFilter, ""),
	} {
		if f, _, err := chainOf(t, hcm); err != nil || f.HTTP == nil {
			t.Errorf("%s: %+v, %v", what, f, err)
		}
	}
}

// TestAnHTTPChainThatCannotBeServedCostsNoOther: what would change who may
// connect, or where to, closes the chain's connections, and is named.
func TestAnHTTPChainThatCannotBeServedCostsNoOther(t *testing.T) {
	const at = "filter_chains[1].filters[0] http_connection_manager."
	filter := func(kind, rest string) string {
		return manager(routes(toC), httpFilterOf("envoy.extensions.filters.http."+kind, rest), "")
	}
	for _, tt := range []struct{ what, hcm, why string }{
		{"RDS", manager(`rds: {route_config_name: "80", config_source: {ads: {}}}`, routerFilter, ""), at + `rds: not supported yet ({"config_source":{"ads":{}},"route_config_name":"80"})`},
		{"rbac", filter("rbac.v3.RBAC", ", rules: {}"), at + `http_filters[0] rbac.rules: not supported yet ({})`},
		{"jwt_authn", filter("jwt_authn.v3.JwtAuthentication", ""), at + `http_filters[0] jwt_authentication: not supported yet (envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication)`},
		{"ext_authz", filter("ext_authz.v3.ExtAuthz", ""), at + `http_filters[0] ext_authz: not supported yet (envoy.extensions.filters.http.ext_authz.v3.ExtAuthz)`},
		{"fault", filter("fault.v3.HTTPFault", ", abort: {http_status: 503, percentage: {numerator: 100}}"), at + `http_filters[0] http_fault.abort: not supported yet ({"http_status":503,"percentage":{"numerator":100}})`},
		{"a mirror", manager(routes(`{match: {prefix: /}, route: {cluster: c, request_mirror_policies: [{cluster: m}]}}`), routerFilter, ""), at + `route_config.virtual_hosts[0].routes[0].route.request_mirror_policies: not supported yet ({"cluster":"m"})`},
		{"a cluster that a header names", manager(routes(`{match: {prefix: /}, route: {cluster_header: x}}`), routerFilter, ""), at + `route_config.virtual_hosts[0].routes[0].route.cluster_header: not supported yet ("x")`},
		{"a fraction of requests", manager(routes(`{match: {prefix: /, runtime_fraction: {default_value: {numerator: 50}}}, route: {cluster: c}}`), routerFilter, ""), at + `route_config.virtual_hosts[0].routes[0].match.runtime_fraction: not supported yet ({"default_value":{"numerator":50}})`},
		{"a fault of one route", manager(routes(`{match: {prefix: /}, route: {cluster: c}, typed_per_filter_config: {fault: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, abort: {http_status: 500, percentage: {numerator: 1}}}}}`), routerFilter, ""),
			at + `route_config.virtual_hosts[0].routes[0].typed_per_filter_config: not supported yet: fault envoy.extensions.filters.http.fault.v3.HTTPFault (1 entries)`},
		{"TLS asked of clients", manager(`route_config: {virtual_hosts: [{name: v, domains: ["*"], require_tls: ALL, routes: [`+toC+`]}]}`, routerFilter, ""), at + `route_config.virtual_hosts[0].require_tls: not supported yet (ALL)`},
		{"no router", manager(routes(toC), "", ""), at + `http_filters: without a router no request is answered`},
		{"CONNECT", manager(routes(toC), routerFilter, ", upgrade_configs: [{upgrade_type: CONNECT}]"), at + `route_config.virtual_hosts[0].routes[0].route.upgrade_configs: not supported yet (CONNECT)`},
	} {
		f, n, err := chainOf(t, tt.hcm)
		if err != nil || f.UnservedHTTP == nil {
			t.Errorf("%s: %+v, %v", tt.what, f, err)
			continue
		}
		if d := cmp.Diff(&api.UnservedHTTP{StatPrefix: "p", Why: tt.why}, f.UnservedHTTP); d != "" {
			t.Errorf("%s: %s", tt.what, d)
		}
		if len(n.Unbuilt) == 0 {
			t.Errorf("%s is not noted", tt.what)
		}
	}
}

// TestAnHTTPChainThatEnvoyRefusesIsRefused, in the words of Envoy 1.40.
func TestAnHTTPChainThatEnvoyRefusesIsRefused(t *testing.T) {
	const at = "filter_chains[1].filters[0] http_connection_manager"
	cors := `{name: envoy.filters.http.cors, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}`
	for _, tt := range []struct{ what, hcm, want string }{
		{"no router at the end", manager(routes(toC), cors, ""), at + `.http_filters[0] cors: Error: non-terminal filter named envoy.filters.http.cors of type envoy.filters.http.cors is the last filter in a http filter chain.`},
		{"a router in front", manager(routes(toC), routerFilter+", "+routerFilter, ""), at + `.http_filters[0] router: Error: terminal filter named envoy.filters.http.router of type envoy.filters.http.router must be the last filter in a http filter chain.`},
		{"an unknown filter", manager(routes(toC), `{name: u, typed_config: {"@type": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/istio.foo}}, `+routerFilter, ""), at + `.http_filters[0] foo: Didn't find a registered implementation for 'u' with type URL: 'istio.foo'`},
		{"a network filter", manager(routes(toC), tcp+", "+routerFilter, ""), at + `.http_filters[0] tcp_proxy: Didn't find a registered implementation for 't' with type URL: '` + typeTCPProxy + `'`},
		{"a domain twice", manager(`route_config: {name: r, virtual_hosts: [{name: v, domains: [a.b, A.b]}]}`, routerFilter, ""), at + `.route_config.virtual_hosts[0].domains[1]: Only unique values for domains are permitted. Duplicate entry of domain a.b in route r`},
		{"any domain twice", manager(`route_config: {name: r, virtual_hosts: [{name: v, domains: ["*"]}, {name: w, domains: ["*"]}]}`, routerFilter, ""), at + `.route_config.virtual_hosts[1].domains[0]: Only a single wildcard domain is permitted in route r`},
		{"a bad expression", manager(routes(`{match: {safe_regex: {regex: "(a"}}, direct_response: {status: 200}}`), routerFilter, ""), at + `.route_config.virtual_hosts[0].routes[0].match.safe_regex.regex: missing ): (a`},
		{"weights of nothing", manager(routes(`{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a, weight: 0}]}}}`), routerFilter, ""), at + `.route_config.virtual_hosts[0].routes[0].route.weighted_clusters: Sum of weights in the weighted_cluster must be greater than 0.`},
		{"two rewrites", manager(routes(`{match: {prefix: /}, route: {cluster: c, prefix_rewrite: /a, regex_rewrite: {pattern: {regex: a}, substitution: b}}}`), routerFilter, ""), at + `.route_config.virtual_hosts[0].routes[0].route: Specify only one of prefix_rewrite, regex_rewrite or path_rewrite_policy`},
		{"the host's header", manager(routes(`{match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: ":path", value: x}}]}`), routerFilter, ""), at + `.route_config.virtual_hosts[0].routes[0].request_headers_to_add[0]: :-prefixed or host headers may not be modified`},
		{"HTTP/3", manager(routes(toC), routerFilter, ", codec_type: HTTP3"), at + `.codec_type: HTTP/3 codec configured on non-QUIC listener.`},
		{"a health check that caches", manager(routes(toC), httpFilterOf("envoy.extensions.filters.http.health_check.v3.HealthCheck", `, pass_through_mode: false, cache_time: 1s`), ""), at + `.http_filters[0] health_check.cache_time: cache_time_ms must not be set when path_through_mode is disabled`},
		{"no stat_prefix", `{name: h, typed_config: {"@type": type.googleapis.com/` + typeHTTP + `, route_config: {}}}`, at + `.stat_prefix: Proto constraint validation failed (HttpConnectionManagerValidationError.StatPrefix: value length must be at least 1 characters) ("")`},
	} {
		if _, _, err := chainOf(t, tt.hcm); err == nil {
			t.Errorf("%s: accepted", tt.what)
		} else if d := cmp.Diff(tt.want, err.Error()); d != "" {
			t.Errorf("%s: %s", tt.what, d)
		}
	}
}

func TestABodyIsBounded(t *testing.T) {
	long := make([]byte, 4097)
	for i := range long {
		long[i] = 'x'
	}
	_, _, err := chainOf(t, manager(routes(`{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: "`+string(long)+`"}}}`), routerFilter, ""))
	if err == nil || err.Error() != "filter_chains[1].filters[0] http_connection_manager.route_config.virtual_hosts[0].routes[0].direct_response.body: response body size is 4097 bytes; maximum is 4096" {
		t.Error(err)
	}
}
