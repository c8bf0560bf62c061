package health

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/clock"
)

// plain opens what is not encrypted.
type plain struct{ net.Dialer }

func newPlain(*api.Cluster) Dialer { return &plain{} }

func (p *plain) Dial(ctx context.Context, t Target) (net.Conn, error) {
	return p.DialContext(ctx, "tcp", t.Endpoint.CheckAddr().String())
}

func (p *plain) Close() {}

// probe makes the prober of one check of one address.
func probe(t *testing.T, hc api.HealthCheck, at net.Addr) (prober, *session) {
	t.Helper()
	c := newCluster(hc, at.String())
	o := Options{Stats: stats.New(), Clock: &clock.Hand{}, Rand: func() uint64 { return 0 }, Log: slog.New(slog.DiscardHandler),
		Dialer: newPlain}
	k := &Checker{o: o, dialer: newPlain(c), cluster: c}
	s := &session{k: k, host: &host{}, check: &check{config: &c.HealthChecks[0], stats: newCheckStats(o.Stats, c, "")}}
	p := s.newProber(Target{Cluster: c, Check: &c.HealthChecks[0], Endpoint: &c.Assignment.Localities[0].Endpoints[0]})
	t.Cleanup(p.close)
	return p, s
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// serve runs h for every connection.
func serve(t *testing.T, h func(net.Conn)) net.Addr {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); h(c) }()
		}
	}()
	return l.Addr()
}

func TestSegmentsAreFoundInOrder(t *testing.T) {
	b := func(s ...string) (out [][]byte) {
		for _, one := range s {
			out = append(out, []byte(one))
		}
		return out
	}
	for _, tt := range []struct {
		got  string
		want [][]byte
		ok   bool
	}{
		{"", nil, true}, {"xx", nil, true}, {"+PONG\r\n", b("PO", "NG"), true}, {"PO..NG", b("PO", "NG"), true},
		{"NGPO", b("PO", "NG"), false}, {"PO", b("PO", "PO"), false}, {"POPO", b("PO", "PO"), true}, {"", b("a"), false},
	} {
		if contains([]byte(tt.got), tt.want) != tt.ok {
			t.Errorf("%q in %q: not %v", tt.want, tt.got, tt.ok)
		}
	}
}

func TestTCPCheckReusesItsConnectionAndSeesItsEnd(t *testing.T) {
	var connections atomic.Int32
	got := make(chan string, 9)
	end := make(chan struct{})
	at := serve(t, func(c net.Conn) {
		connections.Add(1)
		go func() { <-end; c.Close() }()
		buf := make([]byte, 99)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			got <- string(buf[:n])
			io.WriteString(c, "+PO")
			io.WriteString(c, "NG")
		}
	})
	p, _ := probe(t, api.HealthCheck{ReuseConnection: true, TCP: &api.TCPCheck{Send: []byte("PING"), Receive: [][]byte{[]byte("PONG")}, ProxyProtocol: 2}}, at)
	lost := make(chan struct{}, 1)
	p.(*tcp).lost = func() { lost <- struct{}{} }
	for range 2 {
		if out := p.check(within(t, 5*time.Second)); out != (outcome{}) {
			t.Fatal(out)
		}
		if s := <-got; s != "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00PING" {
			t.Errorf("the host got %q", s)
		}
	}
	if connections.Load() != 1 {
		t.Errorf("%d connections", connections.Load())
	}
	close(end)
	<-lost
}

