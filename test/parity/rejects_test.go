package parity

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// rejects notes what --mode validate thinks of a bootstrap: the exit code, and
// whether the proxy says the words that tools look for.
func (r *run) rejects(bootstrap obj, words string) {
	r.Helper()
	if r.plant {
		bootstrap = static(nil, nil)
	}
	binary, err := r.kind.binary()
	if err != nil {
		r.Fatal(err)
	}
	text, err := json.Marshal(bootstrap)
	if err != nil {
		r.Fatal(err)
	}
	file := filepath.Join(r.TempDir(), "bootstrap.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		r.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, append([]string{"--mode", "validate", "-c", file, "-l", "warning"}, r.kind.args...)...).CombinedOutput()
	code := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		r.Fatal(err)
	}
	r.note("exit %d", code)
	r.note("says %q: %t", words, strings.Contains(string(out), words))
	if !strings.Contains(string(out), words) {
		r.Logf("%s says: %s", r.kind.name, out)
	}
}

// rejected is a scenario in which a listener is rejected with these words.
func rejected(name, words string, l obj) scenario {
	return scenario{name, func(r *run) {
		r.rejects(static([]obj{l}, []obj{cluster("c")}), words)
	}}
}

func one(m obj) obj {
	return chain(tcpProxy("c")).with(obj{"name": "a", "filter_chain_match": m})
}

func two(a, b obj) obj {
	return listener("l", one(a), one(b).with(obj{"name": "b"}))
}

const overlap = "error adding listener '127.0.0.1:0': multiple filter chains with overlapping matching rules are defined"

