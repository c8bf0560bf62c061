package parity

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sluice-proxy/sluice/test/peer"
)

// multiplexed is an HTTP/2 proxy by script: on is told of each stream. Nothing here
// heeds windows, for little is sent.
type multiplexed struct {
	settings []http2.Setting
	on       func(s *streamOf)
	asked    chan string

	mu  sync.Mutex
	out *http2.Framer
	buf bytes.Buffer
	enc *hpack.Encoder
}

// streamOf is one stream; in closes at its end.
type streamOf struct {
	of *multiplexed
	id uint32
	c  *net.TCPConn
	n  int // of the connection, from 1
	in chan string
}

func (r *run) multiplexed(on func(s *streamOf), settings ...http2.Setting) (peer.Handler, <-chan string) {
	asked := make(chan string, 99)
	var mu sync.Mutex
	n := 0
	return func(_ context.Context, c *net.TCPConn) {
		mu.Lock()
		n++
		m := &multiplexed{settings: settings, on: on, asked: asked, out: http2.NewFramer(c, nil)}
		nth := n
		mu.Unlock()
		m.serve(c, nth)
	}, asked
}

func (m *multiplexed) serve(c *net.TCPConn, nth int) {
	var wg sync.WaitGroup
	streams := map[uint32]*streamOf{}
	defer wg.Wait()
	defer func() {
		for _, s := range streams {
			close(s.in)
		}
	}()
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	m.enc = hpack.NewEncoder(&m.buf)
	in := http2.NewFramer(nil, c)
	in.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	m.write(func() error { return m.out.WriteSettings(m.settings...) })
	for {
		f, err := in.ReadFrame()
		if err != nil {
			return
		}
		s := streams[f.Header().StreamID]
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				m.write(m.out.WriteSettingsAck)
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				m.write(func() error { return m.out.WritePing(true, f.Data) })
			}
		case *http2.MetaHeadersFrame:
			if s != nil {
				m.asked <- "trailers"
				continue
			}
			var fields []string
			for _, h := range f.Fields {
				if h.Name != "x-request-id" {
					fields = append(fields, h.Name+": "+h.Value)
				}
			}
			if f.StreamEnded() {
				fields = append(fields, "END_STREAM")
			}
			m.asked <- strings.Join(fields, " | ")
			s = &streamOf{of: m, id: f.StreamID, c: c, n: nth, in: make(chan string, 999)}
			streams[f.StreamID] = s
			wg.Go(func() { m.on(s) })
		case *http2.DataFrame:
			if s != nil && len(f.Data()) > 0 {
				s.in <- string(f.Data())
			}
			if s != nil && f.StreamEnded() {
				close(s.in)
				delete(streams, s.id)
			}
		case *http2.RSTStreamFrame:
			m.asked <- fmt.Sprintf("RST_STREAM %v", f.ErrCode)
			if s != nil {
				close(s.in)
				delete(streams, s.id)
			}
		case *http2.GoAwayFrame:
			m.asked <- fmt.Sprintf("GOAWAY %v", f.ErrCode)
		}
	}
}

// write: the client may be gone, which is seen elsewhere.
func (m *multiplexed) write(f func() error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = f()
}

func (s *streamOf) headers(end bool, pairs ...string) {
	s.of.write(func() error {
		s.of.buf.Reset()
		for i := 0; i < len(pairs); i += 2 {
			_ = s.of.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}) // to a buffer
		}
		return s.of.out.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: s.of.buf.Bytes(), EndHeaders: true, EndStream: end})
	})
}

func (s *streamOf) say(end bool, text string) {
	s.of.write(func() error { return s.of.out.WriteData(s.id, end, []byte(text)) })
}

func (s *streamOf) reset(code http2.ErrCode) {
	s.of.write(func() error { return s.of.out.WriteRSTStream(s.id, code) })
}

func (s *streamOf) goAway(last uint32, code http2.ErrCode) {
	s.of.write(func() error { return s.of.out.WriteGoAway(last, code, nil) })
}