func TestTCPCheckFails(t *testing.T) {
	ping := &api.TCPCheck{Send: []byte("PING"), Receive: [][]byte{[]byte("PONG")}}
	silent := serve(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for what, tt := range map[string]struct {
		at    net.Addr
		check *api.TCPCheck
		want  failureType
	}{
		"nobody listens":      {gone.Addr(), &api.TCPCheck{}, network},
		"somebody does":       {silent, &api.TCPCheck{}, ""},
		"no answer":           {silent, ping, networkTimeout},
		"another answer":      {serve(t, func(c net.Conn) { io.WriteString(c, "NOPE"); io.Copy(io.Discard, c) }), ping, networkTimeout},
		"hangs up":            {serve(t, func(c net.Conn) { c.Read(make([]byte, 9)) }), ping, network},
		"answers, hangs up":   {serve(t, func(c net.Conn) { c.Read(make([]byte, 9)); io.WriteString(c, "PONG") }), ping, ""},
		"speaks before asked": {serve(t, func(c net.Conn) { io.WriteString(c, "PONG"); io.Copy(io.Discard, c) }), ping, ""},
	} {
		p, _ := probe(t, api.HealthCheck{TCP: tt.check}, tt.at)
		if out := p.check(within(t, 200*time.Millisecond)); out.failure != tt.want {
			t.Errorf("%s: %+v", what, out)
		}
	}
}

func TestHTTPCheckJudgesTheAnswer(t *testing.T) {
	type check = api.HTTPCheck
	ok := []api.StatusRange{{Start: 200, End: 201}}
	answer := func(status int, body string, headers ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	for what, tt := range map[string]struct {
		check check
		h     http.HandlerFunc
		want  outcome
	}{
		"200":           {check{}, answer(200, "x"), outcome{status: 200}},
		"204":           {check{}, answer(204, ""), outcome{status: 204, failure: active}},
		"204, expected": {check{Expected: []api.StatusRange{{Start: 200, End: 300}}}, answer(204, ""), outcome{status: 204}},
		"503":           {check{}, answer(503, "x", "x-envoy-immediate-health-check-fail", "1"), outcome{status: 503, failure: active, exclude: true}},
		"503, retriable": {check{Retriable: []api.StatusRange{{Start: 500, End: 504}}}, answer(503, ""),
			outcome{status: 503, failure: active, retriable: true}},
		"degraded":       {check{}, answer(200, "", "x-envoy-degraded", "1"), outcome{status: 200, degraded: true}},
		"body":           {check{Receive: [][]byte{[]byte("he"), []byte("lo")}}, answer(200, "hello"), outcome{status: 200}},
		"other body":     {check{Receive: [][]byte{[]byte("bye")}}, answer(200, "hello"), outcome{status: 200, failure: active}},
		"body too long":  {check{Receive: [][]byte{[]byte("end")}, ResponseBufferSize: 10}, answer(200, "0123456789end"), outcome{status: 200, failure: active}},
		"its own name":   {check{ServiceName: &api.StringMatch{Kind: api.MatchPrefix, Value: "web"}}, answer(200, "", "x-envoy-upstream-healthchecked-cluster", "web-1"), outcome{status: 200}},
		"another's name": {check{ServiceName: &api.StringMatch{Value: "web"}}, answer(200, ""), outcome{status: 200, failure: active}},
		"HTTP/2":         {check{HTTP2: true}, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200 + 300*min(1, 2-r.ProtoMajor)) }, outcome{status: 200}},
		"what is sent": {check{Method: "POST", Path: "/a%20b?c=d", Host: "me", Send: []byte("hi"), Remove: []string{"user-agent"},
			Add: []api.HTTPHeader{{Key: "x-a", Value: "b"}, {Key: "x-a", Value: "c"}}},
			func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				if r.Method != "POST" || r.RequestURI != "/a%20b?c=d" || r.Host != "me" || string(b) != "hi" || r.UserAgent() != "" || strings.Join(r.Header["X-A"], ",") != "b,c" {
					w.WriteHeader(500)
				}
			}, outcome{status: 200}},
		"who asks": {check{}, func(w http.ResponseWriter, r *http.Request) {
			if r.UserAgent() != "Envoy/HC" || r.Host != "c" || len(r.Header) != 1 {
				w.WriteHeader(500)
			}
		}, outcome{status: 200}},
	} {
		t.Run(what, func(t *testing.T) {
			s := httptest.NewUnstartedServer(tt.h)
			s.Config.Protocols = new(http.Protocols)
			s.Config.Protocols.SetHTTP1(true)
			s.Config.Protocols.SetUnencryptedHTTP2(true)
			s.Start()
			defer s.Close()
			c := tt.check
			if c.Path == "" {
				c.Path = "/healthz"
			}
			if c.Method == "" {
				c.Method = "GET"
			}
			if c.Expected == nil {
				c.Expected = ok
			}
			p, _ := probe(t, api.HealthCheck{ReuseConnection: true, HTTP: &c}, s.Listener.Addr())
			for range 2 {
				if out := p.check(within(t, 5*time.Second)); out != tt.want {
					t.Errorf("%+v, want %+v", out, tt.want)
				}
			}
			p.close()
		})
	}
}

func TestHTTPCheckFailsAtOnceOnWhatIsNoHTTP(t *testing.T) {
	at := serve(t, func(c net.Conn) { c.Read(make([]byte, 999)); io.WriteString(c, "WRONG"); io.Copy(io.Discard, c) })
	p, _ := probe(t, api.HealthCheck{HTTP: &api.HTTPCheck{Method: "GET", Path: "/"}}, at)
	if out := p.check(within(t, 5*time.Second)); out.failure != network {
		t.Error(out)
	}
}

func TestGRPCCheckAsksTheHealthService(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	service := grpchealth.NewServer()
	service.SetServingStatus("up", grpc_health_v1.HealthCheckResponse_SERVING)
	service.SetServingStatus("down", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, service)
	served := make(chan struct{})
	go func() { defer close(served); server.Serve(l) }()
	defer func() { server.Stop(); <-served }()
	for name, want := range map[string]failureType{"": "", "up": "", "down": active, "unknown": active} {
		p, _ := probe(t, api.HealthCheck{ReuseConnection: true, GRPC: &api.GRPCCheck{Service: name, Authority: "me"}}, l.Addr())
		for range 2 {
			if out := p.check(within(t, 5*time.Second)); out.failure != want {
				t.Errorf("%q: %+v", name, out)
			}
		}
		p.close()
	}
}
