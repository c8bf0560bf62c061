package dataplane

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sluice-proxy/sluice/api"
)

// forwardTo is a route to a cluster.
func forwardTo(prefix, cluster string) api.HTTPRoute {
	return api.HTTPRoute{Match: api.HTTPMatch{Value: prefix}, Forward: &api.HTTPForward{Cluster: cluster, NotFound: 503, Timeout: 5 * time.Second}}
}

func httpListener(addr string, filters []api.Filter, routes ...api.HTTPRoute) *api.Listener {
	l := tcpListener("l", addr, "none")
	h := &api.HTTP{StatPrefix: "p", ServerName: "envoy", HTTP1: true, HTTP2: true, MaxHeaderBytes: 60 << 10, RequestID: true,
		VirtualHosts: []api.HTTPVirtualHost{{Name: "v", Domains: []string{"*"}, Routes: routes}}}
	l.FilterChains[0].Filters = append(filters, api.Filter{HTTP: h})
	return l
}

func (w *world) gauge(name string) uint64 { return w.counter(name) }

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
		time.Sleep(time.Millisecond)
	}
}

// web is an HTTP back end.
func web(t *testing.T, h http.HandlerFunc) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).AddrPort()
}

// asks is a client that keeps no connection.
func asks(t *testing.T, method, url string) (int, http.Header, string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, body := fetch(t, &c, method, url)
	return resp.StatusCode, resp.Header, body
}

// fetch has a client ask, which says of its certificate what goes nowhere.
func fetch(t *testing.T, c *http.Client, method, url string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Forwarded-Client-Cert", "By=a client")
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func TestAnHTTPChainAnswersAsEnvoyDoes(t *testing.T) {
	w := newWorld(t)
	refused := netip.MustParseAddrPort(free(t))
	w.cluster("web", web(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			<-r.Context().Done()
			return
		case "/cut":
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Server", "mine")
		w.Header().Set("Content-Type", "x/y")
		fmt.Fprintf(w, "%s %s %s|%s|%s|%s", r.Method, r.Host, r.RequestURI, r.Header.Get("X-Forwarded-Proto"), r.Header.Get("Connection"), r.Header.Get("X-Envoy-Original-Path")+r.Header.Get("X-Forwarded-Client-Cert"))
	}))
	w.cluster("refused", refused)
	w.cluster("empty")
	addr := free(t)
	late := forwardTo("/slow", "web")
	late.Forward.Timeout = 50 * time.Millisecond
	rewritten := forwardTo("/pre/", "web")
	rewritten.Forward.Rewrite.Prefix = "/x/"
	byRegex := forwardTo("/v", "web")
	byRegex.Forward.Rewrite = api.HTTPRewrite{Regex: "^/v([0-9])/(.*)$", Substitution: `/\2/\1`}
	other := forwardTo("/other", "web")
	other.Forward.Host = "other.example"
	post := forwardTo("/m", "web")
	post.Match.Headers = []api.HTTPHeaderMatch{{Name: ":method", Value: &api.StringMatch{Value: "POST"}}}
	route := func(m api.HTTPMatch, d *api.HTTPDirect, r *api.HTTPRedirect) api.HTTPRoute {
		return api.HTTPRoute{Match: m, Direct: d, Redirect: r}
	}
	l := httpListener(addr, nil, late, rewritten, byRegex, other, post, forwardTo("/cut", "web"), forwardTo("/refused", "refused"), forwardTo("/empty", "empty"), forwardTo("/unknown", "unknown"),
		route(api.HTTPMatch{Value: "/teapot", Path: api.PathExact}, &api.HTTPDirect{Code: 418, Body: "teapot"}, nil),
		route(api.HTTPMatch{Value: "/a[0-9]+", Path: api.PathRegex}, &api.HTTPDirect{Code: 200, Body: "a"}, nil),
		route(api.HTTPMatch{Value: "/sep", Path: api.PathSeparatedPrefix}, &api.HTTPDirect{Code: 200}, nil),
		route(api.HTTPMatch{Value: "/to"}, nil, &api.HTTPRedirect{Path: "/new", Code: 301}),
		route(api.HTTPMatch{Value: "/tls"}, nil, &api.HTTPRedirect{Scheme: "https", Host: "x.y", Port: 8443, Code: 302}))
	l.FilterChains[0].Filters[0].HTTP.HealthChecks = []api.HTTPHealthCheck{{Headers: []api.HTTPHeaderMatch{{Name: ":path", Value: &api.StringMatch{Value: "/hc"}}}}}
	if r := w.apply(l); r.Refused != nil {
		t.Fatal(r.Refused)
	}
	for _, tt := range []struct {
		method, path string
		code         int
		body         string
		headers      map[string]string
	}{
		{"GET", "/pre/a%20b?q=1", 200, "GET " + addr + " /x/a%20b?q=1|http||/pre/a%20b?q=1", map[string]string{"Server": "envoy", "Content-Type": "x/y"}},
		{"GET", "/v7/b", 200, "GET " + addr + " /b/7|http||/v7/b", nil},
		{"GET", "/other", 200, "GET other.example /other|http||", nil},
		{"POST", "/m", 200, "POST " + addr + " /m|http||", nil},
		{"GET", "/m", 404, "", map[string]string{"Server": "envoy", "Content-Type": ""}},
		{"GET", "/slow", 504, "upstream request timeout", map[string]string{"Server": "envoy", "Content-Type": "text/plain"}},
		{"GET", "/cut", 503, "upstream connect error or disconnect/reset before headers. reset reason: connection termination", nil},
		{"GET", "/refused", 503, "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure", map[string]string{"Server": "envoy"}},
		{"GET", "/empty", 503, "no healthy upstream", nil},
		{"GET", "/unknown", 503, "", nil},
		{"GET", "/teapot", 418, "teapot", map[string]string{"Server": "envoy", "Content-Length": "6"}},
		{"GET", "/teapots", 404, "", nil},
		{"GET", "/a12", 200, "a", nil},
		{"GET", "/a12b", 404, "", nil},
		{"GET", "/sep/x", 200, "", nil},
		{"GET", "/sepx", 404, "", nil},
		{"GET", "/to?x=1", 301, "", map[string]string{"Location": "http://" + addr + "/new?x=1"}},
		{"GET", "/tls/a?x=1", 302, "", map[string]string{"Location": "https://x.y:8443/tls/a?x=1"}},
		{"GET", "/hc", 200, "", nil},
	} {
		code, h, body := asks(t, tt.method, "http://"+addr+tt.path)
		if d := cmp.Diff(fmt.Sprint(tt.code, " ", tt.body), fmt.Sprint(code, " ", body)); d != "" {
			t.Errorf("%s %s: %s", tt.method, tt.path, d)
		}
		for name, want := range tt.headers {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %s %q, want %q", tt.path, name, got, want)
			}
		}
	}
	w.plane.FailHealthChecks(true)
	if code, h, _ := asks(t, "GET", "http://"+addr+"/hc"); code != 503 || h.Get("X-Envoy-Immediate-Health-Check-Fail") != "true" {
		t.Error(code, h)
	}
	eventually(t, "all connections are over", func() bool { return w.gauge("http.p.downstream_cx_active") == 0 })
	for name, want := range map[string]uint64{
		"http.p.downstream_cx_total": 20, "http.p.downstream_cx_destroy": 20, "http.p.downstream_cx_http1_total": 20, "http.p.downstream_cx_http1_active": 0,
		"http.p.downstream_rq_total": 20, "http.p.downstream_rq_active": 0, "http.p.downstream_rq_completed": 18, "http.p.downstream_rq_2xx": 6,
		"http.p.downstream_rq_3xx": 2, "http.p.downstream_rq_4xx": 5, "http.p.downstream_rq_5xx": 5, "http.p.no_route": 4, "http.p.no_cluster": 1,
		"http.p.rq_direct_response": 5, "http.p.rq_total": 18, "http.p.health_check.ok": 1, "http.p.health_check.failed": 1,
		"listener." + strings.ReplaceAll(addr, ":", "_") + ".http.p.downstream_rq_2xx": 6,
		"cluster.web.upstream_rq_200": 4, "cluster.web.upstream_rq_504": 1, "cluster.web.upstream_rq_timeout": 1, "cluster.web.upstream_rq_completed": 6,
		"cluster.web.external.upstream_rq_2xx": 4, "cluster.refused.upstream_cx_connect_fail": 1, "cluster.empty.upstream_cx_none_healthy": 1,
	} {
		if got := w.counter(name); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
	eventually(t, "no upstream connection is open", func() bool { return w.gauge("cluster.web.upstream_cx_active") == 0 })
}

