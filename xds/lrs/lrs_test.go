package lrs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	lrsv3 "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/xds/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// loads are clusters whose hosts get what a test says.
type loads struct {
	mu    sync.Mutex
	given map[string]uint64
}

func (l *loads) give(cluster string, n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.given[cluster] += n
}

func (l *loads) ClusterNames() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for n := range l.given {
		out = append(out, n)
	}
	return out
}

func (l *loads) TakeLoad(cluster string) (api.ClusterLoad, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, ok := l.given[cluster]
	if !ok {
		return api.ClusterLoad{}, false
	}
	l.given[cluster] = 0
	out := api.ClusterLoad{ServiceName: "of " + cluster}
	if n > 0 {
		load := api.Load{Begun: n, Open: 1}
		out.Localities = []api.LocalityLoad{{Place: api.Place{Zone: "z"}, Priority: 1, Load: load, Hosts: []api.HostLoad{
			{Addr: netip.MustParseAddrPort("10.0.0.1:80"), Load: load}, {Path: "/run/s", Load: load}}}}
	}
	return out, true
}

// server is a load reporting service: each stream that begins comes out of streams.
type server struct {
	lrsv3.UnimplementedLoadReportingServiceServer
	streams chan *streamOf
}

type streamOf struct {
	lrsv3.LoadReportingService_StreamLoadStatsServer
	end chan error
}

func (s *server) StreamLoadStats(g lrsv3.LoadReportingService_StreamLoadStatsServer) error {
	one := &streamOf{g, make(chan error, 1)}
	select {
	case s.streams <- one:
	case <-g.Context().Done():
		return nil
	}
	select {
	case err := <-one.end:
		return err
	case <-g.Context().Done():
		return nil
	}
}

func (s *server) await(t *testing.T) *streamOf {
	t.Helper()
	select {
	case one := <-s.streams:
		return one
	case <-time.After(patience):
		t.Fatal("no stream comes")
		return nil
	}
}

// reporting runs a reporter against a server of its own.
func reporting(t *testing.T, l *loads) (*server, *stats.Store) {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{streams: make(chan *streamOf)}
	g := grpc.NewServer()
	lrsv3.RegisterLoadReportingServiceServer(g, s)
	served := make(chan struct{})
	go func() { defer close(served); _ = g.Serve(ln) }()
	t.Cleanup(func() { g.Stop(); <-served })
	store := stats.New()
	r := New(Options{
		Dial: func(context.Context) (transport.Conn, error) {
			return grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		},
		Node: &corev3.Node{Id: "me", ClientFeatures: []string{"other"}}, Loads: l, Stats: store, Log: slog.New(slog.DiscardHandler), Retry: 10 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { defer close(ran); r.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ran })
	return s, store
}

func (g *streamOf) ask(t *testing.T, m *lrsv3.LoadStatsResponse) {
	t.Helper()
	if m.LoadReportingInterval == nil {
		m.LoadReportingInterval = durationpb.New(20 * time.Millisecond)
	}
	if err := g.Send(m); err != nil {
		t.Fatal(err)
	}
}

// report is the next request: what it tells of each cluster.
func (g *streamOf) report(t *testing.T) []string {
	t.Helper()
	stuck := time.AfterFunc(patience, func() { panic("no report comes") })
	q, err := g.Recv()
	stuck.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if q.GetNode().GetId() != "me" || !slices.Equal(q.GetNode().GetClientFeatures(), []string{"other", sendsAll}) {
		t.Errorf("node %v", q.GetNode())
	}
	var out []string
	for _, c := range q.GetClusterStats() {
		var b strings.Builder
		fmt.Fprintf(&b, "%s %q", c.GetClusterName(), c.GetClusterServiceName())
		if i := c.GetLoadReportInterval().AsDuration(); i <= 0 || i > patience {
			t.Errorf("the report is about %v", i)
		}
		for _, l := range c.GetUpstreamLocalityStats() {
			fmt.Fprintf(&b, " zone %s priority %d: %d begun, %d open", l.GetLocality().GetZone(), l.GetPriority(), l.GetTotalIssuedRequests(), l.GetTotalRequestsInProgress())
			for _, h := range l.GetUpstreamEndpointStats() {
				a := h.GetAddress()
				fmt.Fprintf(&b, ", %s:%d%s %d/%d", a.GetSocketAddress().GetAddress(), a.GetSocketAddress().GetPortValue(), a.GetPipe().GetPath(), h.GetTotalIssuedRequests(), h.GetTotalRequestsInProgress())
			}
		}
		out = append(out, b.String())
	}
	return out
}

// awaitReport reads reports until one is as wanted; those before it may only say
// that there was nothing.
func (g *streamOf) awaitReport(t *testing.T, want ...string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		got := g.report(t)
		if slices.Equal(got, want) {
			return
		}
		if strings.Contains(strings.Join(got, ""), "begun") || time.Now().After(deadline) {
			t.Fatalf("reported %q, want %q", got, want)
		}
	}
}

