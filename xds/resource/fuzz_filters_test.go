package resource

import (
	"reflect"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
)

// unfitFilter says what is wrong with a decoded filter, if anything is.
func unfitFilter(f *api.Filter) string {
	set := 0
	v := reflect.ValueOf(*f)
	for i := range v.NumField() {
		if v.Field(i).Kind() == reflect.Pointer && !v.Field(i).IsNil() {
			set++
		}
	}
	switch {
	case set != 1:
		return "not exactly one filter"
	case f.TCPProxy != nil && (f.TCPProxy.MaxConnectAttempts == 0 || f.TCPProxy.IdleTimeout < 0):
		return "tcp_proxy"
	case f.ConnectionLimit != nil && (f.ConnectionLimit.MaxConnections == 0 || f.ConnectionLimit.Delay < 0):
		return "connection_limit"
	case f.LocalRateLimit != nil && (f.LocalRateLimit.Bucket.FillInterval < 50*time.Millisecond || f.LocalRateLimit.Bucket.TokensPerFill == 0):
		return "local_ratelimit"
	case f.ExtAuthz != nil && (f.ExtAuthz.Service.Timeout <= 0 || f.ExtAuthz.Service.Cluster == "" && f.ExtAuthz.Service.Target == ""):
		return "ext_authz"
	case f.RateLimit != nil && (f.RateLimit.Timeout <= 0 || f.RateLimit.Service.Cluster == "" && f.RateLimit.Service.Target == ""):
		return "ratelimit"
	case f.RBAC != nil && f.RBAC.DelayDeny < 0:
		return "rbac"
	}
	return ""
}

// FuzzNetworkFilter reads the filters of a chain as the bytes of a FilterChain.
func FuzzNetworkFilter(f *testing.F) {
	for _, text := range filterSeeds {
		seed(f, listenerOf(f, text).GetFilterChains()[0])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var c listenerv3.FilterChain
		if proto.Unmarshal(b, &c) != nil || c.GetFilterChainMatch() != nil {
			return
		}
		l := listenerOf(t, on)
		l.FilterChains = []*listenerv3.FilterChain{&c}
		_, got, _, err := Listener(pack(t, l))
		contract(t, got, got == nil, err)
		if got == nil {
			return
		}
		for i := range got.FilterChains[0].Filters {
			if bad := unfitFilter(&got.FilterChains[0].Filters[i]); bad != "" {
				t.Fatalf("unfit: %s: %+v", bad, got.FilterChains[0].Filters[i])
			}
		}
	})
}

var filterSeeds = []string{
	before(connectionLimitText("stat_prefix: p, max_connections: 3, delay: 1s, runtime_enabled: {default_value: false, runtime_key: k}")),
	before(rateLimitText("stat_prefix: p, share_key: s, token_bucket: {max_tokens: 5, tokens_per_fill: 7, fill_interval: 1s}")),
	alone(directResponseText("response: {inline_string: hello}")),
	rbacText("rules: {action: DENY, policies: {x: {permissions: [{and_rules: {rules: [{destination_port_range: {start: 1, end: 5}}, {not_rule: {requested_server_name: {safe_regex: {regex: a+}}}}]}}], principals: [{or_ids: {ids: [{remote_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}, {authenticated: {}}]}}]}}}, delay_deny: 1s"),
	policyText("{destination_ip: {address_prefix: \"fd00::\", prefix_len: 8}}", "{metadata: {filter: f, path: [{key: k}], value: {or_match: {value_matchers: [{double_match: {range: {start: 1, end: 2}}}, {list_match: {one_of: {null_match: {}}}}]}}}}"),
	policyText("{any: true}", "{filter_state: {key: k, address_match: {ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}}}"),
	stateText("on_new_connection: [{object_key: envoy.tcp_proxy.cluster, format_string: {text_format_source: {inline_string: \"%FILTER_STATE(k:PLAIN)%\"}}}], on_downstream_data: [{object_key: k, factory_key: envoy.string, format_string: {json_format: {a: b}}}]"),
	extAuthzText("grpc_service: {timeout: 1s, envoy_grpc: {cluster_name: c}, initial_metadata: [{key: k, value: v}]}, filter_enabled_metadata: {filter: f, path: [{key: k}], value: {present_match: true}}"),
	rbacMatcherText("envoy.extensions.matching.common_inputs.network.v3.ServerNameInput"),
}