// echo banners and echoes until the end, and then says end.
func (s *streamOf) echo() {
	s.headers(false, ":status", "200", "x-a", "b")
	s.say(false, "banner ")
	for text := range s.in {
		s.say(false, text)
	}
	s.say(true, "")
}

// drain waits for the stream's end.
func (s *streamOf) drain() {
	for range s.in {
	}
}

func overHTTP2(c obj) obj {
	return http2With(c, obj{})
}

func http2With(c obj, options obj) obj {
	return c.with(obj{"typed_extension_protocol_options": obj{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": obj{
		"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": obj{"http2_protocol_options": options}}}})
}

func called(r *run, ap netip.AddrPort) netip.AddrPort {
	r.call(ap, "host")
	return ap
}

const (
	ofHTTP2 = `cluster\.c\.(upstream_(cx_(total|active|http[123]_total|destroy(_local|_remote)?(_with_active_rq)?|connect_fail|connect_timeout|connect_attempts_exceeded|overflow|protocol_error|close_notify|max_requests)|rq_.*)|http2\..*)`
	// Where a GOAWAY ends a connection Envoy may count an error of the protocol.
	ofHTTP2Closed = `cluster\.c\.upstream_(cx_(total|active|http2_total|destroy(_local|_remote)?(_with_active_rq)?|close_notify)|rq_.*)`
	logHTTP2      = `flags=%RESPONSE_FLAGS% down-close=%DOWNSTREAM_LOCAL_CLOSE_REASON% failure=%UPSTREAM_TRANSPORT_FAILURE_REASON% received=%BYTES_RECEIVED% sent=%BYTES_SENT% attempts=%UPSTREAM_REQUEST_ATTEMPT_COUNT% details=%CONNECTION_TERMINATION_DETAILS% host=%UPSTREAM_HOST%` + "\n"
)

// tunnelledHTTP2 starts a proxy whose one host is h, in HTTP/2.
func (r *run) tunnelledHTTP2(h peer.Handler, config obj, more func(obj) obj, ofCluster func(obj) obj) (log string) {
	r.Helper()
	log = r.logFile("tcp")
	p := tcpProxy("c").set("tunneling_config", config).set("access_log", []obj{logTo(log, logHTTP2)})
	if more != nil {
		p = more(p)
	}
	c := overHTTP2(cluster("c", endpoint(r.serve("forwarder", h))))
	if ofCluster != nil {
		c = ofCluster(c)
	}
	r.start(static([]obj{listener("l", chain(p))}, []obj{c}))
	return log
}

// ends notes the end, whenever it comes.
func (c *client) ends() {
	data, end, err := peer.ReadToEnd(c, 8*time.Second)
	c.r.note("%s: got %s, then %s, error %v", c.name, short(data), end, err)
}

func (r *run) toldInAll(asked <-chan string, n int) {
	r.Helper()
	for range n {
		r.asked(asked)
	}
}

// said is a story of one client that says hello and FIN, whatever comes.
func said(name string, config obj, n int, on func(s *streamOf), more func(obj) obj) scenario {
	return scenario{"tunnel_http2_" + name, func(r *run) {
		h, asked := r.multiplexed(on)
		log := r.tunnelledHTTP2(h, config, more, nil)
		r.dial("l").send("hello").fin().ends()
		r.toldInAll(asked, n)
		r.logged(log, 1)
		r.moved(ofHTTP2, ofTCPNoBytes)
	}}
}

func heard(name string, n int, on func(s *streamOf)) scenario {
	return scenario{"tunnel_http2_" + name, func(r *run) {
		h, asked := r.multiplexed(on)
		log := r.tunnelledHTTP2(h, obj{"hostname": "a.example:443"}, nil, nil)
		r.dial("l").ends()
		r.toldInAll(asked, n)
		r.logged(log, 1)
		r.moved(ofHTTP2, ofTCPNoBytes)
	}}
}

func whatever(status string, end bool) func(*streamOf) {
	return func(s *streamOf) { s.headers(end, ":status", status); s.drain() }
}

