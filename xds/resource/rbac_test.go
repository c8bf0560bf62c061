package resource

import (
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/expression"
)

func rbacText(more string) string {
	return before(networkFilterText("rbac", "RBAC", "stat_prefix: p., "+more))
}

func policyText(permission, principal string) string {
	return rbacText("rules: {policies: {x: {permissions: [" + permission + "], principals: [" + principal + "]}}}")
}

func conditionText(condition string) string {
	return rbacText("rules: {policies: {x: {permissions: [{any: true}], principals: [{any: true}], condition: " + condition + "}}}")
}

func rbacMatcherText(input string) string {
	return rbacText(`matcher: {matcher_list: {matchers: [{predicate: {single_predicate: {input: {name: i, typed_config: {"@type": type.googleapis.com/` + input + `}}, value_match: {exact: a}}}, on_match: {action: {name: a, typed_config: {"@type": type.googleapis.com/envoy.config.rbac.v3.Action, name: log it, action: LOG}}}}]}}`)
}

func TestRBACIsDecoded(t *testing.T) {
	prefix := func(s string) *netip.Prefix { p := netip.MustParsePrefix(s); return &p }
	yes, no := constRule(true), constRule(false)
	truth, lie := true, false
	const anyone = "{any: true}"
	rule := func(permission, principal api.RBACRule) api.Filter {
		return api.Filter{RBAC: &api.RBAC{StatPrefix: "p", Enforced: &api.RBACEngine{Policies: []api.RBACPolicy{{Name: "x", Permissions: []api.RBACRule{permission}, Principals: []api.RBACRule{principal}}}}}}
	}
	metadata := func(v api.ValueMatch) api.RBACRule {
		return api.RBACRule{Metadata: &api.MetadataMatch{Filter: "f", Path: []string{"a", "b"}, Value: v, Invert: true}}
	}
	metadataText := func(v string) string {
		return policyText(anyone, "{metadata: {filter: f, path: [{key: a}, {key: b}], invert: true, value: "+v+"}}")
	}
	decodesFilters(t, []filterTest{
		{what: "nothing", in: rbacText(""), want: api.Filter{RBAC: &api.RBAC{StatPrefix: "p"}}},
		{what: "empty rules", in: rbacText("rules: {}"), want: api.Filter{RBAC: &api.RBAC{StatPrefix: "p", Enforced: &api.RBACEngine{}}}},
		{what: "everything else", in: rbacText("rules: {action: DENY}, shadow_rules: {action: LOG}, shadow_rules_stat_prefix: s., enforcement_type: CONTINUOUS, delay_deny: 1.0019s"),
			want: api.Filter{RBAC: &api.RBAC{StatPrefix: "p", ShadowStatPrefix: "s", ShadowMetadataPrefix: "s.", Enforced: &api.RBACEngine{Action: api.RBACDeny}, Shadow: &api.RBACEngine{Action: api.RBACLog}, Continuous: true, DelayDeny: 1001 * time.Millisecond}}},
		{what: "policies by name", in: rbacText("rules: {policies: {b: {permissions: [" + anyone + "], principals: [" + anyone + "]}, a: {permissions: [" + anyone + "], principals: [" + anyone + "]}}}"),
			want: api.Filter{RBAC: &api.RBAC{StatPrefix: "p", Enforced: &api.RBACEngine{Policies: []api.RBACPolicy{{Name: "a", Permissions: []api.RBACRule{yes}, Principals: []api.RBACRule{yes}}, {Name: "b", Permissions: []api.RBACRule{yes}, Principals: []api.RBACRule{yes}}}}}}},
		{what: "and, or, not", in: policyText("{and_rules: {rules: ["+anyone+", {not_rule: "+anyone+"}]}}", "{or_ids: {ids: [{not_id: "+anyone+"}, {and_ids: {ids: ["+anyone+"]}}]}}"),
			want: rule(api.RBACRule{And: []api.RBACRule{yes, {Not: &yes}}}, api.RBACRule{Or: []api.RBACRule{{Not: &yes}, {And: []api.RBACRule{yes}}}})},
		{what: "addresses", in: policyText("{destination_ip: {address_prefix: 10.1.2.3, prefix_len: 8}}", "{source_ip: {address_prefix: 1.2.3.4, prefix_len: 64}}"),
			want: rule(api.RBACRule{Local: prefix("10.0.0.0/8")}, api.RBACRule{Remote: prefix("1.2.3.4/32")})},
		{what: "an address without a length", in: policyText(anyone, "{direct_remote_ip: {address_prefix: 1.2.3.4}}"), want: rule(yes, api.RBACRule{Direct: prefix("0.0.0.0/0")})},
		{what: "remote address", in: policyText(anyone, `{remote_ip: {address_prefix: "fd00::1", prefix_len: 8}}`), want: rule(yes, api.RBACRule{Remote: prefix("fd00::/8")})},
		{what: "port", in: policyText("{destination_port: 443}", anyone), want: rule(api.RBACRule{LocalPorts: &api.PortRange{First: 443, Last: 443}}, yes)},
		{what: "all ports", in: policyText("{destination_port_range: {start: 0, end: 65536}}", anyone), want: rule(api.RBACRule{LocalPorts: &api.PortRange{Last: 65535}}, yes)},
		{what: "server name", in: policyText("{requested_server_name: {suffix: .a, ignore_case: true}}", anyone), want: rule(api.RBACRule{ServerName: &api.StringMatch{Kind: api.MatchSuffix, Value: ".a", IgnoreCase: true}}, yes)},
		{what: "authenticated", in: policyText(anyone, "{authenticated: {}}"), want: rule(yes, api.RBACRule{Authenticated: &api.Authenticated{}})},
		{what: "authenticated by name", in: policyText(anyone, "{authenticated: {principal_name: {prefix: spiffe}}}"), want: rule(yes, api.RBACRule{Authenticated: &api.Authenticated{Name: &api.StringMatch{Kind: api.MatchPrefix, Value: "spiffe"}}})},
		{what: "authenticated by mTLS", in: policyText(anyone, mutualTLS("any_validated_client_certificate: true")), want: rule(yes, api.RBACRule{MutualTLS: &api.MutualTLS{}})},
		{what: "authenticated by mTLS and name", in: policyText(anyone, mutualTLS("san_matcher: {san_type: URI, matcher: {exact: spiffe://a}}")),
			want: rule(yes, api.RBACRule{MutualTLS: &api.MutualTLS{Name: &api.SubjectAltName{Type: api.SANURI, Match: api.StringMatch{Kind: api.MatchExact, Value: "spiffe://a"}}}})},
		{what: "there is no path", in: policyText("{url_path: {path: {exact: /}}}", "{url_path: {path: {exact: /}}}"), want: rule(no, no)},
		{what: "filter state", in: policyText(anyone, "{filter_state: {key: k, string_match: {contains: c}}}"), want: rule(yes, api.RBACRule{FilterState: &api.FilterStateMatch{Key: "k", Value: &api.StringMatch{Kind: api.MatchContains, Value: "c"}}})},
		{what: "filter state by address", in: policyText(anyone, "{filter_state: {key: k, address_match: {ranges: [{address_prefix: 10.0.0.1, prefix_len: 8}], invert_match: true}}}"),
			want: rule(yes, api.RBACRule{FilterState: &api.FilterStateMatch{Key: "k", Ranges: []netip.Prefix{*prefix("10.0.0.0/8")}, Invert: true}})},
		{what: "metadata null", in: metadataText("{null_match: {}}"), want: rule(yes, metadata(api.ValueMatch{Null: true}))},
		{what: "metadata number", in: metadataText("{double_match: {exact: 2.5}}"), want: rule(yes, metadata(api.ValueMatch{Number: &api.NumberMatch{Exact: true, Start: 2.5}}))},
		{what: "metadata range", in: metadataText("{double_match: {range: {start: 1, end: 2}}}"), want: rule(yes, metadata(api.ValueMatch{Number: &api.NumberMatch{Start: 1, End: 2}}))},
		{what: "metadata text", in: metadataText("{string_match: {safe_regex: {regex: a+}}}"), want: rule(yes, metadata(api.ValueMatch{String: &api.StringMatch{Kind: api.MatchRegex, Value: "a+"}}))},
		{what: "metadata bool", in: metadataText("{bool_match: false}"), want: rule(yes, metadata(api.ValueMatch{Bool: &lie}))},
		{what: "metadata list", in: metadataText("{list_match: {one_of: {present_match: true}}}"), want: rule(yes, metadata(api.ValueMatch{OneOf: &api.ValueMatch{Present: &truth}}))},
		{what: "metadata or", in: metadataText("{or_match: {value_matchers: [{bool_match: true}, {null_match: {}}]}}"), want: rule(yes, metadata(api.ValueMatch{Or: []api.ValueMatch{{Bool: &truth}, {Null: true}}}))},
		{what: "metadata of a route", in: policyText("{sourced_metadata: {metadata_source: ROUTE, metadata_matcher: {filter: f, path: [{key: a}], value: {bool_match: true}}}}", anyone), want: rule(no, yes)},
		{what: "a matcher beats rules", in: rbacText(`rules: {}, matcher: {on_no_match: {action: {name: a, typed_config: {"@type": type.googleapis.com/envoy.config.rbac.v3.Action, name: the name, action: DENY}}}}`),
			want:    api.Filter{RBAC: &api.RBAC{StatPrefix: "p", Enforced: &api.RBACEngine{Matcher: &api.Matcher{OnNoMatch: &api.OnMatch{Action: "DENY the name"}}}}},
			unbuilt: []string{"filter_chains[0].filters[0] rbac.rules"}},
		{what: "a matcher's list", in: rbacMatcherText("envoy.extensions.matching.common_inputs.network.v3.ServerNameInput"),
			want: api.Filter{RBAC: &api.RBAC{StatPrefix: "p", Enforced: &api.RBACEngine{Matcher: &api.Matcher{List: []api.FieldMatcher{{
				Predicate: api.Predicate{Single: &api.SinglePredicate{Input: api.MatchInput{Kind: api.InputServerName}, Value: &api.StringMatch{Value: "a"}}},
				OnMatch:   api.OnMatch{Action: "LOG log it"}}}}}}}},
		{what: "a condition", in: conditionText("{const_expr: {bool_value: true}}, cel_config: {enable_string_concat: true}"),
			want: api.Filter{RBAC: &api.RBAC{StatPrefix: "p", Enforced: &api.RBACEngine{Policies: []api.RBACPolicy{{Name: "x", Permissions: []api.RBACRule{yes}, Principals: []api.RBACRule{yes},
				Condition: expression.Expression{Tree: "\x1a\x02\x10\x01", Options: expression.Options{Concat: true}}}}}}}},
		{what: "a checked condition is noted", in: conditionText("{const_expr: {bool_value: true}}, checked_condition: {}"),
			want: api.Filter{RBAC: &api.RBAC{StatPrefix: "p", Enforced: &api.RBACEngine{Policies: []api.RBACPolicy{{Name: "x", Permissions: []api.RBACRule{yes}, Principals: []api.RBACRule{yes},
				Condition: expression.Expression{Tree: "\x1a\x02\x10\x01"}}}}}},
			unbuilt: []string{"filter_chains[0].filters[0] rbac.rules.policies[x].checked_condition"}},
		{what: "audit is noted", in: rbacText("rules: {audit_logging_options: {audit_condition: ON_DENY}}"), want: api.Filter{RBAC: &api.RBAC{StatPrefix: "p", Enforced: &api.RBACEngine{}}},
			unbuilt: []string{"filter_chains[0].filters[0] rbac.rules.audit_logging_options"}},
	})
}

