package health

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/clock"
)

// says is a prober that answers what the test sends.
type says chan outcome

func (s says) check(ctx context.Context) outcome {
	select {
	case o := <-s:
		return o
	case <-ctx.Done():
		return failed(ctx.Err())
	}
}

func (s says) close() {}

type world struct {
	t     *testing.T
	clock *clock.Hand
	store *stats.Store
	log   bytes.Buffer
	told  chan netip.AddrPort
	hosts map[netip.AddrPort]says
	ready chan struct{}
	k     *Checker
}

func newCluster(hc api.HealthCheck, hosts ...string) *api.Cluster {
	l := api.Locality{Region: "r"}
	for _, h := range hosts {
		l.Endpoints = append(l.Endpoints, api.Endpoint{Addr: netip.MustParseAddrPort(h), Weight: 1})
	}
	hc.Timeout = time.Minute
	if hc.TCP == nil && hc.HTTP == nil && hc.GRPC == nil {
		hc.TCP = &api.TCPCheck{}
	}
	return &api.Cluster{Name: "c", HealthChecks: []api.HealthCheck{hc}, Assignment: &api.Assignment{Localities: []api.Locality{l}}}
}

func begin(t *testing.T, c *api.Cluster, rt *runtime.Runtime, used bool) *world {
	w := &world{t: t, clock: &clock.Hand{}, store: stats.New(), told: make(chan netip.AddrPort, 99), hosts: map[netip.AddrPort]says{}, ready: make(chan struct{})}
	for _, l := range c.Assignment.Localities {
		for _, e := range l.Endpoints {
			w.hosts[e.Addr] = make(says)
		}
	}
	o := Options{Dialer: newPlain, Stats: w.store, OpenLog: func(string) (Log, error) { return w, nil }, Runtime: rt, Clock: w.clock, Slots: make(chan struct{}, 9), Rand: func() uint64 { return 7 },
		Log: slog.New(slog.DiscardHandler), prober: func(t Target) prober { return w.hosts[t.Endpoint.Addr] }}
	w.k = New(c, o, func() { close(w.ready) })
	w.k.Attach(func(a netip.AddrPort, _, _ bool) { w.told <- a }, func() bool { return used })
	t.Cleanup(func() { w.k.Close() })
	return w
}

// Write is one line of the event log.
func (w *world) Write(line []byte) { w.log.Write(line) }

// Close is the log's.
func (w *world) Close() {}

const h1 = "10.0.0.1:1"

// hears has the host answer its next check.
func (w *world) hears(host string, o outcome) {
	w.t.Helper()
	a := netip.MustParseAddrPort(host)
	select {
	case w.hosts[a] <- o:
	case <-time.After(5 * time.Second):
		w.t.Fatalf("%s is not checked", host)
	}
	<-w.told
}

func (w *world) next() time.Duration {
	d, _ := w.clock.Next()
	return d
}

func (w *world) stat(name string) (v uint64) {
	if s, ok := w.store.Lookup("cluster.c.health_check." + name); ok {
		return uint64(s.Value)
	}
	w.t.Errorf("no stat %s", name)
	return 0
}