// tunnellingHTTP2: tunneling_config over HTTP/2.
var tunnellingHTTP2 = []scenario{
	said("by_connect", obj{"hostname": "a.example:443"}, 1, (*streamOf).echo, nil),
	said("by_post", obj{"hostname": "a.example", "use_post": true}, 1, (*streamOf).echo, nil),
	said("by_post_to_a_path", obj{"hostname": "a.example", "use_post": true, "post_path": "/p"}, 1, (*streamOf).echo, nil),
	said("with_headers", obj{"hostname": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%:1", "headers_to_add": []obj{
		{"header": obj{"key": "X-A", "value": "one"}}, {"header": obj{"key": "x-a", "value": "two"}},
		{"header": obj{"key": "x-b", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}}, 1, (*streamOf).echo, nil),
	said("trailers_of_the_answer", obj{"hostname": "a", "propagate_response_headers": true, "propagate_response_trailers": true}, 1, func(s *streamOf) {
		s.headers(false, ":status", "200")
		s.drain()
		s.say(false, "bye")
		s.headers(true, "x-t", "u")
	}, nil),
	said("answer_ends_after_the_client", obj{"hostname": "a"}, 1, func(s *streamOf) {
		s.headers(false, ":status", "200")
		s.drain()
		s.say(false, "after your end")
		s.say(true, "")
	}, nil),
	heard("refused", 2, whatever("403", true)),
	heard("refused_with_a_body", 2, whatever("503", false)),
	heard("moved", 2, whatever("302", true)),
	heard("with_204", 2, whatever("204", true)),
	heard("with_an_end_at_once", 2, whatever("200", true)),
	heard("after_an_interim_answer", 2, func(s *streamOf) {
		s.headers(false, ":status", "100")
		s.headers(false, ":status", "200")
		s.say(true, "hi")
		s.drain()
	}),
	heard("reset_before_the_answer", 1, func(s *streamOf) { s.reset(http2.ErrCodeRefusedStream); s.drain() }),
	heard("cancelled_before_the_answer", 1, func(s *streamOf) { s.reset(http2.ErrCodeCancel); s.drain() }),
	heard("reset_in_the_middle", 1, func(s *streamOf) {
		s.headers(false, ":status", "200")
		s.say(false, "some")
		time.Sleep(breath)
		s.reset(http2.ErrCodeInternal)
	}),
	heard("reset_without_error", 1, func(s *streamOf) {
		s.headers(false, ":status", "200")
		s.say(true, "all")
		time.Sleep(breath)
		s.reset(http2.ErrCodeNo)
	}),
	heard("answered_first", 2, func(s *streamOf) {
		s.headers(false, ":status", "200")
		s.say(true, "all of it")
		s.drain()
	}),
	heard("connection_lost_before_the_answer", 1, func(s *streamOf) { s.c.Close() }),
	heard("connection_reset_before_the_answer", 1, func(s *streamOf) { _ = peer.Reset(s.c) }),
	heard("connection_lost_in_the_middle", 1, func(s *streamOf) {
		s.headers(false, ":status", "200")
		s.say(false, "some")
		time.Sleep(breath)
		s.c.Close()
	}),
	heard("goaway_before_the_answer", 1, func(s *streamOf) {
		s.goAway(0, http2.ErrCodeNo)
		s.drain()
	}),
	{"tunnel_http2_client_resets", func(r *run) {
		h, asked := r.multiplexed((*streamOf).echo)
		log := r.tunnelledHTTP2(h, obj{"hostname": "a"}, nil, nil)
		c := r.dial("l").send("hello").expect("banner hello")
		c.reset()
		r.toldInAll(asked, 2)
		r.logged(log, 1)
		r.moved(ofHTTP2, ofTCP)
	}},
	{"tunnel_http2_client_leaves_while_asked", func(r *run) {
		h, asked := r.multiplexed((*streamOf).drain)
		log := r.tunnelledHTTP2(h, obj{"hostname": "a"}, nil, nil)
		c := r.dial("l")
		r.asked(asked)
		c.reset()
		r.asked(asked)
		r.logged(log, 1)
		r.moved(ofHTTP2, ofTCP)
	}},
	{"tunnel_http2_never_answers", func(r *run) {
		h, asked := r.multiplexed((*streamOf).drain)
		log := r.tunnelledHTTP2(h, obj{"hostname": "a"}, func(p obj) obj { return p.set("idle_timeout", "1s") }, nil)
		r.dial("l").send("hello").ends()
		r.toldInAll(asked, 2)
		r.logged(log, 1)
		r.moved(ofHTTP2, ofTCP)
	}},
	{"tunnel_http2_idle", func(r *run) {
		h, asked := r.multiplexed((*streamOf).echo)
		log := r.tunnelledHTTP2(h, obj{"hostname": "a"}, func(p obj) obj { return p.set("idle_timeout", "1s") }, nil)
		r.dial("l").send("hello").expect("banner hello").ends()
		r.toldInAll(asked, 2)
		r.logged(log, 1)
		r.moved(ofHTTP2, ofTCP)
	}},
	{"tunnel_http2_shares_a_connection", func(r *run) {
		h, _ := r.multiplexed((*streamOf).echo)
		log := r.tunnelledHTTP2(h, obj{"hostname": "a"}, nil, nil)
		var cs []*client
		for i := range 5 {
			cs = append(cs, r.dial("l").as(fmt.Sprint("client ", i)).send("hello").expect("banner hello"))
		}
		r.moved(ofHTTP2, ofTCP)
		for _, c := range cs {
			c.fin().ends()
		}
		r.logged(log, 5)
		r.moved(ofHTTP2, ofTCP)
	}},
	{"tunnel_http2_streams_are_limited_by_the_peer", func(r *run) {
		h, _ := r.multiplexed((*streamOf).echo, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 2})
		r.tunnelledHTTP2(h, obj{"hostname": "a"}, nil, nil)
		for i := range 5 {
			r.dial("l").as(fmt.Sprint("client ", i)).send("hello").expect("banner hello")
		}
		r.moved(ofHTTP2, ofTCP)
	}},
	{"tunnel_http2_streams_are_limited_by_the_cluster", func(r *run) {
		h, _ := r.multiplexed((*streamOf).echo)
		r.tunnelledHTTP2(h, obj{"hostname": "a"}, nil, func(c obj) obj {
			return http2With(c, obj{"max_concurrent_streams": 1})
		})
		for i := range 3 {
			r.dial("l").as(fmt.Sprint("client ", i)).send("hello").expect("banner hello")
		}
		r.moved(ofHTTP2, ofTCP)
	}},
	{"tunnel_http2_by_the_older_field", func(r *run) {
		h, _ := r.multiplexed((*streamOf).echo)
		r.tunnelledHTTP2(h, obj{"hostname": "a"}, nil, func(c obj) obj {
			delete(c, "typed_extension_protocol_options")
			return c.with(obj{"http2_protocol_options": obj{}})
		})
		r.dial("l").send("hello").expect("banner hello").fin().ends()
		r.moved(ofHTTP2, ofTCP)
	}},
	{"tunnel_http2_breaker_of_requests", func(r *run) {
		h, _ := r.multiplexed((*streamOf).echo)
		log := r.tunnelledHTTP2(h, obj{"hostname": "a"}, nil, func(c obj) obj {
			return c.with(obj{"circuit_breakers": obj{"thresholds": []obj{{"max_requests": 1}}}})
		})
		r.dial("l").as("first").send("hello").expect("banner hello")
		r.dial("l").as("second").ends()
		r.logged(log, 1)
		r.moved(ofHTTP2, ofTCPNoBytes)
	}},
	{"tunnel_http2_breaker_of_connections", func(r *run) {
		h, _ := r.multiplexed((*streamOf).echo)
		log := r.tunnelledHTTP2(h, obj{"hostname": "a"}, nil, func(c obj) obj {
			return c.with(obj{"circuit_breakers": obj{"thresholds": []obj{{"max_connections": 1}}}})
		})
		r.dial("l").as("first").send("hello").expect("banner hello")
		r.dial("l").as("second").ends()
		r.logged(log, 1)
		r.moved(ofHTTP2, ofTCPNoBytes)
	}},
	{"tunnel_http2_max_requests_of_a_connection", func(r *run) {
		h, _ := r.multiplexed((*streamOf).echo)
		r.tunnelledHTTP2(h, obj{"hostname": "a"}, nil, func(c obj) obj {
			return c.with(obj{"max_requests_per_connection": 2})
		})
		for i := range 3 {
			r.dial("l").as(fmt.Sprint("client ", i)).send("hello").expect("banner hello").fin().ends()
		}
		r.moved(ofHTTP2Closed, ofTCP, `cluster\.c\.upstream_cx_max_requests`)
	}},
	{"tunnel_http2_idle_connection_ends", func(r *run) {
		h, _ := r.multiplexed((*streamOf).echo)
		r.tunnelledHTTP2(h, obj{"hostname": "a"}, nil, func(c obj) obj {
			return c.with(obj{"common_http_protocol_options": obj{"idle_timeout": "0.5s"}, "http2_protocol_options": obj{}, "typed_extension_protocol_options": obj{}})
		})
		r.dial("l").send("hello").expect("banner hello").fin().ends()
		r.until("upstream_cx_idle_timeout", 1)
		r.moved(ofHTTP2, ofTCP, `cluster\.c\.upstream_cx_idle_timeout`)
	}},
	{"tunnel_http2_host_ends_an_idle_connection", func(r *run) {
		h, _ := r.multiplexed(func(s *streamOf) { s.echo(); time.Sleep(breath); s.c.Close() })
		r.tunnelledHTTP2(h, obj{"hostname": "a"}, nil, nil)
		r.dial("l").send("hello").expect("banner hello").fin().ends()
		r.until("upstream_cx_destroy", 1)
		r.moved(ofHTTP2, ofTCP)
	}},
	{"tunnel_http2_once_the_client_has_spoken", func(r *run) {
		h, asked := r.multiplexed((*streamOf).echo)
		log := r.tunnelledHTTP2(h, obj{"hostname": "a"}, func(p obj) obj {
			return p.set("upstream_connect_mode", "ON_DOWNSTREAM_DATA").set("max_early_data_bytes", 1024)
		}, nil)
		r.dial("l").send("hello").expect("banner hello").fin().ends()
		r.asked(asked)
		r.logged(log, 1)
		r.moved(ofHTTP2, ofTCP)
	}},
	{"tunnel_http2_not_for_one_that_says_so", func(r *run) {
		no := network("set_filter_state", "Config", obj{"on_new_connection": []obj{{"object_key": "envoy.tcp_proxy.disable_tunneling", "format_string": obj{"text_format_source": obj{"inline_string": "true"}}}}})
		at, seen := r.recorder(peer.Echo)
		r.start(static([]obj{listener("l", chain(no, tcpProxy("c").set("tunneling_config", obj{"hostname": "a"})))}, []obj{overHTTP2(cluster("c", endpoint(at)))}))
		r.dial("l").send("hello").expect("hello").fin().ends()
		r.saw(seen)
		r.moved(ofHTTP2, ofTCP)
	}},
	{"tunnel_http2_goaway_with_streams", func(r *run) {
		h, _ := r.multiplexed(func(s *streamOf) {
			if s.n == 1 {
				s.headers(false, ":status", "200")
				s.say(false, "one ")
				s.goAway(s.id, http2.ErrCodeNo)
				for text := range s.in {
					s.say(false, text)
				}
				s.say(true, "")
				return
			}
			s.echo()
		})
		r.tunnelledHTTP2(h, obj{"hostname": "a"}, nil, nil)
		one := r.dial("l").as("first").send("hello").expect("one hello")
		time.Sleep(breath)
		r.dial("l").as("second").send("hello").expect("banner hello").fin().ends()
		one.send("more").expect("more").fin().ends()
		r.moved(ofHTTP2Closed, ofTCP)
	}},
	{"tunnel_http2_second_attempt", func(r *run) {
		var mu sync.Mutex
		n := 0
		h, asked := r.multiplexed(func(s *streamOf) {
			mu.Lock()
			n++
			nth := n
			mu.Unlock()
			if nth == 1 {
				whatever("503", true)(s)
				return
			}
			s.echo()
		})
		log := r.tunnelledHTTP2(h, obj{"hostname": "a.example:443"}, func(p obj) obj { return p.set("max_connect_attempts", 2) }, nil)
		r.dial("l").send("hello").expect("banner hello").fin().ends()
		r.toldInAll(asked, 3)
		r.logged(log, 1)
		r.moved(ofHTTP2, ofTCP)
	}},
	{"tunnel_http2_nobody_there", func(r *run) {
		log := r.logFile("tcp")
		p := tcpProxy("c").set("tunneling_config", obj{"hostname": "a"}).set("access_log", []obj{logTo(log, logHTTP2)})
		r.start(static([]obj{listener("l", chain(p))}, []obj{overHTTP2(cluster("c", endpoint(called(r, r.refused()))))}))
		r.dial("l").ends()
		r.logged(log, 1)
		r.moved(ofHTTP2, ofTCP)
	}},
	{"tunnel_http2_connect_timeout", func(r *run) {
		log := r.logFile("tcp")
		p := tcpProxy("c").set("tunneling_config", obj{"hostname": "a"}).set("access_log", []obj{logTo(log, logHTTP2)})
		r.start(static([]obj{listener("l", chain(p))}, []obj{overHTTP2(cluster("c", endpoint(called(r, r.hole().Addr())))).with(obj{"connect_timeout": "0.5s"})}))
		r.dial("l").ends()
		r.logged(log, 1)
		r.moved(ofHTTP2, ofTCP)
	}},
	{"tunnel_http2_host_speaks_something_else", func(r *run) {
		log := r.tunnelledHTTP2(peer.Banner("SSH-2.0-x and so on, which is no frame\r\n"), obj{"hostname": "a"}, nil, nil)
		r.dial("l").ends()
		r.logged(log, 1)
		r.moved(ofHTTP2, ofTCP)
	}},
	{"tunnel_http2_of_many_bytes", func(r *run) {
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			done := make(chan error)
			go func() {
				_, err := io.Copy(peer.NewChecker(1), q.Body)
				done <- err
			}()
			_, err := io.Copy(w, io.LimitReader(peer.NewSource(2, 1<<20), 1<<20))
			if err := <-done; err != nil {
				panic(http.ErrAbortHandler)
			}
			_ = err // the client counts
		}), Protocols: new(http.Protocols)}
		server.Protocols.SetUnencryptedHTTP2(true)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			r.Fatal(err)
		}
		go func() { _ = server.Serve(ln) }()
		r.Cleanup(func() { _ = server.Close() })
		p := tcpProxy("c").set("tunneling_config", obj{"hostname": "a.example:443"})
		r.start(static([]obj{listener("l", chain(p))}, []obj{overHTTP2(cluster("c", endpoint(ln.Addr().(*net.TCPAddr).AddrPort())))}))
		var wg sync.WaitGroup
		results := make([]string, 4)
		for i := range results {
			c := r.dial("l")
			wg.Go(func() {
				go func() {
					_, _ = io.Copy(struct{ io.Writer }{c}, io.LimitReader(peer.NewSource(1, 1<<20), 1<<20)) // the server checks
					c.fin()
				}()
				_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
				n, err := io.Copy(peer.NewChecker(2), c)
				results[i] = fmt.Sprintf("%d bytes came, error %v", n, err)
			})
		}
		wg.Wait()
		slices.Sort(results)
		for _, s := range results {
			r.note("%s", s)
		}
		r.moved(`cluster\.c\.upstream_(cx_(total|active)|rq_(total|active))`, `tcp\..*_bytes_total`)
	}},
}
