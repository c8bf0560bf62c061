package parity

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

const (
	lf            = "type.googleapis.com/envoy.extensions.filters.listener."
	ofInspectors  = `(tls_inspector|http_inspector)\..+_found|tls_inspector\.(connection_closed|client_hello_too_large)`
	ofProxyProto  = `.*proxy_proto.*`
	ofL           = `listener\.l\.(downstream_cx_(total|destroy|active)|no_filter_chain_match)`
	ofPreAccepted = `listener\.l\.(downstream_pre_cx_(timeout|active)|downstream_listener_filter_(remote_close|error))`
)

func tlsInspector(fields obj) obj {
	return obj{"name": "tls", "typed_config": obj{"@type": lf + "tls_inspector.v3.TlsInspector"}.with(fields)}
}

func httpInspector() obj {
	return obj{"name": "http", "typed_config": obj{"@type": lf + "http_inspector.v3.HttpInspector"}}
}

func proxyProtocol(fields obj) obj {
	return obj{"name": "pp", "typed_config": obj{"@type": lf + "proxy_protocol.v3.ProxyProtocol"}.with(fields)}
}

// clientHello is a real one.
func clientHello(serverName string, protocols ...string) string {
	ours, theirs := net.Pipe()
	go func() {
		_ = tls.Client(theirs, &tls.Config{ServerName: serverName, NextProtos: protocols, InsecureSkipVerify: true}).Handshake() // ends when we close
		theirs.Close()
	}()
	defer ours.Close()
	head := make([]byte, 5)
	if _, err := io.ReadFull(ours, head); err != nil {
		return ""
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(ours, body); err != nil {
		return ""
	}
	return string(head) + string(body)
}

// split wraps a ClientHello in records of n bytes each.
func split(hello string, n int) string {
	var out strings.Builder
	for body := hello[5:]; body != ""; {
		part := body[:min(n, len(body))]
		body = body[len(part):]
		out.WriteString(hello[:3])
		out.Write(binary.BigEndian.AppendUint16(nil, uint16(len(part))))
		out.WriteString(part)
	}
	return out.String()
}

// inspected is a listener whose chains say which one was taken: each proxies to
// a back end of its own that greets with the chain's name.
func (r *run) inspected(filters []obj, matches map[string]obj, more obj) obj {
	var chains, clusters []obj
	for _, name := range []string{"sni", "suffix", "tls", "h2", "http10", "http11", "h2c", "raw", "port", "any"} {
		m, ok := matches[name]
		if !ok {
			continue
		}
		chains = append(chains, chain(tcpProxy(name)).with(obj{"name": name, "filter_chain_match": m}))
		clusters = append(clusters, cluster(name, endpoint(r.serve(name, peer.ResponseThen(name+"\n", peer.Echo)))))
	}
	l := listener("l", chains...).with(obj{"listener_filters": filters}).with(more)
	return static([]obj{l}, clusters)
}

// named are matches that most stories use.
func named() map[string]obj {
	return map[string]obj{
		"sni": {"server_names": []string{"one.example"}}, "suffix": {"server_names": []string{"*.wild.example"}}, "tls": {"transport_protocol": "tls"},
		"h2": {"transport_protocol": "tls", "application_protocols": []string{"h2"}}, "any": {},
	}
}

// takes sends bytes and notes which chain greets.
func (r *run) takes(what, bytes string) {
	r.Helper()
	c := r.dial("l").as(what).send(bytes)
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 16)
	n, err := c.Read(b)
	if err != nil {
		r.note("%s: %s", what, endText(err))
		return
	}
	r.note("%s: taken by %q", what, strings.Split(string(b[:n]), "\n")[0])
}