func TestThresholdsAndIntervals(t *testing.T) {
	hc := api.HealthCheck{UnhealthyThreshold: 2, HealthyThreshold: 3, Interval: 1 * time.Second, UnhealthyInterval: 2 * time.Second,
		UnhealthyEdgeInterval: 3 * time.Second, HealthyEdgeInterval: 4 * time.Second, NoTrafficInterval: 5 * time.Second, NoTrafficHealthyInterval: 6 * time.Second}
	good, lost, late := outcome{}, outcome{failure: network}, outcome{failure: networkTimeout}
	bad, retry := outcome{failure: active, status: 500}, outcome{failure: active, retriable: true}
	type step struct {
		out   outcome
		flags string
		next  time.Duration
	}
	for _, tt := range []struct {
		what   string
		ignore bool
		unused bool
		steps  []step
	}{
		{what: "one success makes a new host healthy", steps: []step{{good, "healthy", 1}, {good, "healthy", 1}}},
		{what: "one failure leaves a new host failed", steps: []step{{lost, "/failed_active_hc", 2}, {good, "/failed_active_hc", 4}, {good, "/failed_active_hc", 4}, {good, "healthy", 1}}},
		{what: "a failure in between begins anew", steps: []step{{lost, "/failed_active_hc", 2}, {good, "/failed_active_hc", 4}, {good, "/failed_active_hc", 4}, {lost, "/failed_active_hc", 2}, {good, "/failed_active_hc", 4}}},
		{what: "failures of the network count up", steps: []step{{good, "healthy", 1}, {lost, "healthy", 3}, {lost, "/failed_active_hc", 2}}},
		{what: "a success in between begins anew", steps: []step{{good, "healthy", 1}, {lost, "healthy", 3}, {good, "healthy", 1}, {lost, "healthy", 3}}},
		{what: "a timeout is told apart", steps: []step{{late, "/failed_active_hc/active_hc_timeout", 2}, {lost, "/failed_active_hc", 2}}},
		{what: "a bad answer fails at once", steps: []step{{good, "healthy", 1}, {bad, "/failed_active_hc", 2}}},
		{what: "a retriable one counts up", steps: []step{{good, "healthy", 1}, {retry, "healthy", 3}, {retry, "/failed_active_hc", 2}}},
		{what: "a degraded host", steps: []step{{outcome{degraded: true}, "/degraded_active_hc", 1}, {good, "healthy", 1}}},
		{what: "a host that excludes itself", steps: []step{{outcome{failure: active, exclude: true}, "/failed_active_hc/excluded_via_immediate_hc_fail", 2}, {good, "/failed_active_hc/excluded_via_immediate_hc_fail", 4}}},
		{what: "without traffic checks are rare", unused: true, steps: []step{{good, "healthy", 6}, {lost, "healthy", 5}, {lost, "/failed_active_hc", 5}}},
		{what: "a pending host stops pending", ignore: true, steps: []step{{lost, "/failed_active_hc", 2}}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			c := newCluster(hc, h1)
			c.IgnoreNewHosts = tt.ignore
			w := begin(t, c, nil, !tt.unused)
			first := "/failed_active_hc"
			if tt.ignore {
				first += "/pending_active_hc"
			}
			if got := w.k.Flags(netip.MustParseAddrPort(h1)).String(); got != first {
				t.Errorf("a new host is %s", got)
			}
			for i, s := range tt.steps {
				w.hears(h1, s.out)
				if got := w.k.Flags(netip.MustParseAddrPort(h1)).String(); got != s.flags || w.next() != s.next*time.Second {
					t.Errorf("step %d: %s, next check in %v; want %s, %v", i, got, w.next(), s.flags, s.next*time.Second)
				}
				w.clock.Move(w.next())
			}
			if got := w.stat("attempt"); got != uint64(len(tt.steps)+1) {
				t.Errorf("%d attempts", got)
			}
			<-w.ready
		})
	}
}

func TestJitterAndRuntimeMoveIntervals(t *testing.T) {
	hc := api.HealthCheck{Interval: time.Second, UnhealthyThreshold: 1, HealthyThreshold: 1, InitialJitter: 5 * time.Millisecond, IntervalJitter: 4 * time.Millisecond, IntervalJitterPercent: 1}
	for what, tt := range map[string]struct {
		key  string
		want time.Duration
	}{
		"jitter":      {"", 1010 * time.Millisecond}, // 7 % 10 + 7 % 4
		"the longest": {"health_check.max_interval", 500 * time.Millisecond},
	} {
		rt, err := runtime.New([]runtime.Layer{{Name: "l", Values: map[string]string{tt.key: "500"}}})
		if err != nil {
			t.Fatal(err)
		}
		w := begin(t, newCluster(hc, h1), rt, true)
		if what == "jitter" && w.next() != 2*time.Millisecond { // 7 % 5
			t.Errorf("the first check comes in %v", w.next())
		}
		w.clock.Move(w.next())
		w.hears(h1, outcome{})
		if w.next() != tt.want {
			t.Errorf("%s: %v, want %v", what, w.next(), tt.want)
		}
	}
}

