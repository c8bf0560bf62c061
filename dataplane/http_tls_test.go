package dataplane

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// secureWeb serves HTTP routes behind TLS. client speaks HTTP/2 if it is told to.
func secureWeb(t *testing.T, filters []api.Filter) (w *world, l *api.Listener, client func(h2 bool) *http.Client) {
	t.Helper()
	i := newIdentities(t)
	w = newWorld(t)
	w.cluster("web", web(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %q", r.Header.Get("X-Forwarded-Proto"), r.Header.Get("X-Forwarded-Client-Cert"))
		if r.URL.Path == "/large" {
			io.WriteString(w, strings.Repeat("x", 4<<20))
		}
	}))
	d := i.down()
	d.ALPN = []string{"h2", "http/1.1"}
	l = secured(httpListener(free(t), filters, forwardTo("/", "web")), d)
	w.serve(l)
	return w, l, func(h2 bool) *http.Client {
		tr := &http.Transport{TLSClientConfig: i.clientConfig(t), ForceAttemptHTTP2: h2}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr, Timeout: 20 * time.Second}
	}
}

// every is a filter that lets all pass that it sees, at each read.
func every() []api.Filter {
	return []api.Filter{{RBAC: &api.RBAC{StatPrefix: "r", Continuous: true}}}
}

func TestHTTPBehindTLS(t *testing.T) {
	for name, filters := range map[string][]api.Filter{"alone": nil, "behind a filter": every()} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", HTTP/2 ", h2), func(t *testing.T) {
				w, l, client := secureWeb(t, filters)
				c, at := client(h2), "https://"+l.Addresses[0].Addr.String()
				for range 3 {
					resp, body := fetch(t, c, http.MethodGet, at)
					if body != `https ""` || resp.StatusCode != 200 || (resp.ProtoMajor == 2) != h2 {
						t.Errorf("%s %q", resp.Status, body)
					}
				}
				if _, body := fetch(t, c, http.MethodGet, at+"/large"); len(body) != 4<<20+len(`https ""`) {
					t.Errorf("a large body has %d bytes", len(body))
				}
				for figure, want := range map[string]uint64{"http.p.downstream_cx_ssl_total": 1, "http.p.downstream_cx_ssl_active": 1, "http.p.downstream_cx_total": 1, "http.p.downstream_rq_completed": 4} {
					w.await(figure, want)
				}
				w.await("listener."+l.StatName()+".ssl.handshake", 1)
				c.CloseIdleConnections()
				w.await("http.p.downstream_cx_active", 0)
				w.await("http.p.downstream_cx_ssl_active", 0)
			})
		}
	}
}

// A client that is told that this was the last answer gets the end after close_notify.
func TestHTTPBehindTLSEndsInOrder(t *testing.T) {
	w, l, client := secureWeb(t, nil)
	cfg := client(false).Transport.(*http.Transport).TLSClientConfig
	c := dialTLS(t, l.Addresses[0].Addr.String(), cfg)
	io.WriteString(c, "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
	b, err := io.ReadAll(c)
	if err != nil || !strings.HasSuffix(string(b), `https ""`) {
		t.Errorf("read %q, %v", b, err)
	}
	c.Close()
	w.await("http.p.downstream_cx_active", 0)
}

// What goes wrong before a request leaves nothing, and is counted where it belongs.
func TestHTTPBehindTLSThatComesToNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		goes   func(t *testing.T, addr string, cfg *tls.Config) net.Conn
		errors uint64
	}{
		"no TLS": {func(t *testing.T, addr string, _ *tls.Config) net.Conn {
			c := dial(t, addr)
			io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
			io.ReadAll(c)
			return c
		}, 1},
		"half a hello": {func(t *testing.T, addr string, _ *tls.Config) net.Conn {
			c := dial(t, addr)
			io.WriteString(c, "\x16\x03\x01")
			return c
		}, 0},
		"a handshake alone": {func(t *testing.T, addr string, cfg *tls.Config) net.Conn {
			c := dialTLS(t, addr, cfg)
			c.Handshake()
			return c
		}, 0},
		"half a request": {func(t *testing.T, addr string, cfg *tls.Config) net.Conn {
			c := dialTLS(t, addr, cfg)
			io.WriteString(c, "GET /")
			return c
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			for _, filters := range [][]api.Filter{nil, every()} {
				w, l, client := secureWeb(t, filters)
				c := tt.goes(t, l.Addresses[0].Addr.String(), client(false).Transport.(*http.Transport).TLSClientConfig)
				w.await("http.p.downstream_cx_ssl_total", 1)
				c.Close()
				w.await("http.p.downstream_cx_active", 0)
				w.await("http.p.downstream_cx_ssl_active", 0)
				if n := w.counter("listener." + l.StatName() + ".ssl.connection_error"); n != tt.errors {
					t.Errorf("%d connection errors, want %d", n, tt.errors)
				}
			}
		})
	}
}
