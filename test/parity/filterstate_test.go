package parity

import "time"

// stateValue prints a format into an object.
func stateValue(key, format string, more obj) obj {
	return obj{"object_key": key, "format_string": obj{"text_format_source": obj{"inline_string": format}}}.with(more)
}

func setState(when string, values ...obj) obj {
	return network("set_filter_state", "Config", obj{when: values})
}

// texted is an object of a name of our own.
var texted = obj{"factory_key": "envoy.string"}

// stated prints the filter state of one connection through the filters.
func stated(name, key string, filters ...obj) scenario {
	return scenario{name, func(r *run) {
		log := r.logFile("tcp")
		p := tcpProxy("c").set("access_log", []obj{logTo(log, "%FILTER_STATE("+key+":PLAIN)% "+rbacLog)})
		r.start(static([]obj{listener("l", chain(append(filters, p)...))}, r.echoes()))
		r.dial("l").send("hello").endOrEcho("hello")
		r.logged(log, 1)
		r.moved(`listener\.l\.downstream_cx_(total|destroy)`, ofTCP, ofRBAC)
	}}
}

func allowState(key string, match obj) obj {
	return rbac(obj{"rules": rules("ALLOW", anyone, obj{"filter_state": obj{"key": key}.with(match)})})
}

// states: filter state, and who reads it.
var states = []scenario{
	{"filter_state_names_the_cluster", func(r *run) {
		eps := r.banners("a", "b")
		r.start(static([]obj{listener("l", chain(setState("on_new_connection", stateValue("envoy.tcp_proxy.cluster", "other", nil)), tcpProxy("c")))},
			[]obj{cluster("c", eps[0]), cluster("other", eps[1])}))
		r.dial("l").fin().end()
		r.movedByFilters()
	}},
	{"filter_state_names_no_cluster", func(r *run) {
		r.start(static([]obj{listener("l", chain(setState("on_new_connection", stateValue("envoy.tcp_proxy.cluster", "nosuch", nil)), tcpProxy("c")))}, r.echoes()))
		r.dial("l").end()
		r.movedByFilters()
	}},
	{"filter_state_cluster_by_address", func(r *run) {
		eps := r.banners("a", "b")
		r.start(static([]obj{listener("l", chain(setState("on_new_connection", stateValue("envoy.tcp_proxy.cluster", "for-%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", nil)), tcpProxy("c")))},
			[]obj{cluster("c", eps[0]), cluster("for-127.0.0.1", eps[1])}))
		r.dial("l").fin().end()
		r.movedByFilters()
	}},
	{"filter_state_cluster_at_the_handshake_that_is_none", func(r *run) {
		eps := r.banners("a", "b")
		r.start(static([]obj{listener("l", chain(setState("on_downstream_tls_handshake", stateValue("envoy.tcp_proxy.cluster", "other", nil)), tcpProxy("c")))},
			[]obj{cluster("c", eps[0]), cluster("other", eps[1])}))
		r.dial("l").fin().end()
		r.movedByFilters()
	}},
	{"filter_state_cluster_at_data_is_too_late", func(r *run) {
		eps := r.banners("a", "b")
		r.start(static([]obj{listener("l", chain(setState("on_downstream_data", stateValue("envoy.tcp_proxy.cluster", "other", nil)), tcpProxy("c")))},
			[]obj{cluster("c", eps[0]), cluster("other", eps[1])}))
		r.dial("l").send("hello").fin().end()
		r.movedByFilters()
	}},
	{"filter_state_idle_timeout", func(r *run) {
		r.start(static([]obj{listener("l", chain(setState("on_new_connection", stateValue("envoy.tcp_proxy.per_connection_idle_timeout_ms", "1000", nil)), tcpProxy("c")))}, r.echoes()))
		r.dial("l").end()
		r.movedByFilters()
	}},
	{"filter_state_idle_timeout_that_is_no_number", func(r *run) {
		r.start(static([]obj{listener("l", chain(setState("on_new_connection", stateValue("envoy.tcp_proxy.per_connection_idle_timeout_ms", "soon", nil)), tcpProxy("c")))}, r.echoes()))
		c := r.dial("l")
		time.Sleep(breath)
		c.send("x").expect("x").leave()
		r.movedByFilters()
	}},
	{"sni_cluster_without_a_name", func(r *run) {
		r.start(static([]obj{listener("l", chain(network("sni_cluster", "SniCluster", nil), tcpProxy("c")))}, r.echoes()))
		r.dial("l").send("hello").expect("hello").leave()
		r.movedByFilters()
	}},
	stated("filter_state_is_logged", "my.key", setState("on_new_connection", stateValue("my.key", "from %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", texted))),
	stated("filter_state_later_value_wins", "my.key", setState("on_new_connection", stateValue("my.key", "first", texted), stateValue("my.key", "second", texted))),
	stated("filter_state_read_only_is_not", "my.key", setState("on_new_connection", stateValue("my.key", "first", obj{"factory_key": "envoy.string", "read_only": true}), stateValue("my.key", "second", texted))),
	stated("filter_state_skips_empty", "my.key", setState("on_new_connection", stateValue("my.key", "first", texted),
		obj{"object_key": "my.key", "factory_key": "envoy.string", "skip_if_empty": true, "format_string": obj{"text_format_source": obj{"inline_string": "%REQUESTED_SERVER_NAME%"}, "omit_empty_values": true}})),
	stated("filter_state_of_what_is_not_known", "my.key", setState("on_new_connection", stateValue("my.key", "%REQUESTED_SERVER_NAME%", texted))),
	stated("filter_state_of_filter_state", "my.key", setState("on_new_connection", stateValue("other", "deep", texted), stateValue("my.key", "%FILTER_STATE(other:PLAIN)%er", texted))),
	stated("filter_state_at_data", "my.key", setState("on_downstream_data", stateValue("my.key", "spoke", texted))),
	stated("filter_state_of_an_address_that_is_none", "envoy.network.ip", setState("on_new_connection", stateValue("envoy.network.ip", "nowhere", nil))),
	stated("filter_state_of_an_address", "envoy.network.ip", setState("on_new_connection", stateValue("envoy.network.ip", "10.0.0.7", nil))),
	stated("rbac_by_filter_state", "k", setState("on_new_connection", stateValue("k", "gold", texted)), allowState("k", obj{"string_match": obj{"exact": "gold"}})),
	stated("rbac_by_other_filter_state", "k", setState("on_new_connection", stateValue("k", "iron", texted)), allowState("k", obj{"string_match": obj{"exact": "gold"}})),
	stated("rbac_by_filter_state_set_too_late", "k", allowState("k", obj{"string_match": obj{"exact": "gold"}}), setState("on_downstream_data", stateValue("k", "gold", texted))),
	stated("rbac_by_filter_state_set_at_data", "k", setState("on_downstream_data", stateValue("k", "gold", texted)), allowState("k", obj{"string_match": obj{"exact": "gold"}})),
	stated("rbac_by_address_in_filter_state", "envoy.network.ip", setState("on_new_connection", stateValue("envoy.network.ip", "10.0.0.7", nil)), allowState("envoy.network.ip", obj{"address_match": obj{"ranges": []obj{cidrOf("10.0.0.0", 8)}}})),
	stated("rbac_by_address_in_filter_state_of_others", "envoy.network.ip", setState("on_new_connection", stateValue("envoy.network.ip", "11.0.0.7", nil)), allowState("envoy.network.ip", obj{"address_match": obj{"ranges": []obj{cidrOf("10.0.0.0", 8)}}})),
	stated("rbac_by_address_in_text", "k", setState("on_new_connection", stateValue("k", "10.0.0.7", texted)), allowState("k", obj{"address_match": obj{"ranges": []obj{cidrOf("10.0.0.0", 8)}}})),
	stated("rbac_matcher_by_filter_state", "k", setState("on_new_connection", stateValue("k", "gold", texted)),
		rbac(obj{"matcher": listOf(single(networkInput("FilterStateInput", obj{"key": "k"}), obj{"exact": "gold"}), rbacAction("rich", "ALLOW"))})),
	{"sni_cluster_by_the_client_hello", func(r *run) {
		r.start(static([]obj{behindInspector(chain(network("sni_cluster", "SniCluster", nil), tcpProxy("c")))},
			[]obj{cluster("c", r.banners("other")...), cluster("one.example", r.banners("named")...)}))
		r.dial("l").send(clientHello("one.example")).expect("named").reset()
		r.dial("l").send("no TLS, no name").expect("other").reset()
		r.dial("l").send(clientHello("two.example")).gone()
		r.moved(`tcp\.c\.downstream_cx_(total|no_route)`)
	}},
	{"rbac_by_server_name", func(r *run) {
		named := rbac(obj{"rules": rules("ALLOW", obj{"requested_server_name": obj{"suffix": ".example"}}, anyone)})
		r.start(static([]obj{behindInspector(chain(named, tcpProxy("c")))}, r.echoes()))
		for _, name := range []string{"one.example", "one.example.org"} {
			hello := clientHello(name)
			r.dial("l").as(name).send(hello).endOrEcho(hello)
		}
		r.dial("l").as("plain").send("no TLS, no name").endOrEcho("no TLS, no name")
		r.moved(ofRBAC)
	}},
	{"rbac_addresses_behind_proxy_protocol", func(r *run) {
		ranged := func(prefix, field, address string, bits int) obj {
			return rbac(obj{"stat_prefix": prefix, "shadow_rules": rules("ALLOW", anyone, obj{field: cidrOf(address, bits)})})
		}
		port := rbac(obj{"stat_prefix": "port", "shadow_rules": rules("ALLOW", obj{"and_rules": obj{"rules": []obj{{"destination_port": 2222}, {"destination_ip": cidrOf("10.4.5.6", 32)}}}}, anyone)})
		l := listener("l", chain(ranged("remote", "remote_ip", "10.1.2.3", 32), ranged("source", "source_ip", "10.1.2.3", 32), ranged("direct", "direct_remote_ip", "10.1.2.3", 32), ranged("direct_is", "direct_remote_ip", "127.0.0.1", 32), port, tcpProxy("c")))
		r.start(static([]obj{l.with(obj{"listener_filters": []obj{proxyProtocol(nil)}})}, r.echoes()))
		r.dial("l").send("PROXY TCP4 10.1.2.3 10.4.5.6 1111 2222\r\nhello").expect("hello").leave()
		r.moved(ofRBAC)
	}},
}

// behindInspector is a listener with a tls_inspector.
func behindInspector(c obj) obj {
	return listener("l", c).with(obj{"listener_filters": []obj{tlsInspector(nil)}})
}