func TestUpdateKeepsWhatIsKnown(t *testing.T) {
	hc := api.HealthCheck{Interval: time.Second, UnhealthyThreshold: 1, HealthyThreshold: 1}
	const h2 = "10.0.0.2:1"
	c := newCluster(hc, h1, h2)
	w := begin(t, c, nil, true)
	w.hears(h1, outcome{})
	select {
	case <-w.ready:
		t.Error("ready with a host that was not checked")
	default:
	}
	next := newCluster(hc, h1)
	if !w.k.Fits(next) {
		t.Error("other hosts take another checker")
	}
	w.k.Update(next)
	<-w.ready // nobody waits for a host that is gone
	if got := w.k.Flags(netip.MustParseAddrPort(h1)); got != 0 {
		t.Error("a host that stays is", got)
	}
	if w.stat("healthy") != 1 {
		t.Error("healthy", w.stat("healthy"))
	}
	moved := newCluster(hc, h1)
	moved.Assignment.Localities[0].Endpoints[0].Check = &api.EndpointCheck{Addr: netip.MustParseAddrPort("10.0.0.9:9")}
	w.k.Update(moved)
	if got := w.k.Flags(netip.MustParseAddrPort(h1)); got != api.FailedActiveHC || w.stat("healthy") != 0 {
		t.Error("a host that is checked elsewhere is", got, w.stat("healthy"))
	}
	off := newCluster(hc, h1)
	off.Assignment.Localities[0].Endpoints[0].Check = &api.EndpointCheck{Disabled: true}
	w.k.Update(off)
	if got := w.k.Flags(netip.MustParseAddrPort(h1)); got != 0 {
		t.Error("a host that is not checked is", got)
	}
	if hc.Interval = 2 * time.Second; w.k.Fits(newCluster(hc, h1)) {
		t.Error("other checks are taken for the same")
	}
}

func TestAHostIsHealthyIfAllChecksSaySo(t *testing.T) {
	c := newCluster(api.HealthCheck{Name: "a", Interval: time.Second, UnhealthyThreshold: 1, HealthyThreshold: 1}, h1)
	b := c.HealthChecks[0]
	b.Name = "b"
	c.HealthChecks = append(c.HealthChecks, b)
	w := begin(t, c, nil, true)
	w.hears(h1, outcome{}) // one of the two
	if got := w.k.Flags(netip.MustParseAddrPort(h1)); got != api.FailedActiveHC || w.stat("healthy") != 0 {
		t.Error("after one check:", got)
	}
	w.hears(h1, outcome{})
	<-w.ready
	if got := w.k.Flags(netip.MustParseAddrPort(h1)); got != 0 || w.stat("healthy") != 1 || w.stat("name.a.healthy") != 1 || w.stat("name.b.success") != 1 {
		t.Error("after both:", got)
	}
}

func TestEventsAreEnvoys(t *testing.T) {
	w := begin(t, newCluster(api.HealthCheck{Interval: time.Second, UnhealthyThreshold: 1, HealthyThreshold: 1, EventLogs: []string{"/events"}, AlwaysLogSuccess: true}, h1), nil, true)
	for _, o := range []outcome{{failure: networkTimeout}, {degraded: true}, {}, {failure: active, status: 503}} {
		w.hears(h1, o)
		w.clock.Move(w.next())
	}
	w.k.Close()
	const (
		head = `{"health_checker_type":"TCP","host":{"socket_address":{"protocol":"TCP","address":"10.0.0.1","port_value":1,"resolver_name":"","ipv4_compat":false,"network_namespace_filepath":""}},"cluster_name":"c",`
		tail = `"locality":{"region":"r","zone":"","sub_zone":""}`
	)
	want := []string{
		head + `"timestamp":"0001-01-01T00:00:00.000Z","health_check_failure_event":{"failure_type":"NETWORK_TIMEOUT","first_check":true,"http_status_code":0},` + tail + `}`,
		head + `"add_healthy_event":{"first_check":false},"timestamp":"0001-01-01T00:00:00.001Z",` + tail + `}`,
		head + `"timestamp":"0001-01-01T00:00:00.001Z","degraded_healthy_host":{},` + tail + `}`,
		head + `"timestamp":"0001-01-01T00:00:01.001Z",` + tail + `,"successful_health_check_event":{}}`,
		head + `"timestamp":"0001-01-01T00:00:01.001Z","no_longer_degraded_host":{},` + tail + `}`,
		head + `"eject_unhealthy_event":{"failure_type":"ACTIVE","http_status_code":503},"timestamp":"0001-01-01T00:00:02.001Z",` + tail + `}`,
	}
	if got := strings.Split(strings.TrimSpace(w.log.String()), "\n"); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
