package resource

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-proxy/sluice/api"
)

// matches is a listener with one chain per match, called a, b, c, ….
func matches(m ...string) string {
	var chains []string
	for i, one := range m {
		chains = append(chains, `{name: `+string(rune('a'+i))+`, filter_chain_match: {`+one+`}, filters: [`+tcp+`]}`)
	}
	return on + `, filter_chains: [` + strings.Join(chains, ", ") + `]`
}

func TestFilterChainMatchIsDecoded(t *testing.T) {
	pre := netip.MustParsePrefix
	for _, tt := range []struct {
		what, in string
		want     api.FilterChainMatch
	}{
		{"prefixes are masked", `prefix_ranges: [{address_prefix: 10.1.2.3, prefix_len: 8}, {address_prefix: "2001:db8::1", prefix_len: 32}]`,
			api.FilterChainMatch{Prefixes: []netip.Prefix{pre("10.0.0.0/8"), pre("2001:db8::/32")}}},
		{"no length is 0, and too long is an address", `prefix_ranges: [{address_prefix: 10.1.2.3}, {address_prefix: 10.1.2.3, prefix_len: 99}]`,
			api.FilterChainMatch{Prefixes: []netip.Prefix{pre("0.0.0.0/0"), pre("10.1.2.3/32")}}},
		{"sources", `direct_source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}], source_prefix_ranges: [{address_prefix: 11.0.0.0, prefix_len: 8}], source_type: EXTERNAL, source_ports: [7, 65535]`,
			api.FilterChainMatch{DirectSourcePrefixes: []netip.Prefix{pre("10.0.0.0/8")}, SourcePrefixes: []netip.Prefix{pre("11.0.0.0/8")},
				SourceType: api.SourceExternal, SourcePorts: []uint16{7, 65535}}},
		{"the same host", `source_type: SAME_IP_OR_LOOPBACK`, api.FilterChainMatch{SourceType: api.SourceSameIPOrLoopback}},
		{"raw_buffer", `transport_protocol: raw_buffer, destination_port: 80`, api.FilterChainMatch{TransportProtocol: "raw_buffer", DestinationPort: 80}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			_, l, n, err := Listener(pack(t, listenerOf(t, matches(tt.in))))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, l.FilterChains[0].Match, cmpopts.EquateComparable(netip.Prefix{}), cmpopts.EquateEmpty()); d != "" || len(n.Unbuilt) > 0 {
				t.Errorf("%s unbuilt: %v", d, n.Unbuilt)
			}
		})
	}
}

func TestServerNamesAreComparedInLowerCase(t *testing.T) {
	w := walker{policies: table()}
	m := w.chainMatch("m", listenerOf(t, matches(`server_names: [A.b, "*.C.d", "É.x"]`)).FilterChains[0].FilterChainMatch)
	if d := cmp.Diff([]string{"a.b", "*.c.d", "É.x"}, m.ServerNames); d != "" || len(w.errs) > 0 {
		t.Error(d, w.errs)
	}
}

