package parity

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// meant is a PROXY header that says where the client meant to go.
func meant(to netip.AddrPort, tlvs string) string {
	ip := to.Addr().As4()
	return v2(1, 0x11, "\x0a\x01\x02\x03"+string(ip[:])+"\x04\x57"+string(binary.BigEndian.AppendUint16(nil, to.Port()))+tlvs)
}

// byDestination is an ORIGINAL_DST cluster.
func byDestination(more obj) obj {
	return obj{"name": "c", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}.with(more)
}

const ofDestinations = `cluster\.c\.(membership_(total|healthy|change)|upstream_cx_(total|none_healthy|connect_fail)|original_dst_host_invalid)`

// toDestination runs a connection to an ORIGINAL_DST cluster.
func (r *run) toDestination(listenerFilters, filters []obj, c obj, first string, answer string) {
	log := r.logFile("tcp")
	p := tcpProxy("c").set("access_log", []obj{logTo(log, "%RESPONSE_FLAGS% %UPSTREAM_HOST% %UPSTREAM_HOST_NAME%\n")})
	r.start(static([]obj{listener("l", chain(append(filters, p)...)).with(obj{"listener_filters": listenerFilters})}, []obj{c}))
	cl := r.dial("l").send(first)
	if answer != "" {
		cl.expect(answer).fin()
	}
	cl.end()
	r.logged(log, 1)
	r.moved(ofDestinations)
}

const stateOfDestination = "envoy.network.transport_socket.original_dst_address"

// reachingDestinations: clusters whose hosts are the destinations of connections.
var reachingDestinations = []scenario{
	{"original_dst_of_a_proxy_header", func(r *run) {
		r.toDestination([]obj{proxyProtocol(nil)}, nil, byDestination(nil), meant(r.on("127.0.0.1", "a", 0), ""), "a")
		r.hosts(1)
	}},
	{"original_dst_that_nobody_knows", func(r *run) { r.toDestination(nil, nil, byDestination(nil), "", "") }},
	{"original_dst_where_nobody_listens", func(r *run) {
		to := freePort(r.TB, ownLoopback())
		r.call(to, "closed")
		r.toDestination([]obj{proxyProtocol(nil)}, nil, byDestination(nil), meant(to, ""), "")
	}},
	{"original_dst_with_another_port", func(r *run) {
		a := r.on("127.0.0.1", "a", 0)
		r.toDestination([]obj{proxyProtocol(nil)}, nil, byDestination(obj{"original_dst_lb_config": obj{"upstream_port_override": a.Port()}}),
			meant(netip.AddrPortFrom(a.Addr(), 1), ""), "a")
	}},
	{"original_dst_by_filter_state", func(r *run) {
		a := r.on("127.0.0.1", "a", 0)
		r.toDestination(nil, []obj{setState("on_new_connection", stateValue(stateOfDestination, a.String(), nil))}, byDestination(nil), "", "a")
	}},
	{"original_dst_by_filter_state_beats_the_header", func(r *run) {
		a, b := r.on("127.0.0.1", "a", 0), r.on("127.0.0.1", "b", 0)
		r.toDestination([]obj{proxyProtocol(nil)}, []obj{setState("on_new_connection", stateValue(stateOfDestination, a.String(), nil))}, byDestination(nil), meant(b, ""), "a")
	}},
	{"original_dst_by_metadata", func(r *run) {
		a, b := r.on("127.0.0.1", "a", 0), r.on("127.0.0.1", "b", 0)
		rules := obj{"rules": []obj{{"tlv_type": 0xe5, "on_tlv_present": obj{"key": "to"}}}}
		key := obj{"original_dst_lb_config": obj{"metadata_key": obj{"key": "envoy.filters.listener.proxy_protocol", "path": []obj{{"key": "to"}}}}}
		r.toDestination([]obj{proxyProtocol(rules)}, nil, byDestination(key), meant(b, tlv(0xe5, a.String())), "a")
	}},
	{"original_dst_by_metadata_that_is_no_address", func(r *run) {
		b := r.on("127.0.0.1", "b", 0)
		rules := obj{"rules": []obj{{"tlv_type": 0xe5, "on_tlv_present": obj{"key": "to"}}}}
		key := obj{"original_dst_lb_config": obj{"metadata_key": obj{"key": "envoy.filters.listener.proxy_protocol", "path": []obj{{"key": "to"}}}}}
		r.toDestination([]obj{proxyProtocol(rules)}, nil, byDestination(key), meant(b, tlv(0xe5, "rubbish")), "b")
	}},
	{"original_dst_header_of_http_has_no_effect", func(r *run) {
		r.toDestination([]obj{proxyProtocol(nil)}, nil, byDestination(obj{"original_dst_lb_config": obj{"use_http_header": true}}), meant(r.on("127.0.0.1", "a", 0), ""), "a")
	}},
	{"original_dst_hosts_go_when_nobody_wants_them", func(r *run) {
		a, b := r.on("127.0.0.1", "a", 0), r.on("127.0.0.1", "b", 0)
		l := proxyTo("l", "c").with(obj{"listener_filters": []obj{proxyProtocol(nil)}})
		r.start(static([]obj{l}, []obj{byDestination(obj{"cleanup_interval": "0.3s"})}))
		held := r.dial("l").as("held").send(meant(a, "")).expect("a")
		r.dial("l").as("short").send(meant(b, "")).expect("b").fin().end()
		r.note("both: %d", r.stats()["cluster.c.membership_total"])
		r.until("membership_change", 3)
		time.Sleep(time.Second) // the one in use stays however long it takes
		r.hosts(1)
		r.mark()
		held.fin().end()
		r.until("membership_change", 4)
		r.hosts(0)
		r.moved(ofDestinations)
	}},
	{"original_dst_with_a_source_address", func(r *run) {
		addr, _ := r.recorder(nameOf)
		l := proxyTo("l", "c").with(obj{"listener_filters": []obj{proxyProtocol(nil)}})
		r.start(static([]obj{l}, []obj{byDestination(obj{"upstream_bind_config": obj{"source_address": obj{"address": "127.0.0.6", "port_value": 0}}})}))
		r.dial("l").send(meant(addr, "")).expect("127.0.0.6").fin().end()
	}},
}
