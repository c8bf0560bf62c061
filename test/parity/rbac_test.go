package parity

import (
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

// rbac has the stat prefix `p.`.
func rbac(config obj) obj { return network("rbac", "RBAC", obj{"stat_prefix": "p."}.with(config)) }

// rules are one policy called `some policy`.
func rules(action string, permission, principal obj) obj {
	return obj{"action": action, "policies": obj{"some policy": policyOf(permission, principal)}}
}

func policyOf(permission, principal obj) obj {
	return obj{"permissions": []obj{permission}, "principals": []obj{principal}}
}

var anyone = obj{"any": true}

func cidrOf(address string, bits int) obj {
	return obj{"address_prefix": address, "prefix_len": bits}
}

const ofRBAC = `(.+\.)?rbac\..*`

// rbacLog prints what RBAC leaves behind.
const rbacLog = `flags=%RESPONSE_FLAGS% details=%CONNECTION_TERMINATION_DETAILS% down-close=%DOWNSTREAM_LOCAL_CLOSE_REASON% up-close=%UPSTREAM_LOCAL_CLOSE_REASON% received=%BYTES_RECEIVED% sent=%BYTES_SENT% ` +
	`metadata=%DYNAMIC_METADATA(envoy.filters.network.rbac)% common=%DYNAMIC_METADATA(envoy.common)%` + "\n"

// judged starts a proxy whose clients get a banner, after the filters.
func (r *run) judged(filters ...obj) (log string) {
	r.Helper()
	addr, seen := r.recorder(peer.ResponseThen("banner", peer.Echo))
	_ = seen
	log = r.logFile("tcp")
	p := tcpProxy("c").set("access_log", []obj{logTo(log, rbacLog)})
	r.start(static([]obj{listener("l", chain(append(filters, p)...))}, []obj{cluster("c", endpoint(addr))}))
	return log
}

// speak is a client that gets its banner, speaks, and is answered or not.
func (r *run) speak() {
	r.Helper()
	c := r.dial("l").expect("banner").send("hello")
	buf := make([]byte, 5)
	_ = c.SetReadDeadline(time.Now().Add(4 * time.Second))
	n, err := c.Read(buf)
	if n > 0 {
		r.note("client: answered %q", buf[:n])
		c.leave()
		return
	}
	r.note("client: %s", endText(err))
}

// permitted is a scenario of one permission or principal.
func permitted(name string, permission, principal obj) scenario {
	return scenario{"rbac_" + name, func(r *run) {
		r.judged(rbac(obj{"rules": rules("ALLOW", permission, principal)}))
		r.speak()
		r.moved(ofRBAC, ofListener)
	}}
}

// rbacAction is an action of a match tree.
func rbacAction(name, action string) obj {
	return obj{"action": obj{"name": "a", "typed_config": obj{"@type": "type.googleapis.com/envoy.config.rbac.v3.Action", "name": name, "action": action}}}
}

func networkInput(message string, more obj) obj {
	return obj{"name": "i", "typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3." + message}.with(more)}
}

// matched is a scenario of one RBAC matcher.
func matched(name string, matcher obj) scenario {
	return scenario{"rbac_matcher_" + name, func(r *run) {
		log := r.judged(rbac(obj{"matcher": matcher}))
		r.speak()
		r.logged(log, 1)
		r.moved(ofRBAC, ofListener)
	}}
}

func listOf(predicate, onMatch obj) obj {
	return obj{"matcher_list": obj{"matchers": []obj{{"predicate": predicate, "on_match": onMatch}}}}
}

func single(input, value obj) obj {
	return obj{"single_predicate": obj{"input": input, "value_match": value}}
}

// exactly the metadata of a shadow engine before.
func shadowSaid(key string, value obj) obj {
	return obj{"filter": "envoy.filters.network.rbac", "path": []obj{{"key": key}}, "value": value}
}

