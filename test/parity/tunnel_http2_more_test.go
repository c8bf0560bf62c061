package parity

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3" // resources of streams name it
	"golang.org/x/net/http2"

	"github.com/sluice-proxy/sluice/test/peer"
	"github.com/sluice-proxy/sluice/test/pki"
)

// forwarderOverTLS is a proxy of HTTP that speaks what protocols say, and tells what it
// was asked; socket is what its clients need.
func (r *run) forwarderOverTLS(protocols ...string) (at netip.AddrPort, socket obj, asked <-chan string) {
	r.Helper()
	ca := pki.New(r.TB, "ca")
	leaf := ca.Issue([]string{"server.example"})
	cert, err := tls.X509KeyPair(leaf.PEM, leaf.Key)
	if err != nil {
		r.Fatal(err)
	}
	told := make(chan string, 99)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		told <- strings.Join([]string{q.Method, q.Host, q.Proto, q.TLS.ServerName, q.TLS.NegotiatedProtocol}, " ")
		if q.ProtoMajor == 1 {
			c, b, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nbanner ") // the client counts
			_, _ = io.Copy(struct{ io.Writer }{c}, b)
			return
		}
		_, _ = io.WriteString(w, "banner ")
		_ = http.NewResponseController(w).Flush()
		for b := make([]byte, 99); ; {
			n, err := q.Body.Read(b)
			_, _ = w.Write(b[:n])
			_ = http.NewResponseController(w).Flush()
			if err != nil {
				return
			}
		}
	}), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: protocols}, Protocols: new(http.Protocols)}
	for _, p := range protocols {
		server.Protocols.SetHTTP2(server.Protocols.HTTP2() || p == "h2")
		server.Protocols.SetHTTP1(server.Protocols.HTTP1() || p == "http/1.1")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.Fatal(err)
	}
	go func() { _ = server.ServeTLS(ln, "", "") }()
	r.Cleanup(func() { _ = server.Close() })
	at = ln.Addr().(*net.TCPAddr).AddrPort()
	r.call(at, "forwarder")
	return at, obj{"transport_socket": obj{"name": "envoy.transport_sockets.tls", "typed_config": obj{
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "sni": "server.example",
		"common_tls_context": obj{"validation_context": obj{"trusted_ca": obj{"inline_string": string(ca.PEM)}}}}}}, told
}

