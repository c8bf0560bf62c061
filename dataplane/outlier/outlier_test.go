package outlier

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type host string

func (h host) Address() string { return string(h) }

type lines struct{ *bytes.Buffer }

func (l lines) Write(line []byte) { l.Buffer.Write(line) }

type world struct {
	*Detector[host]
	clock *clock.Hand
	store *stats.Store
	log   bytes.Buffer
	told  []string
}

// watch makes a detector of hosts h0, h1, … that decides while Put runs.
func watch(t *testing.T, hosts int, change func(*api.OutlierDetection), keys map[string]string) *world {
	t.Helper()
	c := &api.OutlierDetection{Consecutive5xx: 3, ConsecutiveGatewayFailure: 5, ConsecutiveLocalOriginFailure: 2, Interval: 10 * time.Second, BaseEjectionTime: 30 * time.Second,
		MaxEjectionTime: 100 * time.Second, MaxEjectionPercent: 50, EnforcingConsecutive5xx: 100, EnforcingConsecutiveLocalOriginFailure: 100, EnforcingSuccessRate: 100,
		EnforcingLocalOriginSuccessRate: 100, FailurePercentageThreshold: 85, FailurePercentageMinimumHosts: 5, FailurePercentageRequestVolume: 50,
		SuccessRateMinimumHosts: 5, SuccessRateRequestVolume: 100, SuccessRateStdevFactor: 1900, UnejectOnHealthCheck: true}
	if change != nil {
		change(c)
	}
	rt, err := runtime.New([]runtime.Layer{{Name: "l", Values: keys}})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{clock: &clock.Hand{}, store: stats.New()}
	w.clock.Move(time.Hour)
	w.Detector = New(&api.Cluster{Name: "c", Outlier: c}, Options{Stats: w.store, Runtime: rt, Clock: w.clock, Log: lines{&w.log}, Rand: func() uint64 { return 50 }}, func(h host) {
		word := "back"
		if w.Monitor(h).Ejected() {
			word = "out"
		}
		w.told = append(w.told, string(h)+" "+word)
	})
	var all []host
	for i := range hosts {
		all = append(all, host(fmt.Sprintf("h%d", i)))
	}
	w.SetHosts(all)
	for _, m := range w.monitors {
		m.trip = w.tripped
	}
	t.Cleanup(w.Close)
	return w
}

func (w *world) put(h host, r Result, times int) {
	for range times {
		w.Monitor(h).Put(r)
	}
}

// news is what was told since the last time.
func (w *world) news() string {
	s := strings.Join(w.told, ", ")
	w.told = nil
	return s
}

func (w *world) moved() string {
	var out []string
	for _, s := range w.store.All() {
		if s.Value != 0 {
			out = append(out, fmt.Sprintf("%s %d", strings.TrimPrefix(s.Name, "cluster.c.outlier_detection.ejections_"), int(s.Value)))
		}
	}
	return strings.Join(out, ", ")
}