// chainRejections: filter chains that no listener may have.
var chainRejections = []scenario{
	rejected("reject_same_match", `error adding listener '127.0.0.1:0': filter chain 'b' has the same matching rules defined as 'a'. duplicate matcher is: {"prefix_ranges":[{"address_prefix":"10.0.0.0","prefix_len":8}],"source_ports":[1,2],"destination_port":70}`,
		two(obj{"destination_port": 70, "source_ports": []int{1, 2}, "prefix_ranges": ranges("10.0.0.0/8")}, obj{"destination_port": 70, "source_ports": []int{1, 2}, "prefix_ranges": ranges("10.0.0.0/8")})),
	rejected("reject_two_catch_alls", `error adding listener '127.0.0.1:0': filter chain 'b' has the same matching rules defined as 'a'. duplicate matcher is: {}`, two(obj{}, obj{})),
	rejected("reject_overlapping_ports", overlap, two(obj{"source_ports": []int{1, 2}}, obj{"source_ports": []int{2, 3}})),
	rejected("reject_port_twice_in_one_chain", overlap, listener("l", one(obj{"source_ports": []int{2, 2}}))),
	rejected("reject_overlapping_masked_prefixes", overlap, two(obj{"prefix_ranges": []obj{{"address_prefix": "10.1.0.0", "prefix_len": 8}}}, obj{"prefix_ranges": []obj{{"address_prefix": "10.2.0.0", "prefix_len": 8}}})),
	rejected("reject_overlap_in_one_of_many", overlap, two(obj{"prefix_ranges": ranges("10.0.0.0/8", "11.0.0.0/8"), "source_type": "EXTERNAL"}, obj{"prefix_ranges": ranges("12.0.0.0/8", "11.0.0.0/8"), "source_type": "EXTERNAL"})),
	rejected("reject_malformed_prefix", "malformed IP address: foo", listener("l", one(obj{"source_prefix_ranges": []obj{{"address_prefix": "foo", "prefix_len": 8}}}))),
	rejected("reject_prefix_length", "value must be less than or equal to 128", listener("l", one(obj{"prefix_ranges": []obj{{"address_prefix": "10.0.0.0", "prefix_len": 129}}}))),
	rejected("reject_source_port_0", "value must be inside range [1, 65535]", listener("l", one(obj{"source_ports": []int{0}}))),
	rejected("reject_destination_port_0", "value must be inside range [1, 65535]", listener("l", one(obj{"destination_port": 0}))),
	rejected("reject_source_type", "value must be one of the defined enum values", listener("l", one(obj{"source_type": 3}))),
	rejected("reject_address_suffix", "contains unimplemented fields", listener("l", one(obj{"address_suffix": "1"}))),
	rejected("reject_partial_wildcard", `partial wildcards are not supported in "server_names"`, listener("l", one(obj{"server_names": []string{"*w.b"}}))),
	rejected("reject_bare_wildcard", `partial wildcards are not supported in "server_names"`, listener("l", one(obj{"server_names": []string{"*"}}))),
	rejected("reject_no_chains", "error adding listener '127.0.0.1:0': no filter chains specified", listener("l")),
	rejected("reject_tree_with_nameless_chain", `error adding listener '127.0.0.1:0': "name" field is required when using a listener matcher`, listener("l", chain(tcpProxy("c"))).with(obj{"filter_chain_matcher": obj{}})),
	rejected("reject_tree_with_one_name_twice", `error adding listener '127.0.0.1:0': "name" field is duplicated with value 'a'`, listener("l", match("a", nil), match("a", nil)).with(obj{"filter_chain_matcher": obj{}})),
	rejected("reject_tree_action", "cannot create a filter chain matcher: Didn't find a registered implementation for 'x' with type URL: 'google.protobuf.Int32Value'",
		listener("l", match("c", nil)).with(obj{"filter_chain_matcher": obj{"on_no_match": obj{"action": extension("x", "type.googleapis.com/google.protobuf.Int32Value", obj{"value": 1})}}})),
	rejected("reject_tree_input_of_http", "cannot create a filter chain matcher: Didn't find a registered implementation for 'input' with type URL: 'envoy.type.matcher.v3.HttpRequestHeaderMatchInput'",
		listener("l", match("c", nil)).with(obj{"filter_chain_matcher": obj{"matcher_tree": obj{"input": extension("input", "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput", obj{"header_name": "a"}), "exact_match_map": obj{"map": obj{"x": to("c")}}}}})),
	rejected("reject_tree_range", "cannot create a filter chain matcher: malformed IP address: foo",
		listener("l", match("c", nil)).with(obj{"filter_chain_matcher": byRange("SourceIPInput", obj{"ranges": []obj{{"address_prefix": "foo", "prefix_len": 8}}, "on_match": to("c")})})),
	rejected("reject_tree_regex", "cannot create a filter chain matcher: missing ): (a",
		listener("l", match("c", nil)).with(obj{"filter_chain_matcher": inOrder(when(is("SourceIPInput", obj{"safe_regex": obj{"google_re2": obj{}, "regex": "(a"}}), to("c")))})),
	rejected("reject_tree_domain", "cannot create a filter chain matcher: Invalid wildcard domain format: a.*.com. Only '*' and '*.domain' patterns are supported",
		listener("l", match("c", nil)).with(obj{"filter_chain_matcher": obj{"matcher_tree": obj{"input": input("ServerNameInput"), "custom_match": extension("d", "type.googleapis.com/xds.type.matcher.v3.ServerNameMatcher",
			obj{"domain_matchers": []obj{{"domains": []string{"a.*.com"}, "on_match": to("c")}}})}}})),
	rejected("reject_tree_domain_twice", "cannot create a filter chain matcher: Duplicate domain in ServerNameMatcher: a.com",
		listener("l", match("c", nil)).with(obj{"filter_chain_matcher": obj{"matcher_tree": obj{"input": input("ServerNameInput"), "custom_match": extension("d", "type.googleapis.com/xds.type.matcher.v3.ServerNameMatcher",
			obj{"domain_matchers": []obj{{"domains": []string{"a.com", "a.com"}, "on_match": to("c")}}})}}})),
}