func metadataScenario(name, allowed string, m obj) scenario {
	return scenario{"rbac_metadata_" + name, func(r *run) {
		shadow := rbac(obj{"shadow_rules": rules(allowed, anyone, anyone)})
		r.judged(shadow, rbac(obj{"stat_prefix": "q.", "rules": rules("ALLOW", anyone, obj{"metadata": m})}))
		r.speak()
		r.moved(ofRBAC)
	}}
}

var (
	none = obj{"not_rule": anyone}
	v4   = obj{"destination_ip": cidrOf("127.0.0.0", 8)}
)

// roles: RBAC, by rules and by matchers.
var roles = []scenario{
	{"rbac_without_rules", func(r *run) {
		log := r.judged(rbac(nil))
		r.speak()
		r.logged(log, 1)
		r.movedByFilters(ofRBAC)
	}},
	{"rbac_empty_rules", func(r *run) {
		log := r.judged(rbac(obj{"rules": obj{}}))
		r.speak()
		r.logged(log, 1)
		r.movedByFilters(ofRBAC)
	}},
	{"rbac_empty_deny_rules", func(r *run) {
		log := r.judged(rbac(obj{"rules": obj{"action": "DENY"}}))
		r.speak()
		r.logged(log, 1)
		r.movedByFilters(ofRBAC)
	}},
	{"rbac_allow", func(r *run) {
		log := r.judged(rbac(obj{"rules": rules("ALLOW", anyone, anyone)}))
		r.speak()
		r.logged(log, 1)
		r.movedByFilters(ofRBAC)
	}},
	{"rbac_deny", func(r *run) {
		log := r.judged(rbac(obj{"rules": rules("DENY", anyone, anyone)}))
		r.speak()
		r.logged(log, 1)
		r.movedByFilters(ofRBAC)
	}},
	{"rbac_log", func(r *run) {
		log := r.judged(rbac(obj{"rules": rules("LOG", anyone, anyone)}))
		r.speak()
		r.logged(log, 1)
		r.movedByFilters(ofRBAC)
	}},
	{"rbac_log_of_others", func(r *run) {
		log := r.judged(rbac(obj{"rules": rules("LOG", none, anyone)}))
		r.speak()
		r.logged(log, 1)
		r.movedByFilters(ofRBAC)
	}},
	{"rbac_deny_is_seen_by_the_server_as_fin", func(r *run) {
		addr, seen := r.recorder(nil)
		r.start(static([]obj{listener("l", chain(rbac(obj{"rules": obj{}}), tcpProxy("c")))}, []obj{cluster("c", endpoint(addr))}))
		c := r.dial("l")
		time.Sleep(breath)
		r.moved(ofRBAC, `cluster\.c\.upstream_cx_(total|active)`)
		r.mark()
		c.send("no byte of this gets through").end()
		r.saw(seen)
		r.movedByFilters(ofRBAC)
	}},
	{"rbac_silent_client_is_not_judged", func(r *run) {
		log := r.judged(rbac(obj{"rules": obj{}}))
		c := r.dial("l").expect("banner")
		time.Sleep(breath)
		r.movedByFilters(ofRBAC)
		c.leave()
		r.logged(log, 1)
		r.movedByFilters(ofRBAC)
	}},
	{"rbac_client_rst_is_not_judged", func(r *run) {
		r.judged(rbac(obj{"rules": obj{}}))
		c := r.dial("l").expect("banner")
		time.Sleep(breath)
		c.reset()
		r.moved(ofRBAC, ofListener)
	}},
	{"rbac_deny_of_early_bytes_and_fin", func(r *run) {
		addr, seen := r.recorder(nil)
		r.start(static([]obj{listener("l", chain(rbac(obj{"rules": obj{}}), tcpProxy("c")))}, []obj{cluster("c", endpoint(addr))}))
		r.dial("l").send("early").fin().end()
		r.saw(seen)
		r.moved(ofRBAC, ofListener)
	}},
	{"rbac_deny_before_a_refused_connect", func(r *run) {
		r.start(static([]obj{listener("l", chain(rbac(obj{"rules": obj{}}), tcpProxy("c")))}, []obj{cluster("c", endpoint(r.refused()))}))
		r.dial("l").end()
		r.movedByFilters(ofRBAC)
	}},
	{"rbac_before_echo", func(r *run) {
		r.start(static([]obj{listener("l", chain(rbac(obj{"rules": obj{}}), network("echo", "Echo", nil)))}, nil))
		r.dial("l").send("hello").end()
		r.movedByFilters(ofRBAC)
	}},
	{"rbac_allows_echo", func(r *run) {
		r.start(static([]obj{listener("l", chain(rbac(obj{"rules": rules("ALLOW", v4, anyone)}), network("echo", "Echo", nil)))}, nil))
		r.dial("l").send("hello").expect("hello").fin().end()
		r.movedByFilters(ofRBAC)
	}},
	{"rbac_before_direct_response", func(r *run) {
		r.start(static([]obj{listener("l", chain(rbac(obj{"rules": obj{}}), directResponse("sorry")))}, nil))
		r.dial("l").end()
		r.movedByFilters(ofRBAC)
	}},
	{"rbac_first_policy_counts", func(r *run) {
		log := r.judged(rbac(obj{"rules": obj{"action": "DENY", "policies": obj{"z": policyOf(anyone, anyone), "b": policyOf(anyone, anyone), "a": policyOf(none, anyone)}}}))
		r.speak()
		r.logged(log, 1)
	}},
	{"rbac_two_filters_first_denies", func(r *run) {
		log := r.judged(rbac(obj{"rules": obj{}}), rbac(obj{"stat_prefix": "q", "rules": rules("ALLOW", anyone, anyone)}))
		r.speak()
		r.logged(log, 1)
		r.moved(ofRBAC)
	}},
	{"rbac_two_filters_second_denies", func(r *run) {
		log := r.judged(rbac(obj{"rules": rules("ALLOW", anyone, anyone)}), rbac(obj{"stat_prefix": "q", "rules": rules("DENY", anyone, anyone)}))
		r.speak()
		r.logged(log, 1)
		r.moved(ofRBAC)
	}},
	{"rbac_shadow_denies", func(r *run) {
		log := r.judged(rbac(obj{"shadow_rules": obj{}}))
		r.speak()
		r.logged(log, 1)
		r.movedByFilters(ofRBAC)
	}},
	{"rbac_shadow_allows_enforced_denies", func(r *run) {
		log := r.judged(rbac(obj{"shadow_rules": rules("ALLOW", anyone, anyone), "rules": rules("DENY", anyone, anyone), "shadow_rules_stat_prefix": "sh."}))
		r.speak()
		r.logged(log, 1)
		r.movedByFilters(ofRBAC)
	}},
	{"rbac_shadow_prefix_without_dot", func(r *run) {
		log := r.judged(rbac(obj{"stat_prefix": "p", "shadow_rules": rules("DENY", anyone, anyone), "rules": rules("ALLOW", anyone, anyone), "shadow_rules_stat_prefix": "sh"}))
		r.speak()
		r.logged(log, 1)
		r.movedByFilters(ofRBAC)
	}},
	{"rbac_delay_deny", func(r *run) {
		addr, seen := r.recorder(peer.ResponseThen("banner", nil))
		log := r.logFile("tcp")
		r.start(static([]obj{listener("l", chain(rbac(obj{"rules": obj{}, "delay_deny": "1s"}), tcpProxy("c").set("access_log", []obj{logTo(log, rbacLog)})))}, []obj{cluster("c", endpoint(addr))}))
		c := r.dial("l").expect("banner").send("hello")
		time.Sleep(breath)
		r.moved(ofRBAC, ofListener)
		c.end()
		r.saw(seen)
		r.logged(log, 1)
		r.movedByFilters(ofRBAC)
	}},
	{"rbac_delay_deny_more_bytes", func(r *run) {
		addr, seen := r.recorder(nil)
		r.start(static([]obj{listener("l", chain(rbac(obj{"rules": obj{}, "delay_deny": "1s"}), tcpProxy("c")))}, []obj{cluster("c", endpoint(addr))}))
		c := r.dial("l").send("hello")
		time.Sleep(breath)
		c.send("more, which nobody reads").end()
		r.saw(seen)
		r.moved(ofRBAC, ofListener)
	}},
	{"rbac_delay_deny_fin", func(r *run) {
		addr, seen := r.recorder(nil)
		r.start(static([]obj{listener("l", chain(rbac(obj{"rules": obj{}, "delay_deny": "1s"}), tcpProxy("c")))}, []obj{cluster("c", endpoint(addr))}))
		c := r.dial("l").send("hello")
		time.Sleep(breath)
		c.leave()
		r.saw(seen)
		r.moved(ofRBAC, ofListener)
	}},
	{"rbac_delay_deny_server_closes", func(r *run) {
		addr := r.serve("server", peer.CloseAfter("bye", 0, breath))
		r.start(static([]obj{listener("l", chain(rbac(obj{"rules": obj{}, "delay_deny": "2s"}), tcpProxy("c")))}, []obj{cluster("c", endpoint(addr))}))
		r.dial("l").send("hello").expect("bye").end()
		r.moved(ofRBAC, ofListener)
	}},
	{"rbac_continuous", func(r *run) {
		log := r.judged(rbac(obj{"enforcement_type": "CONTINUOUS", "rules": rules("ALLOW", anyone, anyone)}))
		c := r.dial("l").expect("banner")
		for range 4 {
			c.send("hello").expect("hello")
		}
		c.leave()
		r.logged(log, 1)
		r.movedByFilters(ofRBAC)
	}},
	{"rbac_continuous_shadow", func(r *run) {
		log := r.judged(rbac(obj{"enforcement_type": "CONTINUOUS", "shadow_rules": obj{}}))
		c := r.dial("l").expect("banner")
		for range 3 {
			c.send("hello").expect("hello")
		}
		c.leave()
		r.logged(log, 1)
		r.moved(ofRBAC)
	}},
	{"rbac_continuous_denies", func(r *run) {
		log := r.judged(rbac(obj{"enforcement_type": "CONTINUOUS", "rules": obj{}}))
		r.speak()
		r.logged(log, 1)
		r.movedByFilters(ofRBAC)
	}},
	{"rbac_matcher_beats_rules", func(r *run) {
		r.judged(rbac(obj{"rules": rules("ALLOW", anyone, anyone), "matcher": obj{"on_no_match": rbacAction("never", "DENY")}}))
		r.speak()
		r.moved(ofRBAC)
	}},
	{"rbac_shadow_matcher", func(r *run) {
		log := r.judged(rbac(obj{"rules": rules("ALLOW", anyone, anyone), "shadow_matcher": obj{"on_no_match": rbacAction("a name", "DENY")}}))
		r.speak()
		r.logged(log, 1)
		r.moved(ofRBAC)
	}},
	{"rbac_destination_port", func(r *run) {
		one, two := freePort(r, "127.0.0.1"), freePort(r, "127.0.0.1")
		f := rbac(obj{"rules": rules("ALLOW", obj{"destination_port": one.Port()}, anyone)})
		l := listener("l", chain(f, tcpProxy("c"))).with(obj{"address": address(one), "additional_addresses": []obj{{"address": address(two)}}})
		r.start(static([]obj{l}, r.echoes()))
		r.dialAt(one).as("one").send("x").endOrEcho("x")
		r.dialAt(two).as("two").send("x").endOrEcho("x")
		r.moved(ofRBAC)
	}},
	{"rbac_destination_port_range", func(r *run) {
		one := freePort(r, "127.0.0.1")
		ranges := func(name string, from, to int) obj {
			return rbac(obj{"stat_prefix": name, "shadow_rules": rules("ALLOW", obj{"destination_port_range": obj{"start": from, "end": to}}, anyone)})
		}
		p := int(one.Port())
		l := listener("l", chain(ranges("exact", p, p+1), ranges("ends_before", 0, p), ranges("begins_after", p+1, 65536), ranges("all", 0, 65536), tcpProxy("c"))).with(obj{"address": address(one)})
		r.start(static([]obj{l}, r.echoes()))
		r.dialAt(one).send("x").expect("x").fin().end()
		r.moved(ofRBAC)
	}},
	{"rbac_ipv6_is_in_no_ipv4_range", func(r *run) {
		at := freePort(r, "::1")
		ranged := func(name, address string, bits int) obj {
			return rbac(obj{"stat_prefix": name, "shadow_rules": rules("ALLOW", anyone, obj{"remote_ip": cidrOf(address, bits)})})
		}
		l := listener("l", chain(ranged("v4", "0.0.0.0", 0), ranged("v6", "::", 0), ranged("loopback", "::1", 128), ranged("other", "fd00::", 8), tcpProxy("c"))).with(obj{"address": address(at)})
		r.start(static([]obj{l}, r.echoes()))
		r.dialAt(at).send("x").expect("x").fin().end()
		r.moved(ofRBAC)
	}},
	permitted("none", none, anyone),
	permitted("nobody", anyone, obj{"not_id": anyone}),
	permitted("destination_ip", v4, anyone),
	permitted("destination_ip_of_others", obj{"destination_ip": cidrOf("10.0.0.0", 8)}, anyone),
	permitted("destination_ip_prefix_too_long", obj{"destination_ip": cidrOf("127.0.0.1", 64)}, anyone),
	permitted("and_rules", obj{"and_rules": obj{"rules": []obj{v4, none}}}, anyone),
	permitted("or_rules", obj{"or_rules": obj{"rules": []obj{none, v4}}}, anyone),
	permitted("server_name_without_tls", obj{"requested_server_name": obj{"exact": "a.example"}}, anyone),
	permitted("server_name_by_regex_of_nothing", obj{"requested_server_name": obj{"safe_regex": obj{"regex": ".*"}}}, anyone),
	permitted("url_path", obj{"url_path": obj{"path": obj{"prefix": "/"}}}, anyone),
	permitted("not_url_path", obj{"not_rule": obj{"url_path": obj{"path": obj{"prefix": "/"}}}}, anyone),
	permitted("source_ip", anyone, obj{"source_ip": cidrOf("127.0.0.1", 32)}),
	permitted("source_ip_of_others", anyone, obj{"source_ip": cidrOf("127.0.0.2", 32)}),
	permitted("direct_remote_ip", anyone, obj{"direct_remote_ip": cidrOf("127.0.0.1", 32)}),
	permitted("remote_ip", anyone, obj{"remote_ip": cidrOf("127.0.0.0", 30)}),
	permitted("remote_ip_of_others", anyone, obj{"remote_ip": cidrOf("192.168.0.0", 16)}),
	permitted("and_ids", anyone, obj{"and_ids": obj{"ids": []obj{anyone, {"source_ip": cidrOf("10.0.0.0", 8)}}}}),
	permitted("or_ids", anyone, obj{"or_ids": obj{"ids": []obj{{"source_ip": cidrOf("10.0.0.0", 8)}, anyone}}}),
	permitted("authenticated_on_plaintext", anyone, obj{"authenticated": obj{}}),
	permitted("authenticated_by_name_on_plaintext", anyone, obj{"authenticated": obj{"principal_name": obj{"safe_regex": obj{"regex": ".*"}}}}),
	permitted("not_authenticated_on_plaintext", anyone, obj{"not_id": obj{"authenticated": obj{}}}),
	permitted("filter_state_of_nothing", anyone, obj{"filter_state": obj{"key": "k", "string_match": obj{"prefix": "v"}}}),
	permitted("metadata_of_nothing", anyone, obj{"metadata": shadowSaid("k", obj{"present_match": true})}),
	permitted("metadata_of_nothing_inverted", anyone, obj{"metadata": shadowSaid("k", obj{"present_match": true}).with(obj{"invert": true})}),
	permitted("metadata_absent_is_not_present", anyone, obj{"metadata": shadowSaid("k", obj{"present_match": false})}),
	permitted("metadata_absent_is_not_null", anyone, obj{"metadata": shadowSaid("k", obj{"null_match": obj{}})}),
	permitted("metadata_of_a_route", anyone, obj{"sourced_metadata": obj{"metadata_source": "ROUTE", "metadata_matcher": shadowSaid("k", obj{"present_match": true}).with(obj{"invert": true})}}),
	permitted("metadata_of_a_permission", obj{"metadata": shadowSaid("k", obj{"bool_match": false}).with(obj{"invert": true})}, anyone),
	metadataScenario("of_the_shadow_allowed", "ALLOW", shadowSaid("shadow_engine_result", obj{"string_match": obj{"exact": "allowed"}})),
	metadataScenario("of_the_shadow_denied", "DENY", shadowSaid("shadow_engine_result", obj{"string_match": obj{"exact": "allowed"}})),
	metadataScenario("of_the_shadow_policy", "ALLOW", shadowSaid("shadow_effective_policy_id", obj{"string_match": obj{"suffix": "POLICY", "ignore_case": true}})),
	metadataScenario("or", "ALLOW", shadowSaid("shadow_engine_result", obj{"or_match": obj{"value_matchers": []obj{{"bool_match": true}, {"string_match": obj{"contains": "llow"}}}}})),
	metadataScenario("present", "ALLOW", shadowSaid("shadow_engine_result", obj{"present_match": true})),
	metadataScenario("list", "ALLOW", shadowSaid("shadow_engine_result", obj{"list_match": obj{"one_of": obj{"present_match": true}}})),
	matched("without_anything", obj{}),
	matched("no_match_allows", obj{"on_no_match": rbacAction("others", "ALLOW")}),
	matched("no_match_denies", obj{"on_no_match": rbacAction("the others", "DENY")}),
	matched("no_match_logs", obj{"on_no_match": rbacAction("others", "LOG")}),
	matched("source_ip", listOf(single(networkInput("SourceIPInput", nil), obj{"exact": "127.0.0.1"}), rbacAction("us", "ALLOW"))),
	matched("source_ip_of_others", listOf(single(networkInput("SourceIPInput", nil), obj{"prefix": "10."}), rbacAction("them", "ALLOW"))),
	matched("deny_by_source_ip", listOf(single(networkInput("SourceIPInput", nil), obj{"prefix": "127."}), rbacAction("us", "DENY")).with(obj{"on_no_match": rbacAction("others", "ALLOW")})),
	matched("destination_ip_by_range", listOf(obj{"single_predicate": obj{"input": networkInput("DestinationIPInput", nil), "custom_match": obj{"name": "ip",
		"typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.matching.input_matchers.ip.v3.Ip", "stat_prefix": "ip", "cidr_ranges": []obj{cidrOf("127.0.0.0", 8)}}}}}, rbacAction("us", "ALLOW"))),
	matched("or_and_not", listOf(obj{"or_matcher": obj{"predicate": []obj{single(networkInput("SourceIPInput", nil), obj{"exact": "10.0.0.1"}),
		{"not_matcher": single(networkInput("DirectSourceIPInput", nil), obj{"exact": "10.0.0.1"})}}}}, rbacAction("us", "ALLOW"))),
	matched("tree_by_source_ip", obj{"matcher_tree": obj{"input": networkInput("SourceIPInput", nil), "exact_match_map": obj{"map": obj{"127.0.0.1": rbacAction("us", "ALLOW"), "10.0.0.1": rbacAction("them", "DENY")}}}}),
	matched("server_name_without_tls", listOf(single(networkInput("ServerNameInput", nil), obj{"prefix": "a"}), rbacAction("named", "ALLOW"))),
	matched("uri_san_on_plaintext", listOf(single(obj{"name": "i", "typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.matching.common_inputs.ssl.v3.UriSanInput"}}, obj{"prefix": "spiffe://"}), rbacAction("us", "ALLOW"))),
}