// raw is a client that writes what it wants.
func raw(t *testing.T, addr, request string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c := dial(t, addr)
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

func answerOf(t *testing.T, r *bufio.Reader) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp
}

const get = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"

func ok() api.HTTPRoute {
	return api.HTTPRoute{Match: api.HTTPMatch{Value: "/"}, Direct: &api.HTTPDirect{Code: 200, Body: "ok"}}
}

func TestAnHTTPConnectionOutlivesAnUpdateAndIsToldToEndByADrain(t *testing.T) {
	w := newWorld(t)
	addr := free(t)
	w.apply(httpListener(addr, nil, ok()))
	c, r := raw(t, addr, get)
	if resp := answerOf(t, r); resp.Close {
		t.Error("told to close")
	}
	open := w.plane.Connections()
	if len(open) != 1 || open[0].State != "http" || open[0].Listener != "l" {
		t.Errorf("%+v", open)
	}
	w.apply(httpListener(addr, nil, ok(), ok()))
	io.WriteString(c, get)
	if resp := answerOf(t, r); resp.Close || resp.StatusCode != 200 {
		t.Error("after the update", resp)
	}
	w.plane.FailHealthChecks(true)
	io.WriteString(c, get)
	if !answerOf(t, r).Close {
		t.Error("is not told to close")
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read %d, %v, want the end", n, err)
	}
	if w.counter("http.p.downstream_cx_drain_close") == 0 {
		t.Error("downstream_cx_drain_close did not move")
	}
}