// The texts are those of Envoy 1.40's --mode validate.
func TestChainsThatMatchTheSameAreRefused(t *testing.T) {
	const overlap = `filter_chains[1].filter_chain_match: error adding listener '127.0.0.1:80': multiple filter chains with overlapping matching rules are defined`
	for _, tt := range []struct {
		what string
		in   []string
		want string
	}{
		{"the same match", []string{`prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}], source_type: EXTERNAL, source_ports: [1, 2], transport_protocol: raw_buffer, destination_port: 70, direct_source_prefix_ranges: [{address_prefix: "::1", prefix_len: 128}]`,
			`prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}], source_type: EXTERNAL, source_ports: [1, 2], transport_protocol: raw_buffer, destination_port: 70, direct_source_prefix_ranges: [{address_prefix: "::1", prefix_len: 128}]`},
			`filter_chains[1]: error adding listener '127.0.0.1:80': filter chain 'b' has the same matching rules defined as 'a'. duplicate matcher is: {"prefix_ranges":[{"address_prefix":"10.0.0.0","prefix_len":8}],"source_ports":[1,2],"destination_port":70,"transport_protocol":"raw_buffer","source_type":"EXTERNAL","direct_source_prefix_ranges":[{"address_prefix":"::1","prefix_len":128}]}`},
		{"one port twice", []string{`source_ports: [1, 2]`, `source_ports: [2, 3]`}, overlap},
		{"one port twice in a chain", []string{`source_ports: [7, 7]`}, strings.Replace(overlap, "[1]", "[0]", 1)},
		{"one prefix under two writings", []string{`prefix_ranges: [{address_prefix: 10.1.0.0, prefix_len: 8}]`, `prefix_ranges: [{address_prefix: 10.2.0.0, prefix_len: 8}]`}, overlap},
		{"a malformed prefix", []string{`source_prefix_ranges: [{address_prefix: foo, prefix_len: 3}]`}, `filter_chains[0].filter_chain_match.source_prefix_ranges[0].address_prefix: malformed IP address: foo`},
		{"more combinations than memory", []string{manyPorts(1100) + `, prefix_ranges: [` + manyRanges(1000) + `]`}, `filter_chains[0].filter_chain_match: the listener's matches have more than 1048576 combinations of values`},
	} {
		t.Run(tt.what, func(t *testing.T) {
			_, l, _, err := Listener(pack(t, listenerOf(t, matches(tt.in...))))
			if err == nil || l != nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func manyPorts(n int) string {
	var s []string
	for i := range n {
		s = append(s, strconv.Itoa(i+1))
	}
	return "source_ports: [" + strings.Join(s, ",") + "]"
}

func manyRanges(n int) string {
	var s []string
	for i := range n {
		s = append(s, `{address_prefix: 10.0.`+strconv.Itoa(i/256)+`.`+strconv.Itoa(i%256)+`, prefix_len: 32}`)
	}
	return strings.Join(s, ",")
}

func TestChainsThatDifferAreAccepted(t *testing.T) {
	for _, in := range [][]string{
		{`destination_port: 1`, `destination_port: 2`, ``},
		{`prefix_ranges: [{address_prefix: 0.0.0.0, prefix_len: 0}]`, ``},
		{`prefix_ranges: [{address_prefix: "::ffff:10.1.0.0", prefix_len: 112}]`, `prefix_ranges: [{address_prefix: 10.1.0.0, prefix_len: 16}]`},
		{`source_type: EXTERNAL`, `source_type: SAME_IP_OR_LOOPBACK`, ``},
	} {
		if _, _, _, err := Listener(pack(t, listenerOf(t, matches(in...)))); err != nil {
			t.Errorf("%v: %v", in, err)
		}
	}
}

const (
	toA      = `on_match: {action: {name: a, typed_config: {"@type": type.googleapis.com/google.protobuf.StringValue, value: a}}}`
	sourceIP = `input: {name: i, typed_config: {"@type": type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.SourceIPInput}}`
)

func matching1(m string) string {
	return on + `, filter_chain_matcher: {` + m + `}, filter_chains: [{name: a, filters: [` + tcp + `]}]`
}

func single(inner string) string {
	return `matcher_list: {matchers: [{predicate: {single_predicate: {` + inner + `}}, ` + toA + `}]}`
}

func TestFilterChainMatcherIsDecoded(t *testing.T) {
	toChain := api.OnMatch{Action: "a"}
	ip := api.MatchInput{Kind: api.InputSourceIP}
	ten := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, tt := range []struct {
		what, in string
		want     api.Matcher
	}{
		{"nothing", ``, api.Matcher{}},
		{"on_no_match", `on_no_match: {action: {name: a, typed_config: {"@type": type.googleapis.com/google.protobuf.StringValue, value: a}}}`, api.Matcher{OnNoMatch: &toChain}},
		{"a map in a map", `matcher_tree: {` + sourceIP + `, exact_match_map: {map: {"10.0.0.1": {matcher: {matcher_tree: {input: {name: i, typed_config: {"@type": type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.FilterStateInput, key: k, field: f}}, prefix_match_map: {map: {x: {keep_matching: true, action: {name: a, typed_config: {"@type": type.googleapis.com/google.protobuf.StringValue, value: a}}}}}}}}}}}`,
			api.Matcher{Tree: &api.MatcherTree{Input: ip, Exact: map[string]*api.OnMatch{"10.0.0.1": {Matcher: &api.Matcher{
				Tree: &api.MatcherTree{Input: api.MatchInput{Kind: api.InputFilterState, Key: "k", Field: "f"}, Prefix: map[string]*api.OnMatch{"x": {Action: "a", KeepMatching: true}}}}}}}}},
		{"ranges", `matcher_tree: {` + sourceIP + `, custom_match: {name: m, typed_config: {"@type": type.googleapis.com/xds.type.matcher.v3.IPMatcher, range_matchers: [{ranges: [{address_prefix: 10.1.2.3, prefix_len: 8}], exclusive: true, ` + toA + `}]}}}`,
			api.Matcher{Tree: &api.MatcherTree{Input: ip, Ranges: []api.RangeMatcher{{Prefixes: ten, Exclusive: true, OnMatch: toChain}}}}},
		{"domains", `matcher_tree: {` + sourceIP + `, custom_match: {name: m, typed_config: {"@type": type.googleapis.com/xds.type.matcher.v3.ServerNameMatcher, domain_matchers: [{domains: ["*.A.com", "*"], ` + toA + `}]}}}`,
			api.Matcher{Tree: &api.MatcherTree{Input: ip, Domains: []api.DomainMatcher{{Domains: []string{"*.a.com", "*"}, OnMatch: toChain}}}}},
		{"a list", `matcher_list: {matchers: [{predicate: {and_matcher: {predicate: [{not_matcher: {single_predicate: {` + sourceIP + `, value_match: {prefix: X, ignore_case: true}}}}, {or_matcher: {predicate: [{single_predicate: {` + sourceIP + `, value_match: {safe_regex: {google_re2: {}, regex: "a.*"}}}}, {single_predicate: {` + sourceIP + `, custom_match: {name: m, typed_config: {"@type": type.googleapis.com/envoy.extensions.matching.input_matchers.ip.v3.Ip, stat_prefix: x, cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}}}}]}}]}}, ` + toA + `}]}`,
			api.Matcher{List: []api.FieldMatcher{{OnMatch: toChain, Predicate: api.Predicate{And: []api.Predicate{
				{Not: &api.Predicate{Single: &api.SinglePredicate{Input: ip, Value: &api.StringMatch{Kind: api.MatchPrefix, Value: "X", IgnoreCase: true}}}},
				{Or: []api.Predicate{
					{Single: &api.SinglePredicate{Input: ip, Value: &api.StringMatch{Kind: api.MatchRegex, Value: "a.*"}}},
					{Single: &api.SinglePredicate{Input: ip, Prefixes: ten}}}}}}}}}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			_, l, _, err := Listener(pack(t, listenerOf(t, matching1(tt.in))))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(&tt.want, l.Matcher, cmpopts.EquateComparable(netip.Prefix{})); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestAMatchUnderAMatcherIsIgnoredAsByEnvoy(t *testing.T) {
	_, l, n, err := Listener(pack(t, listenerOf(t, on+`, filter_chain_matcher: {}, filter_chains: [{name: a, filter_chain_match: {server_names: [a.b]}, filters: [`+tcp+`]}]`)))
	if err != nil || len(l.FilterChains[0].Match.ServerNames) != 0 {
		t.Fatalf("%+v, %v", l, err)
	}
	if d := cmp.Diff([]string{"filter_chains[0].filter_chain_match"}, n.Unbuilt); d != "" {
		t.Error(d)
	}
}

func TestFilterChainMatcherIsRefused(t *testing.T) {
	const tree, cannot = "filter_chain_matcher.matcher_tree", "cannot create a filter chain matcher: "
	list := "filter_chain_matcher.matcher_list.matchers[0].predicate.single_predicate"
	for _, tt := range []struct{ what, in, want string }{
		{"an action of another type", matching1(`on_no_match: {action: {name: x, typed_config: {"@type": type.googleapis.com/google.protobuf.Int32Value, value: 1}}}`),
			"filter_chain_matcher.on_no_match.action: " + cannot + "Didn't find a registered implementation for 'x' with type URL: 'google.protobuf.Int32Value'"},
		{"an input of HTTP", matching1(`matcher_tree: {input: {name: port, typed_config: {"@type": type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: a}}, exact_match_map: {map: {x: {action: {name: a, typed_config: {"@type": type.googleapis.com/google.protobuf.StringValue, value: a}}}}}}`),
			tree + ".input: " + cannot + "Didn't find a registered implementation for 'port' with type URL: 'envoy.type.matcher.v3.HttpRequestHeaderMatchInput'"},
		{"a custom match of another type", matching1(`matcher_tree: {` + sourceIP + `, custom_match: {name: ip, typed_config: {"@type": type.googleapis.com/google.protobuf.StringValue, value: x}}}`),
			tree + ".custom_match: " + cannot + "Didn't find a registered implementation for 'ip' with type URL: 'google.protobuf.StringValue'"},
		{"a regular expression", matching1(single(sourceIP + `, value_match: {safe_regex: {google_re2: {}, regex: "(a"}}`)),
			list + ".value_match.safe_regex.regex: " + cannot + "missing ): (a"},
		{"CEL", matching1(single(sourceIP + `, custom_match: {name: m, typed_config: {"@type": type.googleapis.com/xds.type.matcher.v3.CelMatcher, expr_match: {cel_expr_parsed: {}}}}`)),
			list + ".custom_match: not supported yet (xds.type.matcher.v3.CelMatcher)"},
		{"a malformed range", matching1(single(sourceIP + `, custom_match: {name: m, typed_config: {"@type": type.googleapis.com/envoy.extensions.matching.input_matchers.ip.v3.Ip, stat_prefix: x, cidr_ranges: [{address_prefix: foo}]}}`)),
			list + ".custom_match ip.cidr_ranges[0].address_prefix: " + cannot + "malformed IP address: foo"},
		{"an asterisk in a domain", matching1(`matcher_tree: {` + sourceIP + `, custom_match: {name: m, typed_config: {"@type": type.googleapis.com/xds.type.matcher.v3.ServerNameMatcher, domain_matchers: [{domains: ["a.*.com"], ` + toA + `}]}}}`),
			tree + ".custom_match server_name_matcher.domain_matchers[0].domains[0]: " + cannot + "Invalid wildcard domain format: a.*.com. Only '*' and '*.domain' patterns are supported"},
		{"a domain twice", matching1(`matcher_tree: {` + sourceIP + `, custom_match: {name: m, typed_config: {"@type": type.googleapis.com/xds.type.matcher.v3.ServerNameMatcher, domain_matchers: [{domains: [a.com, A.com], ` + toA + `}]}}}`),
			tree + ".custom_match server_name_matcher.domain_matchers[0].domains[1]: " + cannot + "Duplicate domain in ServerNameMatcher: a.com"},
		{"a chain without a name", on + `, filter_chain_matcher: {}, filter_chains: [{filters: [` + tcp + `]}]`,
			`filter_chains[0].name: error adding listener '127.0.0.1:80': "name" field is required when using a listener matcher`},
		{"a name twice", on + `, filter_chain_matcher: {}, filter_chains: [{name: a, filters: [` + tcp + `]}, {name: a, filters: [` + tcp + `]}]`,
			`filter_chains[1].name: error adding listener '127.0.0.1:80': "name" field is duplicated with value 'a'`},
	} {
		t.Run(tt.what, func(t *testing.T) {
			_, l, _, err := Listener(pack(t, listenerOf(t, tt.in)))
			if err == nil || l != nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}
