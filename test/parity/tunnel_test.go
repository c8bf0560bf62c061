package parity

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http/httputil"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

// forwarder is an HTTP/1.1 proxy that says what it was asked, answers with head,
// and is then what is behind the tunnel: of a POST, in chunks.
func (r *run) forwarder(head string, then func(in io.Reader, out io.Writer)) (peer.Handler, <-chan string) {
	asked := make(chan string, 9)
	return func(_ context.Context, c *net.TCPConn) {
		in := bufio.NewReader(c)
		var lines []string
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				asked <- "the end within the head"
				return
			}
			if line = strings.TrimSpace(line); line == "" {
				break
			}
			lines = append(lines, line)
		}
		asked <- strings.Join(lines, " | ")
		if _, err := io.WriteString(c, head); err != nil || then == nil {
			return
		}
		if strings.HasPrefix(lines[0], "POST") {
			out := httputil.NewChunkedWriter(c)
			then(httputil.NewChunkedReader(in), out)
			if out.Close() == nil {
				_, _ = io.WriteString(c, "\r\n") // the client may be gone
			}
		} else {
			then(in, c)
		}
		_ = c.CloseWrite() // the client may be gone
		_, _ = io.Copy(io.Discard, in)
	}, asked
}

// banners and echoes until the end.
func banner(in io.Reader, out io.Writer) {
	if _, err := io.WriteString(out, "banner "); err == nil {
		_, _ = io.Copy(out, in) // the end is the client's
	}
}

// mute reads and says nothing.
func mute(_ context.Context, c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) } // to the end

const tunnelLog = `flags=%RESPONSE_FLAGS% down-close=%DOWNSTREAM_LOCAL_CLOSE_REASON% failure=%UPSTREAM_TRANSPORT_FAILURE_REASON% received=%BYTES_RECEIVED% sent=%BYTES_SENT% attempts=%UPSTREAM_REQUEST_ATTEMPT_COUNT%` + "\n"

const ofTunnel = `cluster\.c\.upstream_(cx_(total|destroy(_local|_remote)?(_with_active_rq)?|connect_fail|connect_attempts_exceeded)|rq_total)`

// tunnelled starts a proxy whose one host is h.
func (r *run) tunnelled(h peer.Handler, config obj, more func(obj) obj) (log string) {
	r.Helper()
	log = r.logFile("tcp")
	p := tcpProxy("c").set("tunneling_config", config).set("access_log", []obj{logTo(log, tunnelLog)})
	if more != nil {
		p = more(p)
	}
	r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(r.serve("forwarder", h)))}))
	return log
}

func (r *run) asked(asked <-chan string) {
	r.Helper()
	select {
	case s := <-asked:
		r.note("asked: %s", s)
	case <-time.After(5 * time.Second):
		r.note("nothing was asked")
	}
}

func digs(name string, config obj) scenario {
	return scenario{"tunnel_" + name, func(r *run) {
		head := "HTTP/1.1 200 OK\r\nx-a: b\r\n\r\n"
		if config["use_post"] == true {
			head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
		}
		h, asked := r.forwarder(head, banner)
		log := r.tunnelled(h, config, nil)
		r.dial("l").send("hello").expect("banner hello").fin().end()
		r.asked(asked)
		r.logged(log, 1)
		r.moved(ofTCP)
	}}
}

// fills: the answer opens none.
func fills(name, head string) scenario {
	return scenario{"tunnel_" + name, func(r *run) {
		h, asked := r.forwarder(head, nil)
		log := r.tunnelled(h, obj{"hostname": "a.example:443"}, nil)
		r.dial("l").end()
		r.asked(asked)
		r.logged(log, 1)
		r.moved(ofTunnel, ofTCP)
	}}
}

