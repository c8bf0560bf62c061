package parity

import (
	"encoding/binary"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

const (
	v1     = "PROXY TCP4 10.1.2.3 10.4.5.6 1111 2222\r\n"
	v1six  = "PROXY TCP6 2001:db8::1 2001:db8::2 1111 2222\r\n"
	v2sign = "\r\n\r\n\x00\r\nQUIT\n"
)

// v2 is a header of version 2: command, family, and what follows.
func v2(command, family byte, rest string) string {
	return v2sign + string([]byte{0x20 | command, family}) + string(binary.BigEndian.AppendUint16(nil, uint16(len(rest)))) + rest
}

const (
	addrs4 = "\x0a\x01\x02\x03\x0a\x04\x05\x06\x04\x57\x08\xae"
	addrs6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" + "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02" + "\x04\x57\x08\xae"
)

func tlv(kind byte, value string) string {
	return string(append([]byte{kind}, binary.BigEndian.AppendUint16(nil, uint16(len(value)))...)) + value
}

const ppLog = "remote=%DOWNSTREAM_REMOTE_ADDRESS% direct=%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% local=%DOWNSTREAM_LOCAL_ADDRESS% received=%BYTES_RECEIVED% wire=%DOWNSTREAM_WIRE_BYTES_RECEIVED% chain=%FILTER_CHAIN_NAME%\n"

// proxied runs one connection behind proxy_protocol: what is sent, what comes
// back, the log and the counters.
func proxied(name string, fields obj, act func(r *run)) scenario {
	return scenario{name, func(r *run) {
		path := r.logFile("listener")
		p := tcpProxy("c").set("access_log", []obj{logTo(path, ppLog)})
		l := listener("l", chain(p)).with(obj{"listener_filters": []obj{proxyProtocol(fields)}})
		r.start(static([]obj{l}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		act(r)
		if strings.HasPrefix(name, "proxy_protocol_ok") {
			r.logged(path, 1)
		}
		r.moved(ofProxyProto, ofL, ofPreAccepted)
	}}
}

func goes(header string) func(*run) {
	return func(r *run) { r.dial("l").send(header + "hello").expect("hello").fin().end() }
}

func fails(header string) func(*run) {
	return func(r *run) { r.dial("l").send(header + "hello").end() }
}

// unwrapping: the PROXY protocol from downstream.
var unwrapping = []scenario{
	proxied("proxy_protocol_ok_v1", nil, goes(v1)),
	proxied("proxy_protocol_ok_v1_six", nil, goes(v1six)),
	proxied("proxy_protocol_v1_unknown", nil, func(r *run) { r.dial("l").send("PROXY UNKNOWN\r\nhello").expect("hello").fin().end() }),
	proxied("proxy_protocol_v1_unknown_with_addresses", nil, func(r *run) {
		r.dial("l").send("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\nhello").expect("hello").fin().end()
	}),
	proxied("proxy_protocol_ok_v1_in_pieces", nil, func(r *run) {
		c := r.dial("l")
		for _, p := range []string{v1[:3], v1[3:10], v1[10 : len(v1)-1], v1[len(v1)-1:] + "he", "llo"} {
			c.send(p)
			time.Sleep(50 * time.Millisecond)
		}
		c.expect("hello").fin().end()
	}),
	proxied("proxy_protocol_ok_v2", nil, goes(v2(1, 0x11, addrs4))),
	proxied("proxy_protocol_ok_v2_six", nil, goes(v2(1, 0x21, addrs6))),
	proxied("proxy_protocol_v2_local", nil, goes(v2(0, 0, ""))),
	proxied("proxy_protocol_v2_local_with_addresses", nil, goes(v2(0, 0x11, addrs4))),
	proxied("proxy_protocol_ok_v2_in_pieces", nil, func(r *run) {
		h := v2(1, 0x11, addrs4+tlv(0xe0, "value"))
		c := r.dial("l")
		for _, p := range []string{h[:5], h[5:14], h[14:20], h[20:], "hello"} {
			c.send(p)
			time.Sleep(50 * time.Millisecond)
		}
		c.expect("hello").fin().end()
	}),
	proxied("proxy_protocol_v2_datagram", nil, fails(v2(1, 0x12, addrs4))),
	proxied("proxy_protocol_v2_unix", nil, fails(v2(1, 0x31, strings.Repeat("a", 216)))),
	proxied("proxy_protocol_v2_unspecified", nil, fails(v2(1, 0x00, ""))),
	proxied("proxy_protocol_v2_short_addresses", nil, fails(v2(1, 0x11, addrs4[:8]))),
	proxied("proxy_protocol_v2_bad_command", nil, fails(v2(5, 0x11, addrs4))),
	proxied("proxy_protocol_v2_bad_version", nil, fails(v2sign+"\x31\x11\x00\x0c"+addrs4)),
	proxied("proxy_protocol_v1_bad_address", nil, fails("PROXY TCP4 10.1.2.x 10.4.5.6 1111 2222\r\n")),
	proxied("proxy_protocol_v1_family_mixed", nil, fails("PROXY TCP4 2001:db8::1 10.4.5.6 1111 2222\r\n")),
	proxied("proxy_protocol_v1_bad_port", nil, fails("PROXY TCP4 10.1.2.3 10.4.5.6 111111 2222\r\n")),
	proxied("proxy_protocol_v1_too_few_words", nil, fails("PROXY TCP4 10.1.2.3 10.4.5.6\r\n")),
	proxied("proxy_protocol_v1_bad_family", nil, fails("PROXY UDP4 10.1.2.3 10.4.5.6 1111 2222\r\n")),
	proxied("proxy_protocol_v1_too_long", nil, fails("PROXY TCP4 "+strings.Repeat("1", 120)+"\r\n")),
	proxied("proxy_protocol_v1_without_an_end", nil, fails("PROXY TCP4 "+strings.Repeat("1", 200))),
	proxied("proxy_protocol_missing", nil, fails("GET / HTTP/1.1\r\n\r\n")),
	proxied("proxy_protocol_garbage", nil, fails("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f")),
	proxied("proxy_protocol_fin_in_the_middle", nil, func(r *run) { r.dial("l").send(v1[:12]).fin().end() }),
	proxied("proxy_protocol_optional_and_missing", obj{"allow_requests_without_proxy_protocol": true}, goes("")),
	proxied("proxy_protocol_ok_optional_and_there", obj{"allow_requests_without_proxy_protocol": true}, goes(v1)),
	proxied("proxy_protocol_optional_and_bad", obj{"allow_requests_without_proxy_protocol": true}, fails("PROXY TCP4 10.1.2.x 10.4.5.6 1111 2222\r\n")),
	proxied("proxy_protocol_v1_disallowed", obj{"disallowed_versions": []string{"V1"}}, fails(v1)),
	proxied("proxy_protocol_v2_disallowed", obj{"disallowed_versions": []string{"V2"}}, fails(v2(1, 0x11, addrs4))),
	proxied("proxy_protocol_ok_v2_while_v1_is_disallowed", obj{"disallowed_versions": []string{"V1"}}, goes(v2(1, 0x11, addrs4))),
	proxied("proxy_protocol_v2_disallowed_and_optional", obj{"disallowed_versions": []string{"V2"}, "allow_requests_without_proxy_protocol": true},
		func(r *run) {
			h := v2(1, 0x11, addrs4)
			r.dial("l").send(h + "hello").expect(h + "hello").fin().end()
		}),
	proxied("proxy_protocol_ok_with_a_stat_prefix", obj{"stat_prefix": "mine"}, goes(v1)),
	{"proxy_protocol_decides_the_chain", func(r *run) {
		matches := map[string]obj{"port": {"destination_port": 2222}, "sni": {"source_prefix_ranges": []obj{{"address_prefix": "10.1.0.0", "prefix_len": 16}}}, "any": {}}
		r.start(r.inspected([]obj{proxyProtocol(nil)}, matches, nil))
		r.takes("port 2222", v1+"x")
		r.takes("another port, the source", strings.Replace(v1, "2222", "3333", 1)+"x")
		r.takes("another port and source", "PROXY TCP4 10.2.2.3 10.4.5.6 1111 3333\r\nx")
		r.takes("unknown", "PROXY UNKNOWN\r\nx")
	}},
	{"proxy_protocol_before_tls", func(r *run) {
		r.start(r.inspected([]obj{proxyProtocol(nil), tlsInspector(nil)}, named(), nil))
		r.takes("a hello", v1+clientHello("one.example"))
		r.takes("a hello behind version 2", v2(1, 0x11, addrs4)+clientHello("x.wild.example"))
		r.takes("plain", v1+"hello, this is no TLS")
		r.moved(ofProxyProto, ofInspectors)
	}},
	{"proxy_protocol_tlvs_in_the_log", func(r *run) {
		path := r.logFile("tcp")
		rules := []obj{{"tlv_type": 0xe0, "on_tlv_present": obj{"key": "a"}}, {"tlv_type": 0x02, "on_tlv_present": obj{"metadata_namespace": "ns", "key": "authority"}}, {"tlv_type": 0xe1, "on_tlv_present": obj{"key": "none"}}}
		p := tcpProxy("c").set("access_log", []obj{logTo(path, "%DYNAMIC_METADATA(envoy.filters.listener.proxy_protocol:a)% %DYNAMIC_METADATA(ns:authority)% %DYNAMIC_METADATA(envoy.filters.listener.proxy_protocol:none)%\n")})
		l := listener("l", chain(p)).with(obj{"listener_filters": []obj{proxyProtocol(obj{"rules": rules})}})
		r.start(static([]obj{l}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		goes(v2(1, 0x11, addrs4+tlv(0x02, "name.example")+tlv(0xe0, "v\xffw")+tlv(0x04, "noop")))(r)
		r.logged(path, 1)
	}},
	{"proxy_protocol_v2_with_a_broken_tlv", func(r *run) {
		l := listener("l", chain(tcpProxy("c"))).with(obj{"listener_filters": []obj{proxyProtocol(obj{"rules": []obj{{"tlv_type": 0xe0, "on_tlv_present": obj{"key": "a"}}}})}})
		r.start(static([]obj{l}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		fails(v2(1, 0x11, addrs4+"\xe0\x00\xffshort"))(r)
		r.moved(ofProxyProto, ofL)
	}},
}