func TestTheEndOfThePlaneResetsHTTPConnections(t *testing.T) {
	w := newWorld(t)
	w.cluster("web", web(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	addr := free(t)
	w.apply(httpListener(addr, nil, forwardTo("/", "web")))
	c, r := raw(t, addr, get)
	if _, err := http.ReadResponse(r, nil); err != nil {
		t.Fatal(err)
	}
	w.plane.Close()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the answer ends by %v, want a reset", err)
	}
	c.Close()
}

// The filters before judge the client's first bytes, or all of them.
func TestFiltersBeforeAnHTTPChainDecide(t *testing.T) {
	yes, no := true, false
	for _, allowed := range []bool{true, false} {
		for _, continuous := range []bool{true, false} {
			w := newWorld(t)
			addr := free(t)
			who := &no
			if allowed {
				who = &yes
			}
			e := &api.RBACEngine{Policies: []api.RBACPolicy{{Name: "a", Permissions: []api.RBACRule{{Const: &yes}}, Principals: []api.RBACRule{{Const: who}}}}}
			w.apply(httpListener(addr, []api.Filter{{RBAC: &api.RBAC{StatPrefix: "p", Enforced: e, Continuous: continuous}}}, ok()))
			c, r := raw(t, addr, "")
			eventually(t, "the connection waits", func() bool { return len(w.plane.Connections()) == 1 })
			io.WriteString(c, get)
			resp, err := http.ReadResponse(r, nil)
			switch {
			case allowed && (err != nil || resp.StatusCode != 200):
				t.Errorf("allowed, continuous %t: %v, %v", continuous, resp, err)
			case !allowed && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF):
				t.Errorf("denied, continuous %t: %v, %v, want an end without a byte", continuous, resp, err)
			}
			if resp != nil {
				io.Copy(io.Discard, resp.Body)
			}
			if allowed {
				io.WriteString(c, get)
				answerOf(t, r)
				// The server may read one request in two pieces.
				if n := w.counter("p.rbac.allowed"); continuous && n < 2 || !continuous && n != 1 {
					t.Errorf("continuous %t: asked %d times of two requests", continuous, n)
				}
			}
			if n := w.counter("http.p.downstream_rq_total"); n > 0 != allowed {
				t.Errorf("allowed %t: %d requests", allowed, n)
			}
			c.Close()
			eventually(t, "the connection is over", func() bool { return len(w.plane.Connections()) == 0 })
			w.plane.Close()
		}
	}
}

// A chain that cannot be served costs the listener nothing else.
func TestAnUnservedHTTPChainClosesAndCountsAndSaysWhyOnce(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	w.plane.log = slog.New(slog.NewTextHandler(&log, nil))
	w.cluster("c", banner(t, "a"))
	addr := free(t)
	l := func() *api.Listener {
		l := tcpListener("l", addr, "c")
		l.FilterChains[0].Match.SourceType = api.SourceExternal
		l.DefaultFilterChain = l.FilterChains[0]
		l.FilterChains = []*api.FilterChain{{Name: "http", Match: api.FilterChainMatch{SourcePorts: []uint16{sourcePort}}, Filters: []api.Filter{{UnservedHTTP: &api.UnservedHTTP{StatPrefix: "p", Why: "rds: not supported yet"}}}}}
		return l
	}
	w.apply(l())
	for range 2 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sourcePort}, Control: reuse}
		c, err := d.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("read %d, %v, want the end", n, err)
		}
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
		changed := l()
		changed.MaxAcceptsPerEvent = 7
		w.apply(changed)
	}
	if got := readLine(t, dial(t, addr)); got != "a" {
		t.Errorf("the TCP chain answers %q", got)
	}
	if n := w.counter("http.p.downstream_cx_unserved"); n != 2 {
		t.Errorf("counted %d", n)
	}
	if n := strings.Count(log.String(), "rds: not supported yet"); n != 1 {
		t.Errorf("said %d times: %s", n, &log)
	}
}

const sourcePort = 23457

func reuse(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1) })
}

func TestATCPProxyInPlaceOfHTTPHasItsFigures(t *testing.T) {
	w := newWorld(t)
	w.cluster("c", banner(t, "a"))
	addr := free(t)
	l := tcpListener("l", addr, "c")
	l.FilterChains[0].Filters[0].TCPProxy.ForHTTP = true
	w.apply(l)
	c := dial(t, addr)
	readLine(t, c)
	prefix := "http." + l.FilterChains[0].Filters[0].TCPProxy.StatPrefix + "."
	if total, asTCP, active := w.counter(prefix+"downstream_cx_total"), w.counter(prefix+"downstream_cx_as_tcp"), w.gauge(prefix+"downstream_cx_active"); total != 1 || asTCP != 1 || active != 1 {
		t.Error(total, asTCP, active)
	}
	c.Close()
	eventually(t, "the connection is over", func() bool { return w.gauge(prefix+"downstream_cx_active") == 0 })
	if n := w.counter(prefix + "downstream_cx_tx_bytes_total"); n != 2 {
		t.Errorf("%d bytes sent", n)
	}
}
