package dataplane

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/api/substitution"
	"github.com/sluice-proxy/sluice/dataplane/dnscache"
)

// resolver answers with one address when it is let go.
type resolver struct {
	at   netip.Addr
	free chan struct{}
}

func (r *resolver) Lookup(ctx context.Context, _ string, _ api.DNSFamily) ([]api.ResolvedAddress, error) {
	select {
	case <-r.free:
		return []api.ResolvedAddress{{Addr: r.at, TTL: time.Hour}}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// forwardWorld is a plane that forwards to the name a.test at a port, and whose
// resolver waits.
func forwardWorld(t *testing.T, port uint16) (w *world, r *resolver, l *api.Listener) {
	t.Helper()
	r = &resolver{at: netip.MustParseAddr("127.0.0.1"), free: make(chan struct{})}
	w = &world{t: t, store: stats.New()}
	var err error
	w.plane, err = New(Options{Concurrency: 2, Splice: "off", Drain: DrainOptions{Time: time.Millisecond}, Stats: w.store, Log: slog.New(slog.DiscardHandler),
		Resolver: func(*api.Resolver) dnscache.Resolver { return r }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.plane.Close() })
	cache := &api.DNSCache{Name: "n", Settings: "n", Refresh: time.Hour, MinRefresh: time.Hour, HostTTL: time.Hour, MaxHosts: 9, MaxPending: 9}
	w.cluster("c")
	c := *w.snap.Clusters.Get("c")
	c.Discovery, c.ByName = api.DynamicForwardProxy, &api.ByName{Cache: cache}
	w.snap.Clusters = w.snap.Clusters.With(&c)
	l = tcpListener("l", free(t), "c")
	chain := l.FilterChains[0]
	host := api.FilterStateValue{Key: "envoy.upstream.dynamic_host", Text: substitution.Format{{Literal: "a.test", Max: -1}}}
	chain.Filters = append([]api.Filter{{SetFilterState: &api.SetFilterState{OnConnection: []api.FilterStateValue{host}}},
		{SNIForwardProxy: &api.SNIForwardProxy{Cache: cache, Port: port}}}, chain.Filters...)
	if a := w.apply(l); a.Refused != nil {
		t.Fatal(a.Refused)
	}
	return w, r, l
}

func (w *world) awaitFigure(name string, want uint64) {
	w.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); w.counter(name) != want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s is %d, want %d", name, w.counter(name), want)
		}
	}
}

func TestAConnectionWaitsForItsName(t *testing.T) {
	b := banner(t, "a")
	w, r, l := forwardWorld(t, b.Port())
	addr := l.Addresses[0].Addr.String()
	one, two := dial(t, addr), dial(t, addr)
	io.WriteString(one, "hello\n")
	w.awaitFigure("dns_cache.n.circuit_breakers.rq_pending_remaining", 7)
	if n := w.counter("dns_cache.n.dns_query_attempt"); n != 1 {
		t.Errorf("asked %d times for one name", n)
	}
	close(r.free)
	if got := readLine(t, one) + " " + readLine(t, one) + " " + readLine(t, two); got != "a hello a" {
		t.Errorf("got %q", got)
	}
	w.awaitFigure("dns_cache.n.circuit_breakers.rq_pending_remaining", 9)
	hosts := w.plane.Clusters()[0].Hosts
	if len(hosts) != 1 || hosts[0].Endpoint.Hostname != "a.test:"+strconv.Itoa(int(b.Port())) || hosts[0].Endpoint.Addr != b || hosts[0].CxActive != 2 {
		t.Errorf("hosts %+v", hosts)
	}
	// Another configuration of the cluster has the names that are known.
	c := *w.snap.Clusters.Get("c")
	c.ConnectTimeout *= 2
	w.snap.Clusters = w.snap.Clusters.With(&c)
	w.apply(l)
	if hosts := w.plane.Clusters()[0].Hosts; len(hosts) != 1 || hosts[0].CxActive != 2 {
		t.Errorf("hosts after an update %+v", hosts)
	}
	if got := readLine(t, dial(t, addr)); got != "a" {
		t.Errorf("after an update: got %q", got)
	}
}

func TestTheEndOfThePlaneEndsTheWaitForAName(t *testing.T) {
	w, _, l := forwardWorld(t, 1)
	dial(t, l.Addresses[0].Addr.String())
	w.awaitFigure("dns_cache.n.circuit_breakers.rq_pending_remaining", 8)
	w.plane.Close()
	if _, ok := w.store.Lookup("dns_cache.n.num_hosts"); ok {
		t.Error("the cache's figures are there when nobody uses it")
	}
}

func TestACacheGoesWithWhoUsesIt(t *testing.T) {
	w, r, _ := forwardWorld(t, 1)
	close(r.free)
	if _, ok := w.store.Lookup("dns_cache.n.num_hosts"); !ok {
		t.Error("the cache has no figures")
	}
	clusters := w.snap.Clusters
	w.snap.Clusters = api.ClusterSet{}
	w.apply()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, ok := w.store.Lookup("dns_cache.n.num_hosts"); !ok {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the cache stays")
		}
	}
	w.snap.Clusters = clusters
	w.apply()
	if _, ok := w.store.Lookup("dns_cache.n.num_hosts"); !ok {
		t.Error("the cache does not come again")
	}
}