func TestConsecutiveFailuresEject(t *testing.T) {
	for _, tt := range []struct {
		what   string
		hosts  int
		change func(*api.OutlierDetection)
		keys   map[string]string
		put    func(*world)
		news   string
		moved  string
	}{
		{what: "as many as it takes", hosts: 2, put: func(w *world) { w.put("h0", Refused, 3) }, news: "h0 out",
			moved: "active 1, consecutive_5xx 1, detected_consecutive_5xx 1, enforced_consecutive_5xx 1, enforced_total 1, total 1"},
		{what: "timeouts too", hosts: 2, put: func(w *world) { w.put("h0", Refused, 2); w.put("h0", TimedOut, 1) }, news: "h0 out",
			moved: "active 1, consecutive_5xx 1, detected_consecutive_5xx 1, enforced_consecutive_5xx 1, enforced_total 1, total 1"},
		{what: "a success begins anew", hosts: 2, put: func(w *world) { w.put("h0", Refused, 2); w.put("h0", Connected, 1); w.put("h0", Refused, 2) }},
		{what: "no more than max_ejection_percent", hosts: 2, put: func(w *world) { w.put("h0", Refused, 3); w.put("h1", Refused, 3) }, news: "h0 out",
			moved: "active 1, consecutive_5xx 2, detected_consecutive_5xx 2, enforced_consecutive_5xx 1, enforced_total 1, overflow 1, total 1"},
		{what: "not one of one", hosts: 1, put: func(w *world) { w.put("h0", Refused, 8) },
			moved: "consecutive_5xx 2, detected_consecutive_5xx 2, detected_consecutive_gateway_failure 1, overflow 3"},
		{what: "always_eject_one_host", hosts: 1, change: func(c *api.OutlierDetection) { c.AlwaysEjectOneHost = true }, put: func(w *world) { w.put("h0", Refused, 3) }, news: "h0 out",
			moved: "active 1, consecutive_5xx 1, detected_consecutive_5xx 1, enforced_consecutive_5xx 1, enforced_total 1, total 1"},
		{what: "not enforced", hosts: 2, change: func(c *api.OutlierDetection) { c.EnforcingConsecutive5xx = 50 }, put: func(w *world) { w.put("h0", Refused, 3) },
			moved: "consecutive_5xx 1, detected_consecutive_5xx 1, total 1"},
		{what: "enforced by the runtime", hosts: 2, change: func(c *api.OutlierDetection) { c.EnforcingConsecutive5xx = 0 }, keys: map[string]string{"outlier_detection.enforcing_consecutive_5xx": "51", "outlier_detection.consecutive_5xx": "1"},
			put: func(w *world) { w.put("h0", Refused, 1) }, news: "h0 out", moved: "active 1, consecutive_5xx 1, detected_consecutive_5xx 1, enforced_consecutive_5xx 1, enforced_total 1, total 1"},
		{what: "gateway failures", hosts: 2, change: func(c *api.OutlierDetection) { c.Consecutive5xx, c.EnforcingConsecutiveGatewayFailure = 99, 100 }, put: func(w *world) { w.put("h0", Refused, 5) }, news: "h0 out",
			moved: "active 1, detected_consecutive_gateway_failure 1, enforced_consecutive_gateway_failure 1, enforced_total 1"},
		{what: "local origin, split", hosts: 2, change: func(c *api.OutlierDetection) { c.SplitExternalLocalOriginErrors = true }, put: func(w *world) { w.put("h0", Refused, 2) }, news: "h0 out",
			moved: "active 1, detected_consecutive_local_origin_failure 1, enforced_consecutive_local_origin_failure 1, enforced_total 1"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := watch(t, tt.hosts, tt.change, tt.keys)
			tt.put(w)
			if news, moved := w.news(), w.moved(); news != tt.news || moved != tt.moved {
				t.Errorf("told %q, want %q; moved\n%s, want\n%s", news, tt.news, moved, tt.moved)
			}
		})
	}
}

func TestEjectionsEndAndGrow(t *testing.T) {
	w := watch(t, 2, nil, nil)
	// The nth ejection lasts n base times, at most the longest: what a tick finds.
	for _, lasts := range []time.Duration{30, 60, 90, 100, 100} {
		w.put("h0", Refused, 3)
		w.clock.Move((lasts-1)/10*10*time.Second + 0)
		if got := w.news(); got != "h0 out" {
			t.Fatalf("%vs: before its end %q", lasts, got)
		}
		w.clock.Move(10 * time.Second)
		if got := w.news(); got != "h0 back" {
			t.Fatalf("%vs: at its end %q", lasts, got)
		}
	}
	// Each good interval takes one off again.
	w.clock.Move(60 * time.Second)
	w.put("h0", Refused, 3)
	w.clock.Move(30 * time.Second)
	if got := w.news(); got != "h0 out, h0 back" {
		t.Errorf("after good times %q", got)
	}
	lines := strings.Split(strings.TrimSpace(w.log.String()), "\n")
	if want := `{"type":"CONSECUTIVE_5XX","timestamp":"0001-01-01T01:00:00.000Z","cluster_name":"c","upstream_url":"h0","action":"EJECT","num_ejections":1,"enforced":true,"eject_consecutive_event":{}}`; lines[0] != want {
		t.Errorf("%s, want\n%s", lines[0], want)
	}
	if want := `{"type":"CONSECUTIVE_5XX","timestamp":"0001-01-01T01:00:30.000Z","secs_since_last_action":"30","cluster_name":"c","upstream_url":"h0","action":"UNEJECT","num_ejections":1,"enforced":false}`; lines[1] != want {
		t.Errorf("%s, want\n%s", lines[1], want)
	}
}