// inspecting: listener filters.
var inspecting = []scenario{
	{"tls_inspector_finds_names_and_protocols", func(r *run) {
		r.start(r.inspected([]obj{tlsInspector(nil)}, named(), nil))
		r.takes("exact", clientHello("one.example"))
		r.takes("upper case", clientHello("ONE.Example"))
		r.takes("suffix", clientHello("a.b.wild.example"))
		r.takes("suffix without a label", clientHello("wild.example"))
		r.takes("another name", clientHello("other.example"))
		r.takes("no name", clientHello(""))
		r.takes("another name, h2", clientHello("other.example", "h2", "http/1.1"))
		r.takes("plain text", "hello, this is no TLS")
		r.moved(ofInspectors, ofL)
	}},
	{"tls_inspector_waits_for_a_hello_in_pieces", func(r *run) {
		r.start(r.inspected([]obj{tlsInspector(nil)}, named(), nil))
		h := clientHello("one.example", "h2")
		c := r.dial("l").send(h[:1])
		for _, p := range []string{h[1:4], h[4:7], h[7:60], h[60:]} {
			time.Sleep(50 * time.Millisecond)
			c.send(p)
		}
		c.expect("sni\n")
		c.reset()
		r.takes("in records of 20 bytes", split(h, 20))
		r.takes("in records of 1 byte", split(h, 1))
		r.moved(ofInspectors)
	}},
	{"tls_inspector_decides_nothing_before_five_bytes", func(r *run) {
		r.start(r.inspected([]obj{tlsInspector(nil)}, named(), obj{"listener_filters_timeout": "1s"}))
		r.dial("l").send("abcd").end()
		r.moved(ofInspectors, ofL, ofPreAccepted)
	}},
	{"tls_inspector_on_five_plain_bytes", func(r *run) {
		r.start(r.inspected([]obj{tlsInspector(nil)}, named(), nil))
		r.takes("five", "abcde")
		r.moved(ofInspectors)
	}},
	{"tls_inspector_on_garbage", func(r *run) {
		r.start(r.inspected([]obj{tlsInspector(nil)}, named(), nil))
		h := clientHello("one.example")
		r.takes("server hello", h[:5]+"\x02"+h[6:])
		r.takes("length beyond the message", h[:5]+"\x01\x00\x00\x05"+h[9:])
		r.takes("version 2", "\x16\x02\x00"+h[3:])
		r.takes("alert", "\x15\x03\x01\x00\x02\x02\x28")
		r.takes("an empty record", "\x16\x03\x01\x00\x00"+h)
		r.takes("truncated extensions", h[:5]+h[5:len(h)-10]+strings.Repeat("\xff", 10))
		r.moved(ofInspectors)
	}},
	{"tls_inspector_closes_on_garbage_when_told", func(r *run) {
		r.start(r.inspected([]obj{tlsInspector(obj{"close_connection_on_client_hello_parsing_errors": true})}, named(), nil))
		r.dial("l").send("hello, this is no TLS").end()
		r.takes("a hello", clientHello("one.example"))
		r.moved(ofInspectors, ofL, ofPreAccepted)
	}},
	{"tls_inspector_bounds_the_hello", func(r *run) {
		r.start(r.inspected([]obj{tlsInspector(nil)}, named(), nil))
		// A hello that says it is 60 KiB long, in full records.
		record := "\x16\x03\x01\x40\x00"
		r.dial("l").send(record + "\x01\x00\xf0\x00" + strings.Repeat("a", 16<<10-4) + record + strings.Repeat("a", 16<<10)).end()
		r.moved(ofInspectors, ofL, ofPreAccepted)
	}},
	{"tls_inspector_with_a_smaller_bound", func(r *run) {
		r.start(r.inspected([]obj{tlsInspector(obj{"max_client_hello_size": 256})}, named(), nil))
		r.dial("l").send(clientHello("one.example", strings.Repeat("p", 200), strings.Repeat("q", 200))).end()
		r.moved(ofInspectors, ofL, ofPreAccepted)
	}},
	{"fin_while_inspecting_drops", func(r *run) {
		r.start(r.inspected([]obj{tlsInspector(nil)}, named(), nil))
		r.dial("l").send("abc").fin().end()
		r.moved(ofInspectors, ofL, ofPreAccepted)
	}},
	{"reset_while_inspecting", func(r *run) {
		r.start(r.inspected([]obj{tlsInspector(nil)}, named(), nil))
		c := r.dial("l").send("abc")
		time.Sleep(100 * time.Millisecond)
		c.reset()
		r.moved(ofInspectors, ofL, ofPreAccepted)
	}},
	{"inspecting_times_out", func(r *run) {
		path := r.logFile("listener")
		r.start(r.inspected([]obj{tlsInspector(nil)}, named(), obj{"listener_filters_timeout": "1s", "access_log": []obj{logTo(path, everything)}}))
		r.dial("l").end()
		r.logged(path, 1)
		r.moved(ofInspectors, ofL, ofPreAccepted)
	}},
	{"inspecting_times_out_and_goes_on", func(r *run) {
		r.start(r.inspected([]obj{tlsInspector(nil)}, named(), obj{"listener_filters_timeout": "0.5s", "continue_on_listener_filters_timeout": true}))
		r.takes("silent", "")
		r.moved(ofInspectors, ofL, ofPreAccepted)
	}},
	{"inspecting_without_a_timeout", func(r *run) {
		r.start(r.inspected([]obj{tlsInspector(nil)}, named(), obj{"listener_filters_timeout": "0s"}))
		c := r.dial("l")
		time.Sleep(1200 * time.Millisecond)
		r.moved(ofPreAccepted)
		c.send(clientHello("one.example")).expect("sni\n")
		c.reset()
	}},
	{"names_without_an_inspector", func(r *run) {
		r.start(r.inspected(nil, named(), obj{"listener_filters_timeout": "0.5s", "continue_on_listener_filters_timeout": true}))
		r.takes("a hello", clientHello("one.example"))
		r.takes("plain text", "hello, this is no TLS")
		r.moved(ofInspectors)
	}},
	{"raw_buffer_is_what_nobody_looked_at", func(r *run) {
		r.start(r.inspected(nil, map[string]obj{"raw": {"transport_protocol": "raw_buffer"}, "any": {}}, nil))
		r.takes("anything", "hello")
	}},
	{"sni_in_the_log", func(r *run) {
		path := r.logFile("listener")
		r.start(r.inspected([]obj{tlsInspector(obj{"enable_ja3_fingerprinting": true, "enable_ja4_fingerprinting": true})}, named(),
			obj{"access_log": []obj{logTo(path, "%REQUESTED_SERVER_NAME% %TLS_JA3_FINGERPRINT% %TLS_JA4_FINGERPRINT% %FILTER_CHAIN_NAME%\n")}}))
		r.takes("a hello", fixedHello)
		r.logged(path, 1)
	}},
	{"http_inspector_finds_versions", func(r *run) {
		r.start(r.inspected([]obj{httpInspector()}, map[string]obj{
			"http10": {"application_protocols": []string{"http/1.0"}}, "http11": {"application_protocols": []string{"http/1.1"}}, "h2c": {"application_protocols": []string{"h2c"}}, "any": {},
		}, nil))
		r.takes("1.1", "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		r.takes("1.0", "GET / HTTP/1.0\r\n\r\n")
		r.takes("line feed alone", "POST /x HTTP/1.1\n")
		r.takes("2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		r.takes("an unknown method", "FOO / HTTP/1.1\r\n\r\n")
		r.takes("another protocol", "HELO there\r\n")
		r.takes("no path", "GET\r\n")
		r.takes("no version", "GET /\r\n")
		r.takes("version 0.9", "GET / HTTP/0.9\r\n")
		r.takes("version 3.0", "GET / HTTP/3.0\r\n")
		r.takes("lower case", "get / HTTP/1.1\r\n")
		r.takes("binary", "\x00\x01\x02\x03\r\n")
		r.takes("connect", "CONNECT a:1 HTTP/1.1\r\n")
		r.moved(ofInspectors)
	}},
	{"http_inspector_waits_for_the_line", func(r *run) {
		r.start(r.inspected([]obj{httpInspector()}, map[string]obj{"http11": {"application_protocols": []string{"http/1.1"}}, "any": {}}, nil))
		c := r.dial("l")
		for _, p := range []string{"G", "ET /in/pie", "ces HTTP/1", ".1", "\r\n"} {
			c.send(p)
			time.Sleep(50 * time.Millisecond)
		}
		c.expect("http11\n")
		c.reset()
		r.moved(ofInspectors)
	}},
	{"listener_rate_limit_closes_what_has_no_token", func(r *run) {
		limit := obj{"name": "l", "typed_config": obj{"@type": lf + "local_ratelimit.v3.LocalRateLimit", "stat_prefix": "few", "token_bucket": obj{"max_tokens": 2, "fill_interval": "60s"}}}
		path := r.logFile("listener")
		l := proxyTo("l", "c").with(obj{"listener_filters": []obj{limit}, "access_log": []obj{logTo(path, everything)}})
		r.start(static([]obj{l}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		for range 2 {
			r.dial("l").send("hello").expect("hello").fin().end()
		}
		r.dial("l").end()
		r.logged(path, 3)
		r.moved(ofL, ofPreAccepted, `.*ratelimit.*`)
	}},
	{"listener_rate_limit_that_is_off", func(r *run) {
		limit := obj{"name": "l", "typed_config": obj{"@type": lf + "local_ratelimit.v3.LocalRateLimit", "stat_prefix": "few", "token_bucket": obj{"max_tokens": 1, "fill_interval": "60s"},
			"runtime_enabled": obj{"default_value": false, "runtime_key": "none"}}}
		r.start(static([]obj{proxyTo("l", "c").with(obj{"listener_filters": []obj{limit}})}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		for range 3 {
			r.dial("l").send("hello").expect("hello").fin().end()
		}
		r.moved(ofL, `.*ratelimit.*`)
	}},
	{"listener_sets_filter_state", func(r *run) {
		set := obj{"name": "s", "typed_config": obj{"@type": lf + "set_filter_state.v3.Config", "on_accept": []obj{
			{"object_key": "mine", "factory_key": "envoy.string", "format_string": obj{"text_format_source": obj{"inline_string": "from %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}}},
			{"object_key": "envoy.tcp_proxy.cluster", "format_string": obj{"text_format_source": obj{"inline_string": "c"}}}}}}
		path := r.logFile("tcp")
		p := tcpProxy("none").set("access_log", []obj{logTo(path, "%FILTER_STATE(mine:PLAIN)% %UPSTREAM_CLUSTER%\n")})
		r.start(static([]obj{listener("l", chain(p)).with(obj{"listener_filters": []obj{set}})}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.dial("l").send("hello").expect("hello").fin().end()
		r.logged(path, 1)
	}},
	{"http_inspector_of_what_has_no_end", func(r *run) {
		r.start(r.inspected([]obj{httpInspector()}, map[string]obj{"http11": {"application_protocols": []string{"http/1.1"}}, "any": {}}, obj{"listener_filters_timeout": "1s", "continue_on_listener_filters_timeout": true}))
		for what, s := range map[string]string{"binary": "\x00\x01\x02\x03", "lower case": "hello there", "unknown method": "FOO /x", "known method": "GET /x"} {
			r.takes(what, s)
		}
		r.sortLast(4)
		r.moved(ofInspectors, ofPreAccepted)
	}},
	{"both_inspectors", func(r *run) {
		r.start(r.inspected([]obj{tlsInspector(nil), httpInspector()}, map[string]obj{"sni": {"server_names": []string{"one.example"}}, "http11": {"application_protocols": []string{"http/1.1"}}, "any": {}}, nil))
		r.takes("a hello", clientHello("one.example"))
		r.takes("http", "GET / HTTP/1.1\r\n")
		r.takes("neither", "hello\r\n")
		r.moved(ofInspectors)
	}},
	{"inspector_disabled_for_a_port", func(r *run) {
		at := freePort(r.TB, "127.0.0.1")
		tlsOff := tlsInspector(nil).with(obj{"filter_disabled": obj{"destination_port_range": obj{"start": at.Port(), "end": int(at.Port()) + 1}}})
		b := r.inspected([]obj{tlsOff}, named(), obj{"address": address(at), "additional_addresses": []obj{{"address": address(freePort(r.TB, "127.0.0.1"))}}})
		r.start(b)
		r.takes("the port", clientHello("one.example"))
		r.moved(ofInspectors)
	}},
	{"inspector_disabled_by_a_tree", func(r *run) {
		not := obj{"not_match": obj{"destination_port_range": obj{"start": 1, "end": 65536}}}
		on := tlsInspector(nil).with(obj{"filter_disabled": obj{"or_match": obj{"rules": []obj{not, {"and_match": obj{"rules": []obj{{"any_match": true}, not}}}}}}})
		r.start(r.inspected([]obj{on}, named(), nil))
		r.takes("a hello", clientHello("one.example"))
		r.moved(ofInspectors)
	}},
}

// fixedHello is a ClientHello whose fingerprints are the same every time.
var fixedHello = func() string {
	ext := func(kind uint16, body string) string {
		b := binary.BigEndian.AppendUint16(nil, kind)
		return string(binary.BigEndian.AppendUint16(b, uint16(len(body)))) + body
	}
	sni := ext(0, "\x00\x0e\x00\x00\x0bone.example")
	extensions := ext(0x0a0a, "") + sni + ext(10, "\x00\x06\x0a\x0a\x00\x1d\x00\x17") + ext(11, "\x01\x00") + ext(13, "\x00\x04\x04\x03\x08\x04") + ext(16, "\x00\x0c\x02h2\x08http/1.1") + ext(43, "\x04\x03\x04\x03\x03")
	body := "\x03\x03" + strings.Repeat("r", 32) + "\x00" + "\x00\x06\x0a\x0a\x13\x01\xc0\x2f" + "\x01\x00" + string(binary.BigEndian.AppendUint16(nil, uint16(len(extensions)))) + extensions
	message := "\x01\x00" + string(binary.BigEndian.AppendUint16(nil, uint16(len(body)))) + body
	return "\x16\x03\x01" + string(binary.BigEndian.AppendUint16(nil, uint16(len(message)))) + message
}()