// Where Envoy 1.40 refuses the same, the cause is its own.
func TestRBACIsRefused(t *testing.T) {
	const (
		anyone    = "{any: true}"
		principal = "rbac.rules.policies[x].principals[0]"
		permit    = "rbac.rules.policies[x].permissions[0]"
	)
	refusesFilters(t, []struct{ what, in, want string }{
		{"no address", policyText(anyone, "{source_ip: {address_prefix: bogus}}"), principal + ".source_ip.address_prefix: Failed to create CIDR range: malformed IP address: bogus"},
		{"no address in a filter state", policyText(anyone, "{filter_state: {key: k, address_match: {ranges: [{address_prefix: bogus}]}}}"), principal + ".filter_state.address_match.ranges[0].address_prefix: invalid ip/mask combo 'bogus/0' (format is <ip>/<# mask bits>)"},
		{"an empty range", policyText("{destination_port_range: {start: 5, end: 5}}", anyone), permit + ".destination_port_range: range start 5 cannot be greater or equal than range end 5"},
		{"a range from below", policyText("{destination_port_range: {start: -1, end: 5}}", anyone), permit + ".destination_port_range: range start -1 is out of bounds"},
		{"a range beyond", policyText("{destination_port_range: {start: 1, end: 70000}}", anyone), permit + ".destination_port_range: range end 70000 is out of bounds"},
		{"a broken expression", policyText("{not_rule: {requested_server_name: {safe_regex: {regex: (a}}}}", anyone), permit + ".not_rule.requested_server_name.safe_regex.regex: missing ): (a"},
		{"an expression without case", policyText("{requested_server_name: {safe_regex: {regex: a}, ignore_case: true}}", anyone), permit + ".requested_server_name.ignore_case: ignore_case has no effect for safe_regex."},
		{"a broken name", policyText(anyone, "{authenticated: {principal_name: {safe_regex: {regex: (a}}}}"), principal + ".authenticated.principal_name.safe_regex.regex: missing ): (a"},
		{"a header", policyText(anyone, "{or_ids: {ids: [{header: {name: h, present_match: true}}]}}"), principal + ".or_ids.ids[0].header: Found header(h) rule,not supported by RBAC network filter"},
		{"a permission by header", policyText("{header: {name: h}}", anyone), permit + ".header: Found header(h) rule,not supported by RBAC network filter"},
		{"a condition of a function that is not there", conditionText("{call_expr: {function: f}}"), "rbac.rules.policies[x].condition: failed to create an expression: No overload found in reference resolve step for f"},
		{"a condition that loops", conditionText("{comprehension_expr: {}}"), "rbac.rules.policies[x].condition: failed to create an expression: Comprehension support is disabled"},
		{"an empty condition", conditionText("{}"), "rbac.rules.policies[x].condition: failed to create an expression: Invalid empty expression"},
		{"the upstream's address", policyText(`{matcher: {name: m, typed_config: {"@type": type.googleapis.com/envoy.extensions.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher, upstream_port_range: {start: 1, end: 2}}}}`, anyone), permit + ".matcher: not supported yet (envoy.extensions.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher)"},
		{"a delay into the past", rbacText("delay_deny: -1s"), "rbac.delay_deny: Invalid duration: Expected positive duration (-1s 0ns)"},
		{"an action of another kind", rbacText(`matcher: {on_no_match: {action: {name: a, typed_config: {"@type": type.googleapis.com/google.protobuf.StringValue, value: x}}}}`), "rbac.matcher.on_no_match.action: Didn't find a registered implementation for 'a' with type URL: 'google.protobuf.StringValue'"},
		{"an input that HTTP matching has not", rbacMatcherText("envoy.extensions.matching.common_inputs.network.v3.TransportProtocolInput"), "rbac.matcher.matcher_list.matchers[0].predicate.single_predicate.input: Didn't find a registered implementation for 'i' with type URL: 'envoy.extensions.matching.common_inputs.network.v3.TransportProtocolInput'"},
		{"an input that RBAC has not", rbacMatcherText("envoy.extensions.matching.common_inputs.network.v3.SourceTypeInput"), "rbac.matcher.matcher_list.matchers[0].predicate.single_predicate.input: requirement violation while creating RBAC match tree: INVALID_ARGUMENT: RBAC network filter cannot match 'type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.SourceTypeInput'"},
		{"shadow rules too", rbacText("shadow_rules: {policies: {x: {permissions: [{destination_port_range: {start: 5, end: 5}}], principals: [" + anyone + "]}}}"), "rbac.shadow_rules.policies[x].permissions[0].destination_port_range: range start 5 cannot be greater or equal than range end 5"},
	})
}

func mutualTLS(fields string) string {
	return `{custom: {name: m, typed_config: {"@type": type.googleapis.com/envoy.extensions.rbac.principals.mtls_authenticated.v3.Config, ` + fields + `}}}`
}
