package parity

import (
	"net/netip"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

// match is a chain that proxies to the cluster of its name, whose only host
// answers with that name.
func match(name string, m obj) obj {
	c := chain(tcpProxy(name)).with(obj{"name": name})
	if m != nil {
		c["filter_chain_match"] = m
	}
	return c
}

func ranges(cidrs ...string) []obj {
	var out []obj
	for _, c := range cidrs {
		p := netip.MustParsePrefix(c)
		out = append(out, obj{"address_prefix": p.Addr().String(), "prefix_len": p.Bits()})
	}
	return out
}

// chosen starts a listener on every address of the host with these chains, and
// a cluster per chain.
func (r *run) chosen(more obj, chains ...obj) {
	r.Helper()
	l := listener("l", chains...).with(obj{"address": address(netip.MustParseAddrPort("0.0.0.0:0"))}).with(more)
	var clusters []obj
	if d, ok := more["default_filter_chain"].(obj); ok {
		chains = append(chains, d)
	}
	for _, c := range chains {
		name := c["name"].(string)
		clusters = append(clusters, cluster(name, r.banners(name)...))
	}
	r.start(static([]obj{l}, clusters))
}

// visit connects from an address to another one, at the listener's port, and
// notes the answer: the name of the chain, or the end alone.
func (r *run) visit(from, to string) {
	r.Helper()
	r.visitFrom(netip.AddrPortFrom(netip.MustParseAddr(from), 0), to)
}

func (r *run) visitFrom(from netip.AddrPort, to string) {
	r.Helper()
	ap := netip.AddrPortFrom(netip.MustParseAddr(to), r.bound("l").Port())
	c := r.dialFrom(from, ap)
	data, end, err := peer.ReadToEnd(c.fin(), 10*time.Second)
	if err != nil {
		r.note("error %v", err)
	}
	r.note("from %s to %s: %q, then %s", from.Addr(), to, data, end)
}

func (r *run) dialFrom(from, to netip.AddrPort) *client {
	r.Helper()
	if r.plant {
		return r.dialAt(to)
	}
	return r.connect(from, to)
}

// ofChains are the counters that a choice of chain moves.
const ofChains = `listener\.l\.(downstream_cx_(total|destroy)|no_filter_chain_match)|tcp\..+\.downstream_cx_total`

func deflt(name string) obj { return obj{"default_filter_chain": match(name, nil)} }

// criteria: the nine criteria of filter_chain_match, one after the other, and
// that there is no way back.
var criteria = []scenario{
	{"match_source_port", func(r *run) {
		mine := freePort(r, "127.0.0.1")
		r.chosen(nil, match("p", obj{"source_ports": []int{int(mine.Port()), 1}}), match("any", nil))
		r.visitFrom(mine, "127.0.0.1")
		r.visit("127.0.0.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"match_source_port_of_another", func(r *run) {
		r.chosen(nil, match("p", obj{"source_ports": []int{1}}))
		r.visit("127.0.0.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"match_longest_source_prefix", func(r *run) {
		r.chosen(nil, match("8", obj{"source_prefix_ranges": ranges("127.0.0.0/8")}), match("24", obj{"source_prefix_ranges": ranges("127.0.7.0/24", "10.0.0.0/8")}), match("any", nil))
		r.visit("127.0.7.9", "127.0.0.1")
		r.visit("127.0.8.9", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"match_source_prefix_is_final", func(r *run) {
		// The /24 holds the client, its port does not: the /8 is not tried.
		r.chosen(nil, match("8", obj{"source_prefix_ranges": ranges("127.0.0.0/8")}), match("24", obj{"source_prefix_ranges": ranges("127.0.7.0/24"), "source_ports": []int{1}}))
		r.visit("127.0.7.9", "127.0.0.1")
		r.visit("127.0.8.9", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"match_no_source_prefix", func(r *run) {
		r.chosen(nil, match("8", obj{"source_prefix_ranges": ranges("10.0.0.0/8")}))
		r.visit("127.0.0.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"match_longest_destination_prefix", func(r *run) {
		r.chosen(nil, match("8", obj{"prefix_ranges": ranges("127.0.0.0/8")}), match("32", obj{"prefix_ranges": ranges("127.0.0.9/32")}), match("any", nil))
		r.visit("127.0.0.1", "127.0.0.9")
		r.visit("127.0.0.1", "127.0.0.8")
		r.moved(ofChains)
	}},
	{"match_destination_prefix_is_final", func(r *run) {
		r.chosen(nil, match("8", obj{"prefix_ranges": ranges("127.0.0.0/8")}), match("32", obj{"prefix_ranges": ranges("127.0.0.9/32"), "source_ports": []int{1}}), match("any", nil))
		r.visit("127.0.0.1", "127.0.0.9")
		r.moved(ofChains)
	}},
	{"match_destination_prefix_fails_to_default", func(r *run) {
		r.chosen(deflt("default"), match("32", obj{"prefix_ranges": ranges("127.0.0.9/32"), "source_ports": []int{1}}), match("any", nil))
		r.visit("127.0.0.1", "127.0.0.9")
		r.visit("127.0.0.1", "127.0.0.8")
		r.moved(ofChains)
	}},
	{"match_no_destination_prefix", func(r *run) {
		r.chosen(nil, match("ten", obj{"prefix_ranges": ranges("10.0.0.0/8")}))
		r.visit("127.0.0.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"match_destination_port_is_final", func(r *run) {
		at := freePort(r, "127.0.0.1")
		r.chosen(obj{"address": address(at)}, match("port", obj{"destination_port": at.Port(), "source_ports": []int{1}}), match("any", nil))
		r.visit("127.0.0.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"match_destination_port_fails_to_default", func(r *run) {
		at := freePort(r, "127.0.0.1")
		r.chosen(deflt("default").with(obj{"address": address(at)}), match("port", obj{"destination_port": at.Port(), "source_ports": []int{1}}), match("any", nil))
		r.visit("127.0.0.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"match_destination_comes_before_source", func(r *run) {
		r.chosen(nil, match("d", obj{"prefix_ranges": ranges("127.0.0.0/8")}), match("s", obj{"source_prefix_ranges": ranges("127.0.0.1/32")}))
		r.visit("127.0.0.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"match_direct_source_comes_before_source", func(r *run) {
		r.chosen(nil, match("d", obj{"direct_source_prefix_ranges": ranges("127.0.0.0/8")}), match("s", obj{"source_prefix_ranges": ranges("127.0.0.1/32")}))
		r.visit("127.0.0.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"match_direct_source_is_final", func(r *run) {
		r.chosen(nil, match("d", obj{"direct_source_prefix_ranges": ranges("127.0.0.0/8"), "source_ports": []int{1}}), match("any", nil))
		r.visit("127.0.0.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"match_source_type", func(r *run) {
		// Of 127.0.0.0/8 only the canonical address is loopback to Envoy; a client
		// with the listener's own address is local too.
		r.chosen(nil, match("local", obj{"source_type": "SAME_IP_OR_LOOPBACK"}), match("external", obj{"source_type": "EXTERNAL"}))
		r.visit("127.0.0.1", "127.0.0.9")
		r.visit("127.0.0.2", "127.0.0.9")
		r.visit("127.0.0.9", "127.0.0.9")
		r.moved(ofChains)
	}},
	{"match_source_type_external_only", func(r *run) {
		r.chosen(nil, match("external", obj{"source_type": "EXTERNAL"}))
		r.visit("127.0.0.1", "127.0.0.1")
		r.visit("127.0.0.2", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"match_source_type_hides_any", func(r *run) {
		r.chosen(nil, match("external", obj{"source_type": "EXTERNAL", "source_ports": []int{1}}), match("any", nil))
		r.visit("127.0.0.1", "127.0.0.1")
		r.visit("127.0.0.2", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"match_raw_buffer", func(r *run) {
		r.chosen(nil, match("raw", obj{"transport_protocol": "raw_buffer"}), match("any", nil))
		r.visit("127.0.0.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"match_unheard_of_transport_protocol", func(r *run) {
		r.chosen(nil, match("foo", obj{"transport_protocol": "foo"}))
		r.visit("127.0.0.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"match_transport_protocol_is_final", func(r *run) {
		r.chosen(nil, match("raw", obj{"transport_protocol": "raw_buffer", "source_ports": []int{1}}), match("any", nil))
		r.visit("127.0.0.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"match_ipv6_prefix", func(r *run) {
		r.chosen(obj{"address": address(netip.MustParseAddrPort("[::1]:0"))}, match("six", obj{"prefix_ranges": ranges("::/64"), "source_prefix_ranges": ranges("::1/128")}), match("any", nil))
		r.visit("::1", "::1")
		r.moved(ofChains)
	}},
	{"match_ipv4_prefix_holds_no_ipv6", func(r *run) {
		r.chosen(obj{"address": address(netip.MustParseAddrPort("[::1]:0"))}, match("four", obj{"prefix_ranges": ranges("0.0.0.0/0")}))
		r.visit("::1", "::1")
		r.moved(ofChains)
	}},
	{"match_prefix_longer_than_the_address", func(r *run) {
		r.chosen(nil, match("long", obj{"prefix_ranges": []obj{{"address_prefix": "127.0.0.9", "prefix_len": 99}}}))
		r.visit("127.0.0.1", "127.0.0.9")
		r.visit("127.0.0.1", "127.0.0.8")
		r.moved(ofChains)
	}},
	{"match_prefix_without_length_holds_all", func(r *run) {
		r.chosen(nil, match("zero", obj{"prefix_ranges": []obj{{"address_prefix": "10.0.0.1"}}}))
		r.visit("127.0.0.1", "127.0.0.8")
		r.moved(ofChains)
	}},
	{"match_mapped_prefix_holds_no_ipv4", func(r *run) {
		r.chosen(nil, match("mapped", obj{"prefix_ranges": []obj{{"address_prefix": "::ffff:127.0.0.0", "prefix_len": 104}}}))
		r.visit("127.0.0.1", "127.0.0.8")
		r.moved(ofChains)
	}},
	{"match_ipv4_on_a_dual_stack_listener", func(r *run) {
		a := address(netip.MustParseAddrPort("[::]:0"))
		a["socket_address"].(obj)["ipv4_compat"] = true
		r.chosen(obj{"address": a}, match("four", obj{"prefix_ranges": ranges("127.0.0.0/8"), "source_prefix_ranges": ranges("127.0.0.0/8")}), match("any", nil))
		r.visit("127.0.0.1", "127.0.0.8")
		r.visit("::1", "::1")
		r.moved(ofChains)
	}},
	{"match_default_alone", func(r *run) {
		r.chosen(deflt("default"))
		r.visit("127.0.0.1", "127.0.0.8")
		r.moved(ofChains)
	}},
}

const (
	inputs   = "type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3."
	strValue = "type.googleapis.com/google.protobuf.StringValue"
)

func extension(name, typ string, more obj) obj {
	return obj{"name": name, "typed_config": obj{"@type": typ}.with(more)}
}

// to is an on_match that leads to a chain.
func to(name string) obj { return obj{"action": extension("chain", strValue, obj{"value": name})} }

func input(name string) obj { return extension("input", inputs+name, nil) }

func exactly(in string, m obj) obj {
	return obj{"matcher_tree": obj{"input": input(in), "exact_match_map": obj{"map": m}}}
}

func byPrefix(in string, m obj) obj {
	return obj{"matcher_tree": obj{"input": input(in), "prefix_match_map": obj{"map": m}}}
}

func byRange(in string, m ...obj) obj {
	return obj{"matcher_tree": obj{"input": input(in), "custom_match": extension("ip", "type.googleapis.com/xds.type.matcher.v3.IPMatcher", obj{"range_matchers": m})}}
}

// within is an entry of an IPMatcher.
func within(cidr string, on obj) obj { return obj{"ranges": ranges(cidr), "on_match": on} }

func inOrder(m ...obj) obj { return obj{"matcher_list": obj{"matchers": m}} }

func when(predicate, on obj) obj { return obj{"predicate": predicate, "on_match": on} }

func is(in string, value obj) obj {
	return obj{"single_predicate": obj{"input": input(in), "value_match": value}}
}

// trees: filter_chain_matcher.
var trees = []scenario{
	{"tree_by_destination_address", func(r *run) {
		r.chosen(obj{"filter_chain_matcher": exactly("DestinationIPInput", obj{"127.0.0.8": to("a"), "127.0.0.9": to("b")})}, match("a", nil), match("b", nil))
		r.visit("127.0.0.1", "127.0.0.8")
		r.visit("127.0.0.1", "127.0.0.9")
		r.visit("127.0.0.1", "127.0.0.7")
		r.moved(ofChains)
	}},
	{"tree_falls_to_default", func(r *run) {
		r.chosen(deflt("default").with(obj{"filter_chain_matcher": exactly("DestinationIPInput", obj{"127.0.0.8": to("a")})}), match("a", nil))
		r.visit("127.0.0.1", "127.0.0.7")
		r.moved(ofChains)
	}},
	{"tree_names_no_chain", func(r *run) {
		// A name that no chain has is no match, and the default is not taken.
		r.chosen(deflt("default").with(obj{"filter_chain_matcher": exactly("DestinationIPInput", obj{"127.0.0.8": to("nosuch")})}), match("a", nil))
		r.visit("127.0.0.1", "127.0.0.8")
		r.moved(ofChains)
	}},
	{"tree_cannot_name_the_default", func(r *run) {
		r.chosen(deflt("default").with(obj{"filter_chain_matcher": exactly("DestinationIPInput", obj{"127.0.0.8": to("default")})}), match("a", nil))
		r.visit("127.0.0.1", "127.0.0.8")
		r.moved(ofChains)
	}},
	{"tree_on_no_match", func(r *run) {
		r.chosen(obj{"filter_chain_matcher": exactly("DestinationIPInput", obj{"127.0.0.8": to("a")}).with(obj{"on_no_match": to("b")})}, match("a", nil), match("b", nil))
		r.visit("127.0.0.1", "127.0.0.7")
		r.moved(ofChains)
	}},
	{"tree_of_nothing", func(r *run) {
		r.chosen(obj{"filter_chain_matcher": obj{}}, match("a", nil))
		r.visit("127.0.0.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"tree_hides_filter_chain_match", func(r *run) {
		r.chosen(obj{"filter_chain_matcher": obj{"on_no_match": to("a")}}, match("a", obj{"source_ports": []int{1}}))
		r.visit("127.0.0.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"tree_in_a_tree", func(r *run) {
		r.chosen(obj{"filter_chain_matcher": exactly("DestinationIPInput", obj{"127.0.0.8": obj{"matcher": exactly("SourceIPInput", obj{"127.0.0.2": to("a")}).with(obj{"on_no_match": to("b")})}})}, match("a", nil), match("b", nil))
		r.visit("127.0.0.2", "127.0.0.8")
		r.visit("127.0.0.3", "127.0.0.8")
		r.visit("127.0.0.3", "127.0.0.7")
		r.moved(ofChains)
	}},
	{"tree_inner_failure_is_no_match", func(r *run) {
		// The inner matcher finds nothing: the outer on_no_match is asked.
		r.chosen(obj{"filter_chain_matcher": exactly("DestinationIPInput", obj{"127.0.0.8": obj{"matcher": exactly("SourceIPInput", obj{"127.0.0.2": to("a")})}}).with(obj{"on_no_match": to("b")})}, match("a", nil), match("b", nil))
		r.visit("127.0.0.2", "127.0.0.8")
		r.visit("127.0.0.3", "127.0.0.8")
		r.moved(ofChains)
	}},
	{"tree_longest_prefix_of_text", func(r *run) {
		r.chosen(obj{"filter_chain_matcher": byPrefix("SourceIPInput", obj{"127.": to("a"), "127.0.7": to("b")})}, match("a", nil), match("b", nil))
		r.visit("127.0.7.1", "127.0.0.1")
		r.visit("127.0.6.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"tree_prefix_that_leads_nowhere", func(r *run) {
		r.chosen(obj{"filter_chain_matcher": byPrefix("SourceIPInput", obj{"127.": to("a"), "127.0.7": obj{"matcher": exactly("SourceIPInput", obj{"nobody": to("b")})}})}, match("a", nil), match("b", nil))
		r.visit("127.0.7.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"tree_of_ranges", func(r *run) {
		r.chosen(obj{"filter_chain_matcher": byRange("SourceIPInput", within("127.0.0.0/8", to("a")), within("127.0.7.0/24", to("b")))}, match("a", nil), match("b", nil))
		r.visit("127.0.7.1", "127.0.0.1")
		r.visit("127.0.6.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"tree_range_that_leads_nowhere", func(r *run) {
		r.chosen(obj{"filter_chain_matcher": byRange("SourceIPInput", within("127.0.0.0/8", to("a")), within("127.0.7.0/24", obj{"matcher": exactly("SourceIPInput", obj{"nobody": to("b")})}))}, match("a", nil), match("b", nil))
		r.visit("127.0.7.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"tree_exclusive_range_behind_another", func(r *run) {
		r.chosen(obj{"filter_chain_matcher": byRange("SourceIPInput", within("127.0.0.0/8", to("a")).with(obj{"exclusive": true}), within("127.0.7.0/24", obj{"matcher": exactly("SourceIPInput", obj{"nobody": to("b")})}))}, match("a", nil), match("b", nil))
		r.visit("127.0.7.1", "127.0.0.1")
		r.visit("127.0.6.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"tree_range_outside", func(r *run) {
		r.chosen(obj{"filter_chain_matcher": byRange("SourceIPInput", within("10.0.0.0/8", to("a")))}, match("a", nil))
		r.visit("127.0.0.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"tree_list_takes_the_first", func(r *run) {
		r.chosen(obj{"filter_chain_matcher": inOrder(
			when(is("SourceIPInput", obj{"prefix": "127.0.7"}), to("a")),
			when(is("DestinationIPInput", obj{"suffix": ".9"}), to("b")))}, match("a", nil), match("b", nil))
		r.visit("127.0.7.1", "127.0.0.9")
		r.visit("127.0.6.1", "127.0.0.9")
		r.visit("127.0.6.1", "127.0.0.8")
		r.moved(ofChains)
	}},
	{"tree_predicates_combined", func(r *run) {
		seven, nine := is("SourceIPInput", obj{"contains": ".7."}), is("DestinationIPInput", obj{"exact": "127.0.0.9"})
		r.chosen(obj{"filter_chain_matcher": inOrder(
			when(obj{"and_matcher": obj{"predicate": []obj{seven, nine}}}, to("both")),
			when(obj{"or_matcher": obj{"predicate": []obj{seven, nine}}}, to("one")),
			when(obj{"not_matcher": is("TransportProtocolInput", obj{"exact": "tls"})}, to("none")))}, match("both", nil), match("one", nil), match("none", nil))
		r.visit("127.0.7.1", "127.0.0.9")
		r.visit("127.0.7.1", "127.0.0.8")
		r.visit("127.0.6.1", "127.0.0.8")
		r.moved(ofChains)
	}},
	{"tree_regex_holds_for_the_whole", func(r *run) {
		r.chosen(obj{"filter_chain_matcher": inOrder(
			when(is("SourceIPInput", obj{"safe_regex": obj{"google_re2": obj{}, "regex": `127\.0`}}), to("a")),
			when(is("SourceIPInput", obj{"safe_regex": obj{"google_re2": obj{}, "regex": `127\.0\.7\..*`}}), to("b")))}, match("a", nil), match("b", nil))
		r.visit("127.0.7.1", "127.0.0.1")
		r.visit("127.0.6.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"tree_source_type", func(r *run) {
		r.chosen(obj{"filter_chain_matcher": exactly("SourceTypeInput", obj{"local": to("a")})}, match("a", nil))
		r.visit("127.0.0.1", "127.0.0.9")
		r.visit("127.0.0.2", "127.0.0.9")
		r.moved(ofChains)
	}},
	{"tree_no_server_name", func(r *run) {
		r.chosen(obj{"filter_chain_matcher": inOrder(when(is("ServerNameInput", obj{"prefix": "a"}), to("a")), when(is("ApplicationProtocolInput", obj{"prefix": "'"}), to("a")))}, match("a", nil))
		r.visit("127.0.0.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"tree_raw_buffer", func(r *run) {
		r.chosen(obj{"filter_chain_matcher": exactly("TransportProtocolInput", obj{"raw_buffer": to("a")})}, match("a", nil))
		r.visit("127.0.0.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"tree_destination_port", func(r *run) {
		at := freePort(r, "127.0.0.1")
		r.chosen(obj{"address": address(at), "filter_chain_matcher": exactly("DestinationPortInput", obj{strings.Split(at.String(), ":")[1]: to("a"), "1": to("b")})}, match("a", nil), match("b", nil))
		r.visit("127.0.0.1", "127.0.0.1")
		r.moved(ofChains)
	}},
	{"tree_addresses_in_a_predicate", func(r *run) {
		r.chosen(obj{"filter_chain_matcher": inOrder(when(obj{"single_predicate": obj{"input": input("DirectSourceIPInput"),
			"custom_match": extension("m", "type.googleapis.com/envoy.extensions.matching.input_matchers.ip.v3.Ip", obj{"stat_prefix": "x", "cidr_ranges": ranges("127.0.7.0/24")})}}, to("a")))}, match("a", nil))
		r.visit("127.0.7.1", "127.0.0.1")
		r.visit("127.0.6.1", "127.0.0.1")
		r.moved(ofChains)
	}},
}