// tunnelling: tunneling_config over HTTP/1.1.
var tunnelling = []scenario{
	digs("by_connect", obj{"hostname": "a.example:443"}),
	digs("by_post", obj{"hostname": "a.example", "use_post": true}),
	digs("by_post_to_a_path", obj{"hostname": "a.example", "use_post": true, "post_path": "/p"}),
	digs("to_what_a_command_says", obj{"hostname": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%:%UPSTREAM_HOST_NAME_WITHOUT_PORT%"}),
	digs("with_headers", obj{"hostname": "a", "headers_to_add": []obj{
		{"header": obj{"key": "X-A", "value": "one"}}, {"header": obj{"key": "x-a", "value": "two"}},
		{"header": obj{"key": "X-B", "value": "one"}}, {"header": obj{"key": "x-b", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
		{"header": obj{"key": "x-c", "value": "one"}, "append_action": "OVERWRITE_IF_EXISTS"},
		{"header": obj{"key": "x-d", "value": "one"}}, {"header": obj{"key": "x-d", "value": "two"}, "append_action": "ADD_IF_ABSENT"}}}),
	fills("refused", "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"),
	fills("refused_for_now", "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno"),
	fills("moved", "HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n"),
	fills("without_an_answer", ""),
	{"tunnel_by_any_status_of_success", func(r *run) {
		h, _ := r.forwarder("HTTP/1.1 204 No Content\r\n\r\n", banner)
		r.tunnelled(h, obj{"hostname": "a.example:443"}, nil)
		r.dial("l").send("hello").expect("banner hello").fin().end()
	}},
	{"tunnel_after_an_interim_answer", func(r *run) {
		h, _ := r.forwarder("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", banner)
		r.tunnelled(h, obj{"hostname": "a.example:443"}, nil)
		r.dial("l").send("hello").expect("banner hello").fin().end()
	}},
	{"tunnel_whose_proxy_never_answers", func(r *run) {
		log := r.tunnelled(mute, obj{"hostname": "a"}, func(p obj) obj { return p.set("idle_timeout", "1s") })
		r.dial("l").send("hello").end()
		r.logged(log, 1)
		r.moved(ofTunnel, ofTCP)
	}},
	{"tunnel_client_leaves_while_asked", func(r *run) {
		r.tunnelled(mute, obj{"hostname": "a"}, nil)
		c := r.dial("l")
		time.Sleep(breath)
		c.reset()
		r.moved(ofTCP)
	}},
	{"tunnel_second_attempt", func(r *run) {
		n := 0
		good, asked := r.forwarder("HTTP/1.1 200 OK\r\n\r\n", banner)
		bad, _ := r.forwarder("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", nil)
		h := func(ctx context.Context, c *net.TCPConn) {
			if n++; n == 1 {
				bad(ctx, c)
				return
			}
			good(ctx, c)
		}
		log := r.tunnelled(h, obj{"hostname": "a.example:443"}, func(p obj) obj { return p.set("max_connect_attempts", 2) })
		r.dial("l").send("hello").expect("banner hello").fin().end()
		r.asked(asked)
		r.logged(log, 1)
		r.moved(ofTunnel, ofTCP)
	}},
	{"tunnel_post_that_is_cut_off", func(r *run) {
		h, _ := r.forwarder("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbye", nil)
		r.tunnelled(h, obj{"hostname": "a", "use_post": true}, nil)
		r.dial("l").expect("bye").end()
	}},
	{"tunnel_of_many_bytes", func(r *run) {
		h, _ := r.forwarder("HTTP/1.1 200 OK\r\n\r\n", func(in io.Reader, out io.Writer) {
			n, _ := io.CopyN(out, in, 1<<20)
			_ = n // the client counts them
		})
		r.tunnelled(h, obj{"hostname": "a"}, nil)
		c := r.dial("l")
		go func() { _, _ = io.Copy(struct{ io.Writer }{c}, io.LimitReader(peer.NewSource(1, 1<<20), 1<<20)) }()
		n, err := io.Copy(peer.NewChecker(1), io.LimitReader(c, 1<<20))
		r.note("%d bytes came back, error %v", n, err)
	}},
	{"tunnel_not_for_one_that_says_so", func(r *run) {
		log := r.logFile("tcp")
		p := tcpProxy("c").set("tunneling_config", obj{"hostname": "a"}).set("access_log", []obj{logTo(log, tunnelLog)})
		no := network("set_filter_state", "Config", obj{"on_new_connection": []obj{{"object_key": "envoy.tcp_proxy.disable_tunneling", "format_string": obj{"text_format_source": obj{"inline_string": "true"}}}}})
		at, seen := r.recorder(peer.Echo)
		r.start(static([]obj{listener("l", chain(no, p))}, []obj{cluster("c", endpoint(at))}))
		r.dial("l").send("hello").expect("hello").fin().end()
		r.saw(seen)
	}},
}
