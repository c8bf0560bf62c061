package admin

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"go.uber.org/goleak"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/xds"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a plane, a client and a set of loggers with fixed answers.
type fake struct {
	listeners   []api.ListenerStatus
	clusters    []api.ClusterStatus
	connections []api.Connection
	splice      api.SpliceStatus
	capture     api.CaptureStatus
	dump        xds.Dump
	unready     []xds.Unready
	contexts    []xds.TLSContext
	levels      map[string]string
	flushes     int
	reopened    int
	asked       []string // of drains and health checks
	onFlush     func()
}

func (f *fake) Listeners() []api.ListenerStatus { return f.listeners }
func (f *fake) Clusters() []api.ClusterStatus   { return append([]api.ClusterStatus(nil), f.clusters...) }
func (f *fake) Connections() []api.Connection   { return f.connections }
func (f *fake) Splice() api.SpliceStatus        { return f.splice }
func (f *fake) Capture() api.CaptureStatus      { return f.capture }

func (f *fake) Route(to netip.AddrPort) (api.RouteDecision, bool) {
	return api.RouteDecision{Destination: to, Verdict: "pass", Reason: "no route"}, f.capture.Cgroup != ""
}

func (f *fake) InboundRoute(to netip.AddrPort) (api.RouteDecision, bool) {
	return api.RouteDecision{Destination: to, Verdict: "pass", Reason: "the port is not captured"}, f.capture.Inbound != nil
}

func (f *fake) Dump() xds.Dump         { return f.dump }
func (f *fake) Unready() []xds.Unready { return f.unready }

func (f *fake) TLSContexts() []xds.TLSContext { return f.contexts }

func (f *fake) Flush() {
	f.flushes++
	if f.onFlush != nil {
		f.onFlush()
	}
}

func (f *fake) ReopenLogs() { f.reopened++ }

func (f *fake) DrainListeners(inboundOnly, graceful, skipExit bool) {
	f.asked = append(f.asked, fmt.Sprintf("drain %t %t %t", inboundOnly, graceful, skipExit))
}

func (f *fake) FailHealthChecks(fail bool) { f.asked = append(f.asked, fmt.Sprintf("fail %t", fail)) }

func (f *fake) Levels() [][2]string {
	return [][2]string{{"main", f.levels["main"]}, {"xds", f.levels["xds"]}}
}

func (f *fake) SetLevel(name, level string) error {
	if level != "info" && level != "debug" {
		return ErrUnknownLevel
	}
	if name == "" {
		f.levels["main"], f.levels["xds"] = level, level
		return nil
	}
	if _, ok := f.levels[name]; !ok {
		return ErrUnknownLogger
	}
	f.levels[name] = level
	return nil
}

type fixture struct {
	*Server
	fake  *fake
	store *stats.Store
	state State
	quit  int
}

const testVersion = "9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/Go"

func newFixture(t testing.TB, change ...func(*Options)) *fixture {
	t.Helper()
	f := &fixture{
		fake:  &fake{levels: map[string]string{"main": "info", "xds": "info"}},
		store: stats.New(),
	}
	o := Options{
		Bootstrap: &bootstrapv3.Bootstrap{Node: &corev3.Node{Id: "n1"}},
		Node:      &corev3.Node{Id: "n1", Cluster: "c1"},
		Version:   testVersion, Started: time.Now(), Concurrency: 2,
		Stats: f.store, Plane: f.fake, Configs: f.fake, Loggers: f.fake,
		State: func() State { return f.state },
		Quit:  func() { f.quit++ },
		Log:   slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	f.Server = s
	return f
}

func (f *fixture) do(method, target string) *http.Response {
	r := httptest.NewRequest(method, "/", nil)
	// As a client sends it: raw, not what url.Parse would make of it.
	r.URL.Path, r.URL.RawQuery = cutQuery(target)
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w.Result()
}

func cutQuery(target string) (string, string) {
	for i := range target {
		if target[i] == '?' {
			return target[:i], target[i+1:]
		}
	}
	return target, ""
}

func (f *fixture) get(t testing.TB, target string) string {
	t.Helper()
	r := f.do(http.MethodGet, target)
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if r.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s: %s", target, r.Status, b)
	}
	return string(b)
}

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