func TestAnActiveCheckBringsAHostBack(t *testing.T) {
	for _, on := range []bool{true, false} {
		w := watch(t, 2, func(c *api.OutlierDetection) { c.UnejectOnHealthCheck = on }, nil)
		w.put("h0", Refused, 3)
		w.Passed("h0")
		if got := w.news() == "h0 out, h0 back"; got != on {
			t.Errorf("%v: back %v", on, got)
		}
	}
}

func TestRatesEject(t *testing.T) {
	for _, tt := range []struct {
		what        string
		change      func(*api.OutlierDetection)
		bad         int // of 100, of h0; the others have none
		news, moved string
		event       string
	}{
		{what: "success rate", bad: 40, change: func(*api.OutlierDetection) {}, news: "h0 out",
			moved: "active 1, detected_success_rate 1, enforced_success_rate 1, enforced_total 1, success_rate 1, total 1",
			event: `"type":"SUCCESS_RATE","timestamp":"0001-01-01T01:00:10.000Z","cluster_name":"c","upstream_url":"h0","action":"EJECT","num_ejections":1,"enforced":true,"eject_success_rate_event":{"host_success_rate":60,"cluster_average_success_rate":92,"cluster_success_rate_ejection_threshold":61}`},
		{what: "local origin", bad: 40, change: func(c *api.OutlierDetection) { c.SplitExternalLocalOriginErrors = true }, news: "h0 out",
			moved: "active 1, detected_local_origin_success_rate 1, enforced_local_origin_success_rate 1, enforced_total 1, success_rate 1"},
		{what: "failure percentage", bad: 90, change: func(c *api.OutlierDetection) {
			c.EnforcingFailurePercentage, c.SuccessRateMinimumHosts = 100, 9
		}, news: "h0 out", moved: "active 1, detected_failure_percentage 1, enforced_failure_percentage 1, enforced_total 1",
			event: `"eject_failure_percentage_event":{"host_success_rate":10}`},
		{what: "too few hosts", bad: 90, change: func(c *api.OutlierDetection) { c.SuccessRateMinimumHosts, c.FailurePercentageMinimumHosts = 6, 6 }},
		{what: "too few connections", bad: 90, change: func(c *api.OutlierDetection) {
			c.SuccessRateRequestVolume, c.FailurePercentageRequestVolume = 101, 101
		}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := watch(t, 5, func(c *api.OutlierDetection) {
				c.Consecutive5xx, c.ConsecutiveGatewayFailure, c.ConsecutiveLocalOriginFailure = 999, 999, 999
				tt.change(c)
			}, nil)
			for i := range 5 {
				w.put(host(fmt.Sprintf("h%d", i)), Connected, 100)
			}
			for range tt.bad { // in the place of as many good ones
				w.Monitor("h0").buckets[0].good.Add(^uint64(0))
				w.Monitor("h0").buckets[1].good.Add(^uint64(0))
			}
			w.clock.Move(10 * time.Second)
			if news, moved := w.news(), w.moved(); news != tt.news || moved != tt.moved {
				t.Errorf("told %q, want %q; moved\n%s, want\n%s", news, tt.news, moved, tt.moved)
			}
			if !strings.Contains(w.log.String(), tt.event) {
				t.Errorf("logged %s, want %s", w.log.String(), tt.event)
			}
		})
	}
}

func TestHostsThatGoAreForgotten(t *testing.T) {
	w := watch(t, 2, nil, nil)
	gone := w.Monitor("h0")
	w.put("h0", Refused, 3)
	w.SetHosts([]host{"h1"})
	gone.Put(Refused)
	if w.active != 0 || w.Monitor("h0") != nil || !strings.HasPrefix(w.moved(), "consecutive_5xx 1") {
		t.Error(w.active, w.moved())
	}
}