func TestReportsWhatTheServerAsksFor(t *testing.T) {
	l := &loads{given: map[string]uint64{"a": 3, "b": 4, "c": 5}}
	s, store := reporting(t, l)
	g := s.await(t)
	if got := g.report(t); len(got) > 0 {
		t.Errorf("told of %q before it was asked", got)
	}
	g.ask(t, &lrsv3.LoadStatsResponse{Clusters: []string{"b", "nosuch", "a", "a"}})
	g.awaitReport(t, `a "of a"`, `b "of b"`) // not what came before it was asked
	l.give("a", 2)
	l.give("c", 2)
	g.awaitReport(t, `a "of a" zone z priority 1: 2 begun, 1 open`, `b "of b"`)
	g.ask(t, &lrsv3.LoadStatsResponse{Clusters: []string{"b"}, LoadReportingInterval: durationpb.New(time.Hour)})
	for sc := store.Scope("load_reporter"); sc.Counter("requests").Value() != 2; { // a report may still be about both
		time.Sleep(time.Millisecond)
	}
	l.give("b", 1)
	g.ask(t, &lrsv3.LoadStatsResponse{Clusters: []string{"b"}})
	for { // what is asked for again loses nothing
		got := g.report(t)
		if slices.Equal(got, []string{`b "of b" zone z priority 1: 1 begun, 1 open`}) {
			break
		}
		if slices.Equal(got, []string{`b "of b"`}) {
			t.Fatal("what was given before it was asked for again is lost")
		}
	}
	g.ask(t, &lrsv3.LoadStatsResponse{SendAllClusters: true, ReportEndpointGranularity: true})
	for !slices.Equal(g.report(t), []string{`a "of a"`, `b "of b"`, `c "of c"`}) {
	}
	l.give("c", 1)
	g.awaitReport(t, `a "of a"`, `b "of b"`, `c "of c" zone z priority 1: 1 begun, 1 open, 10.0.0.1:80 1/1, :0/run/s 1/1`)
	sc := store.Scope("load_reporter")
	if n := sc.Counter("requests").Value(); n != 4 {
		t.Errorf("%d requests of the server's are counted", n)
	}
	if n := sc.Counter("responses").Value(); n < 5 {
		t.Errorf("%d reports are counted", n)
	}
	if e, r := sc.Counter("errors").Value(), sc.Counter("retries").Value(); e+r != 0 {
		t.Errorf("%d errors, %d retries", e, r)
	}
}

func TestTellsTheNextStreamWhatTheLastOneAskedFor(t *testing.T) {
	for _, tt := range []struct {
		name   string
		end    error
		errors uint64
	}{
		{"after an error", status.Error(codes.ResourceExhausted, "no more"), 1},
		{"after an end in good order", nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := &loads{given: map[string]uint64{"a": 0}}
			s, store := reporting(t, l)
			g := s.await(t)
			g.report(t)
			g.ask(t, &lrsv3.LoadStatsResponse{Clusters: []string{"a"}})
			g.awaitReport(t, `a "of a"`)
			g.end <- tt.end
			g = s.await(t)
			if got := g.report(t); !slices.Equal(got, []string{`a "of a"`}) {
				t.Errorf("a new stream begins with %q", got)
			}
			sc := store.Scope("load_reporter")
			if e, r := sc.Counter("errors").Value(), sc.Counter("retries").Value(); e != tt.errors || r != 1 {
				t.Errorf("%d errors, %d retries", e, r)
			}
		})
	}
}

func TestTriesAgainWhereNobodyIs(t *testing.T) {
	store, ctx := stats.New(), t.Context()
	ctx, cancel := context.WithCancel(ctx)
	tries := 0
	r := New(Options{Dial: func(context.Context) (transport.Conn, error) {
		if tries++; tries == 3 {
			cancel()
		}
		return nil, errors.New("nobody")
	}, Node: &corev3.Node{}, Loads: &loads{}, Stats: store, Log: slog.New(slog.DiscardHandler), Retry: time.Millisecond})
	r.Run(ctx)
	sc := store.Scope("load_reporter")
	if e, n := sc.Counter("errors").Value(), sc.Counter("retries").Value(); e != 2 || n != 2 {
		t.Errorf("%d errors and %d retries in three attempts", e, n)
	}
}