func byALPN(c obj) obj {
	return c.with(obj{"typed_extension_protocol_options": obj{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": obj{
		"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "auto_config": obj{}}}})
}

// secureTunnel is a story of a client whose tunnel's proxy speaks TLS.
func secureTunnel(name string, options func(obj) obj, protocols ...string) scenario {
	return scenario{"tunnel_http2_over_tls" + name, func(r *run) {
		at, socket, asked := r.forwarderOverTLS(protocols...)
		log := r.logFile("tcp")
		p := tcpProxy("c").set("tunneling_config", obj{"hostname": "a.example:443"}).set("access_log", []obj{logTo(log, logHTTP2)})
		r.start(static([]obj{listener("l", chain(p))}, []obj{options(cluster("c", endpoint(at))).with(socket)}))
		for range 2 {
			r.dial("l").send("hello").expect("banner hello").fin().ends()
			r.asked(asked)
		}
		r.logged(log, 2)
		r.moved(`cluster\.c\.upstream_(cx_(total|http1_total|http2_total|connect_fail)|rq_(total|pending_total))`, `cluster\.c\.ssl\.(handshake|connection_error)`)
	}}
}

// windows tells what windows a client of HTTP/2 has.
func windows(told chan<- string) peer.Handler {
	return func(_ context.Context, c *net.TCPConn) {
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(c, c)
		_ = f.WriteSettings()
		for {
			one, err := f.ReadFrame()
			if err != nil {
				return
			}
			switch one := one.(type) {
			case *http2.SettingsFrame:
				if v, ok := one.Value(http2.SettingInitialWindowSize); ok {
					told <- http2.Setting{ID: http2.SettingInitialWindowSize, Val: v}.String()
				}
			case *http2.WindowUpdateFrame:
				told <- http2.Setting{ID: http2.SettingInitialWindowSize, Val: one.Increment}.String() + " on all"
			}
		}
	}
}

func flooding(name string, n int, write func(s *streamOf) error) scenario {
	return heard("flood_of_"+name, 1, func(s *streamOf) {
		s.headers(false, ":status", "200")
		s.say(false, "some")
		time.Sleep(breath)
		s.of.write(func() error {
			for range n {
				if err := write(s); err != nil {
					return err
				}
			}
			return nil
		})
		s.drain()
	})
}

func refusedHTTP2(name, words string, more obj) scenario {
	return scenario{"reject_http2_" + name, func(r *run) {
		r.rejects(static([]obj{proxyTo("l", "c")}, []obj{cluster("c").with(more)}), words)
	}}
}

func options2(o obj) obj { return http2With(obj{}, o) }

// tunnellingHTTP2Securely are more of tunnels over HTTP/2: TLS, options, hostile hosts.
var tunnellingHTTP2Securely = []scenario{
	secureTunnel("", overHTTP2, "h2"),
	secureTunnel("_by_what_the_host_agrees_to", byALPN, "h2", "http/1.1"),
	secureTunnel("_to_one_that_speaks_http1", byALPN, "http/1.1"),
	{"tunnel_http2_over_tls_of_another_authority", func(r *run) {
		at, _, _ := r.forwarderOverTLS("h2")
		_, other, _ := r.forwarderOverTLS("h2")
		p := tcpProxy("c").set("tunneling_config", obj{"hostname": "a.example:443"})
		r.start(static([]obj{listener("l", chain(p))}, []obj{overHTTP2(cluster("c", endpoint(at))).with(other)}))
		r.dial("l").ends()
		r.moved(ofHTTP2, `cluster\.c\.ssl\.(handshake|connection_error|fail_verify_error)`)
	}},
	{"tunnel_http2_windows", func(r *run) {
		told := make(chan string, 9)
		p := tcpProxy("c").set("tunneling_config", obj{"hostname": "a"})
		c := http2With(cluster("c", endpoint(r.serve("forwarder", windows(told)))), obj{"initial_stream_window_size": 70000, "initial_connection_window_size": 80000})
		r.start(static([]obj{listener("l", chain(p))}, []obj{c}))
		r.dial("l")
		r.toldInAll(told, 2)
	}},
	{"tunnel_http2_keepalive", func(r *run) {
		h, _ := r.multiplexed((*streamOf).echo)
		log := r.tunnelledHTTP2(h, obj{"hostname": "a"}, nil, func(c obj) obj {
			return http2With(c, obj{"connection_keepalive": obj{"interval": "0.3s", "timeout": "5s"}})
		})
		c := r.dial("l").send("hello").expect("banner hello")
		time.Sleep(time.Second)
		c.send("more").expect("more").fin().ends()
		r.logged(log, 1)
		r.moved(ofHTTP2, ofTCP)
	}},
	flooding("empty_frames", 9, func(s *streamOf) error { return s.of.out.WriteData(s.id, false, nil) }),
	flooding("priorities", 999, func(s *streamOf) error { return s.of.out.WritePriority(s.id, http2.PriorityParam{Weight: 1}) }),
	flooding("windows", 99, func(s *streamOf) error { return s.of.out.WriteWindowUpdate(0, 1) }),
	heard("answer_of_too_many_headers", 2, func(s *streamOf) {
		pairs := []string{":status", "200"}
		for range 90 {
			pairs = append(pairs, "x", strings.Repeat("y", 1000))
		}
		s.headers(false, pairs...)
		s.drain()
	}),
	heard("bytes_before_the_answer", 2, func(s *streamOf) { s.say(false, "x"); s.drain() }),
	heard("answer_without_a_status", 2, func(s *streamOf) { s.headers(false, "x", "y"); s.drain() }),
	counted("of_a_tunnel", func(r *run) obj {
		h, _ := r.multiplexed((*streamOf).echo)
		return cluster("c", endpoint(r.serve("server", h)))
	},
		tcpProxy("c").set("tunneling_config", obj{"hostname": "a"}), options2(obj{}), func(r *run) {
			r.dial("l").send("1").expect("banner 1")
			r.dial("l").send("1").expect("banner 1")
		}),
	refusedHTTP2("without_streams", "Http2ProtocolOptionsValidationError.MaxConcurrentStreams: value must be inside range [1, 2147483647]", options2(obj{"max_concurrent_streams": 0})),
	refusedHTTP2("with_a_small_window", "Http2ProtocolOptionsValidationError.InitialStreamWindowSize: value must be inside range [65535, 2147483647]", options2(obj{"initial_stream_window_size": 1})),
	refusedHTTP2("with_a_small_window_by_the_older_field", "Http2ProtocolOptionsValidationError.InitialConnectionWindowSize: value must be inside range [65535, 2147483647]", obj{"http2_protocol_options": obj{"initial_connection_window_size": 1}}),
	refusedHTTP2("with_push", "server push is not supported by Envoy and can not be enabled via a SETTINGS parameter.", options2(obj{"custom_settings_parameters": []obj{{"identifier": 2, "value": 1}}})),
	refusedHTTP2("with_a_setting_twice", "the {max_concurrent_streams} HTTP/2 SETTINGS parameter(s) can not be configured through both named and custom parameters", options2(obj{"max_concurrent_streams": 7, "custom_settings_parameters": []obj{{"identifier": 3, "value": 1}}})),
	refusedHTTP2("by_alpn_without_tls", "ALPN configured for cluster c which has a non-ALPN transport socket", byALPN(obj{})),
}

var tunnelStories = []story{
	{"tunnel_http2_cluster_changes", func(s *stream) {
		c, p := s.tunnelled()
		s.cds("1", c)
		s.lds("1", listener("l", chain(p)))
		one := s.dialOnce("l").send("hello").expect("banner hello")
		s.cds("2", c.with(obj{"connect_timeout": "7s"}))
		two := s.dialOnce("l").as("second").send("hello").expect("banner hello")
		one.send("more").expect("more").fin().ends()
		two.send("more").expect("more").fin().ends()
		s.moved(`cluster\.c\.upstream_(cx_(total|active|destroy)|rq_(total|active))`)
	}},
	{"tunnel_http2_cluster_goes", func(s *stream) {
		c, p := s.tunnelled()
		s.cds("1", c)
		s.lds("1", listener("l", chain(p)))
		one := s.dialOnce("l").send("hello").expect("banner hello")
		s.cds("2")
		one.send("more").expect("more").fin().ends()
	}},
	{"tunnel_http2_host_leaves", func(s *stream) {
		h, _ := s.multiplexed((*streamOf).echo)
		there, other := endpoint(s.serve("forwarder", h)), endpoint(s.serve("other", h))
		s.open()
		s.cds("1", overHTTP2(edsCluster("c")))
		s.eds("1", assignment("c", there))
		s.lds("1", listener("l", chain(tcpProxy("c").set("tunneling_config", obj{"hostname": "a"}))))
		one := s.dialOnce("l").send("hello").expect("banner hello")
		s.eds("2", assignment("c", other))
		s.stand("cluster.c.membership_change", 2)
		s.dialOnce("l").as("second").send("hello").expect("banner hello").fin().ends()
		one.send("more").expect("more").fin().ends()
		s.until("upstream_cx_destroy", 1)
		s.moved(`cluster\.c\.upstream_(cx_(total|active|destroy)|rq_(total|active))`)
	}},
}

func (s *stream) tunnelled() (c, p obj) {
	h, _ := s.multiplexed((*streamOf).echo)
	s.open()
	return overHTTP2(cluster("c", endpoint(s.serve("forwarder", h)))), tcpProxy("c").set("tunneling_config", obj{"hostname": "a"})
}

func (s *stream) dialOnce(l string) *client { s.Helper(); s.settle(); return s.dial(l) }
