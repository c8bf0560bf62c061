package parity

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"
)

const proxiedType = "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"

// wrapping is a cluster that sends PROXY headers.
func wrapping(config obj, endpoints ...obj) obj {
	return cluster("c", endpoints...).with(obj{"transport_socket": obj{"name": "envoy.transport_sockets.upstream_proxy_protocol", "typed_config": obj{
		"@type": proxiedType, "config": config, "transport_socket": obj{"name": "envoy.transport_sockets.raw_buffer",
			"typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}}}})
}

func tlvEntry(kind int, value string) obj {
	return obj{"type": kind, "format_string": obj{"text_format_source": obj{"inline_string": value}}}
}

// headed sends what, as one client, and notes what the server gets.
func headed(name string, config, tcp, from obj, what string) scenario {
	return scenario{name, func(r *run) {
		addr, seen := r.recorder(hi)
		p := tcpProxy("c")
		for k, v := range tcp {
			p.set(k, v)
		}
		l := listener("l", chain(p))
		if from != nil {
			l.with(obj{"listener_filters": []obj{proxyProtocol(from)}})
		}
		r.start(static([]obj{l}, []obj{wrapping(config, endpoint(addr))}))
		c := r.dial("l")
		r.call(c.LocalAddr().(*net.TCPAddr).AddrPort(), "client")
		ports := [2]int{c.LocalAddr().(*net.TCPAddr).Port, c.RemoteAddr().(*net.TCPAddr).Port}
		c.send(what).expect("hi").fin().end()
		select {
		case s := <-seen:
			data := strings.ReplaceAll(string(s.Data), fmt.Sprintf("%d %d", ports[0], ports[1]), "<ports>")
			data = strings.ReplaceAll(data, string([]byte{byte(ports[0] >> 8), byte(ports[0]), byte(ports[1] >> 8), byte(ports[1])}), "<ports>")
			r.note("server: got %q, then %s", data, s.End)
		case <-time.After(4 * time.Second):
			r.note("server: sees no end")
		}
		r.moved(`cluster\.c\.upstream_cx_[rt]x_bytes_total`, `tcp\.c\.downstream_cx_[rt]x_bytes_total`)
	}}
}

var (
	passAll = obj{"match_type": "INCLUDE_ALL"}
	ofTCPs  = obj{"proxy_protocol_tlvs": []obj{tlvEntry(0xf1, "tcp"), tlvEntry(0xe1, "over")}}
	ofPeer  = v2(1, 0x11, addrs4+tlv(0xe1, "one")+tlv(0xe2, "two")+tlv(0xe1, "three")) + "hello"
	passing = obj{"pass_through_tlvs": passAll}
)

func merging(policy string) obj {
	return obj{"proxy_protocol_tlv_merge_policy": policy}.with(ofTCPs)
}

// reaching: how connections to hosts are made.
var reaching = []scenario{
	headed("upstream_proxy_v1", obj{"version": "V1"}, nil, nil, "hello"),
	headed("upstream_proxy_v2", obj{"version": "V2"}, nil, nil, "hello"),
	headed("upstream_proxy_v2_without_a_byte", obj{"version": "V2"}, nil, nil, ""),
	headed("upstream_proxy_v2_adds_tlvs", obj{"version": "V2", "added_tlvs": []obj{tlvEntry(0xf2, "a"), tlvEntry(0xf3, "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%")}}, ofTCPs, nil, "hello"),
	headed("upstream_proxy_v2_passes_tcp_proxys_tlvs", obj{"version": "V2", "pass_through_tlvs": passAll}, ofTCPs, nil, "hello"),
	headed("upstream_proxy_v1_of_a_proxied_client", obj{"version": "V1"}, nil, obj{}, v1+"hello"),
	headed("upstream_proxy_v1_of_a_proxied_client_six", obj{"version": "V1"}, nil, obj{}, v1six+"hello"),
	headed("upstream_proxy_v2_of_a_proxied_client_six", obj{"version": "V2"}, nil, obj{}, v1six+"hello"),
	headed("upstream_proxy_v2_passes_the_clients_tlvs", obj{"version": "V2", "pass_through_tlvs": passAll, "added_tlvs": []obj{tlvEntry(0xe1, "mine")}}, nil, passing, ofPeer),
	headed("upstream_proxy_v2_passes_some", obj{"version": "V2", "pass_through_tlvs": obj{"match_type": "INCLUDE", "tlv_type": []int{0xe2}}}, nil, passing, ofPeer),
	headed("upstream_proxy_v2_passes_none", obj{"version": "V2"}, nil, passing, ofPeer),
	headed("upstream_proxy_tlvs_if_absent", obj{"version": "V2", "pass_through_tlvs": passAll}, ofTCPs, passing, ofPeer),
	headed("upstream_proxy_tlvs_if_absent_where_none_pass", obj{"version": "V2", "pass_through_tlvs": passAll}, ofTCPs, obj{}, ofPeer),
	headed("upstream_proxy_tlvs_if_absent_in_version_1", obj{"version": "V2", "pass_through_tlvs": passAll}, ofTCPs, passing, v1+"hello"),
	headed("upstream_proxy_tlvs_if_absent_in_a_local_header", obj{"version": "V2", "pass_through_tlvs": passAll}, ofTCPs, passing, v2(0, 0, "")+"hello"),
	headed("upstream_proxy_tlvs_if_there_is_no_header", obj{"version": "V2", "pass_through_tlvs": passAll}, ofTCPs, obj{"allow_requests_without_proxy_protocol": true}, "hello"),
	headed("upstream_proxy_tlvs_appended", obj{"version": "V2", "pass_through_tlvs": passAll}, merging("APPEND_IF_EXISTS_OR_ADD"), passing, ofPeer),
	headed("upstream_proxy_tlvs_overwritten", obj{"version": "V2", "pass_through_tlvs": passAll}, merging("OVERWRITE_BY_TYPE_IF_EXISTS_OR_ADD"), passing, ofPeer),
	{"upstream_proxy_tlvs_of_the_host", func(r *run) {
		addr, seen := r.recorder(hi)
		e := endpoint(addr).with(obj{"metadata": obj{"typed_filter_metadata": obj{"envoy.transport_sockets.proxy_protocol": obj{
			"@type": "type.googleapis.com/envoy.config.core.v3.PerHostConfig", "added_tlvs": []obj{{"type": 0xf2, "value": []byte("host")}, tlvEntry(0xf3, "formats count elsewhere")}}}}})
		r.start(static([]obj{listener("l", chain(tcpProxy("c")))}, []obj{wrapping(obj{"version": "V2", "added_tlvs": []obj{tlvEntry(0xf4, "more"), tlvEntry(0xf2, "add")}}, e)}))
		r.dial("l").fin().end()
		s := <-seen
		r.note("TLVs: %q", s.Data[min(28, len(s.Data)):])
	}},
	{"bind_source_address", func(r *run) { r.from(obj{"source_address": obj{"address": "127.0.0.6", "port_value": 0}}) }},
	{"bind_source_address_by_family", func(r *run) {
		r.from(obj{"source_address": obj{"address": "::1", "port_value": 0}, "extra_source_addresses": []obj{{"address": obj{"address": "127.0.0.7", "port_value": 0}}}})
	}},
	{"bind_source_address_of_the_other_family", func(r *run) { r.from(obj{"source_address": obj{"address": "::1", "port_value": 0}}) }},
	{"bind_source_address_of_another_machine", func(r *run) { r.from(obj{"source_address": obj{"address": "192.0.2.1", "port_value": 0}}) }},
	{"bind_by_the_cluster_manager", func(r *run) {
		addr, _ := r.recorder(nameOf)
		b := static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(addr))})
		r.start(b.with(obj{"cluster_manager": obj{"upstream_bind_config": obj{"source_address": obj{"address": "127.0.0.8", "port_value": 0}}}}))
		r.dial("l").fin().end()
	}},
	{"bind_options_alone", func(r *run) {
		r.from(obj{"socket_options": []obj{{"level": 1, "name": 9, "int_value": 1, "state": "STATE_PREBIND"}}})
	}},
	{"keepalive_of_upstream_connections", func(r *run) {
		addr, _ := r.recorder(nameOf)
		c := cluster("c", endpoint(addr)).with(obj{"upstream_connection_options": obj{"tcp_keepalive": obj{"keepalive_probes": 3, "keepalive_time": 11, "keepalive_interval": 5}}})
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.dial("l").fin().end()
	}},
	{"endpoint_on_a_unix_socket", func(r *run) { r.overUnix(filepath.Join(r.TempDir(), "s")) }},
	{"endpoint_on_an_abstract_socket", func(r *run) { r.overUnix("@" + r.TempDir()) }},
	{"endpoint_on_a_unix_socket_that_is_not_there", func(r *run) {
		path := filepath.Join(r.TempDir(), "nobody")
		r.names = append(r.names, path, "<path>")
		log := r.logFile("tcp")
		p := tcpProxy("c").set("access_log", []obj{logTo(log, "%RESPONSE_FLAGS% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n")})
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", pipe(path))}))
		r.dial("l").end()
		r.logged(log, 1)
		r.movedByConnections()
	}},
	{"additional_address_takes_over", func(r *run) {
		closed := freePort(r.TB, ownLoopback())
		a := r.on("127.0.0.1", "second", 0)
		e := endpoint(closed)
		e["endpoint"].(obj)["additional_addresses"] = []obj{{"address": address(a)}}
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", e)}))
		r.dial("l").expect("second").fin().end()
		r.movedByConnections()
	}},
	{"additional_addresses_none_is_there", func(r *run) {
		e := endpoint(freePort(r.TB, ownLoopback()))
		e["endpoint"].(obj)["additional_addresses"] = []obj{{"address": address(freePort(r.TB, ownLoopback()))}}
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", e)}))
		r.dial("l").end()
		r.movedByConnections()
	}},
	{"additional_address_of_the_other_family", func(r *run) {
		closed := freePort(r.TB, ownLoopback())
		six := r.on("[::1]", "six", 0)
		e := endpoint(closed)
		e["endpoint"].(obj)["additional_addresses"] = []obj{{"address": address(freePort(r.TB, ownLoopback()))}, {"address": address(six)}}
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", e)}))
		r.dial("l").expect("six").fin().end()
		r.movedByConnections()
	}},
}

// hi says that the connection stands: a client that ended its stream before could
// be taken for one that ended it before its header was read.
func hi(_ context.Context, c *net.TCPConn) { fmt.Fprint(c, "hi") }

// nameOf says where the client's address is, without its port.
func nameOf(_ context.Context, c *net.TCPConn) {
	fmt.Fprint(c, c.RemoteAddr().(*net.TCPAddr).IP)
}

// from notes where connections come from under a bind config.
func (r *run) from(bind obj) {
	addr, _ := r.recorder(nameOf)
	log := r.logFile("tcp")
	p := tcpProxy("c").set("access_log", []obj{logTo(log, "%RESPONSE_FLAGS% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n")})
	r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(addr)).with(obj{"upstream_bind_config": bind})}))
	r.dial("l").fin().end()
	r.logged(log, 1)
	r.moved(ofCluster, `cluster\.c\.bind_errors`)
}

func pipe(path string) obj {
	return obj{"endpoint": obj{"address": obj{"pipe": obj{"path": path}}}}
}

// onUnix starts a server on a Unix socket.
func (r *run) onUnix(path string) {
	r.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		r.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 5)
			n, _ := c.Read(buf)
			_, _ = c.Write(append([]byte("echo "), buf[:n]...))
			_ = c.Close()
		}
	}()
	r.Cleanup(func() { l.Close() })
}

// overUnix proxies to a server on a Unix socket.
func (r *run) overUnix(path string) {
	r.onUnix(path)
	r.names = append(r.names, path, "<path>")
	log := r.logFile("tcp")
	p := tcpProxy("c").set("access_log", []obj{logTo(log, "%UPSTREAM_HOST%\n")})
	r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", pipe(path))}))
	r.dial("l").send("hello").expect("echo hello").fin().end()
	r.logged(log, 1)
	r.hosts(1)
	r.movedByConnections()
}
