package overload

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func threshold(resource string, at float64) api.Trigger {
	return api.Trigger{Resource: resource, Threshold: at}
}

func scaled(resource string, from, to float64) api.Trigger {
	return api.Trigger{Resource: resource, Scaled: true, Threshold: from, Saturation: to}
}

func TestTriggersMakeLevelsOfPressures(t *testing.T) {
	for _, tt := range []struct {
		what     string
		trigger  api.Trigger
		pressure float64
		want     uint64 // percent
	}{
		{"under the threshold", threshold("r", .5), .49, 0},
		{"at the threshold", threshold("r", .5), .5, 100},
		{"a threshold of nothing", threshold("r", 0), 0, 100},
		{"at the scaling threshold", scaled("r", .5, .9), .5, 0},
		{"half way", scaled("r", .5, .9), .7, 50},
		{"a tenth of the way", scaled("r", .5, .9), .54, 10},
		{"at saturation", scaled("r", .5, .9), .9, 100},
		{"far over it", scaled("r", .5, .9), 7, 100},
	} {
		tr := trigger{Trigger: tt.trigger}
		if moved := tr.update(tt.pressure); tr.at.percent() != tt.want || moved != (tt.want > 0) {
			t.Errorf("%s: %d %%, moved %v, want %d %%", tt.what, tr.at.percent(), moved, tt.want)
		}
		if tr.update(tt.pressure) {
			t.Errorf("%s: moved by the same pressure", tt.what)
		}
	}
}

// world is a manager whose resources are files.
type world struct {
	*testing.T
	*Manager
	store *stats.Store
	dir   string
}

func newWorld(t *testing.T, c api.Overload, resources ...string) *world {
	w := &world{T: t, store: stats.New(), dir: t.TempDir()}
	for _, name := range resources {
		c.Monitors = append(c.Monitors, api.ResourceMonitor{Name: name, Injected: &api.InjectedResource{Path: filepath.Join(w.dir, name)}})
	}
	var err error
	w.Manager, err = New(Options{Config: &c, Stats: w.store, Connections: func() uint64 { return 3 }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Manager.Close)
	return w
}

// inject moves a file with the text into the resource's place.
func (w *world) inject(resource, text string) {
	w.Helper()
	fresh := filepath.Join(w.dir, "fresh")
	if err := os.WriteFile(fresh, []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
	if err := os.Rename(fresh, filepath.Join(w.dir, resource)); err != nil {
		w.Fatal(err)
	}
}

func (w *world) figure(name string) uint64 {
	w.Helper()
	s, ok := w.store.Lookup("overload." + name)
	if !ok {
		w.Fatalf("no figure overload.%s", name)
	}
	return s.Value
}

func (w *world) want(step string, figures map[string]uint64) {
	w.Helper()
	for name, want := range figures {
		if got := w.figure(name); got != want {
			w.Errorf("%s: overload.%s is %d, want %d", step, name, got, want)
		}
	}
}

func TestAnActionFollowsTheHighestOfItsTriggers(t *testing.T) {
	w := newWorld(t, api.Overload{Actions: []api.OverloadAction{{Name: api.StopAcceptingConnections,
		Triggers: []api.Trigger{threshold("a", .5), scaled("b", .2, .6)}}}}, "a", "b")
	const name = api.StopAcceptingConnections
	for _, step := range []struct {
		what, a, b    string
		changed, stop bool
		// of the trigger that moved last, as in Envoy
		active, percent uint64
	}{
		{"at rest", "0", "0", false, false, 0, 0},
		{"one is half way", "", "0.4", true, false, 0, 50},
		{"the other fires", "0.5", "", true, true, 1, 100},
		{"the first moves below it", "", "0.3", false, true, 0, 25},
		{"both rest", "0", "0", true, false, 0, 0},
	} {
		for resource, text := range map[string]string{"a": step.a, "b": step.b} {
			if text != "" {
				w.inject(resource, text)
			}
		}
		if got := w.round(); got != step.changed || w.StopsAccepting() != step.stop {
			t.Errorf("%s: changed %v, stops accepting %v", step.what, got, w.StopsAccepting())
		}
		w.want(step.what, map[string]uint64{name + ".active": step.active, name + ".scale_percent": step.percent})
	}
}

func TestConnectionsAreRejectedAsOftenAsTheLevelSays(t *testing.T) {
	const draws = 10000
	for _, tt := range []struct {
		pressure    string
		least, most int
	}{{"0.1", 0, 0}, {"0.5", draws * 4 / 10, draws * 6 / 10}, {"0.9", draws, draws}} {
		act := newWorld(t, api.Overload{Actions: []api.OverloadAction{{Name: api.RejectIncomingConnections, Triggers: []api.Trigger{scaled("r", .1, .9)}}}}, "r")
		shed := newWorld(t, api.Overload{Points: []api.LoadShedPoint{{Name: api.ShedAccept, Triggers: []api.Trigger{scaled("r", .1, .9)}}}}, "r")
		for what, w := range map[string]*world{"action": act, "point": shed} {
			w.inject("r", tt.pressure)
			w.round()
			n := 0
			for range draws {
				if w.Rejects() {
					n++
				}
			}
			if n < tt.least || n > tt.most {
				t.Errorf("%s at %s: %d of %d", what, tt.pressure, n, draws)
			}
			if what == "point" && w.figure(api.ShedAccept+".shed_load_count") != uint64(n) {
				t.Errorf("the point counted %d of %d", w.figure(api.ShedAccept+".shed_load_count"), n)
			}
		}
	}
}

func TestPointsShedWhatTheyAreFor(t *testing.T) {
	for _, name := range []string{api.ShedAccept, api.ShedData, api.ShedPool, "another"} {
		w := newWorld(t, api.Overload{Points: []api.LoadShedPoint{{Name: name, Triggers: []api.Trigger{threshold("r", .5)}}}}, "r")
		w.inject("r", "0.5")
		w.round()
		data := w.DataShedder()
		got := [3]bool{w.Rejects(), data != nil && data(), w.ShedsHosts()}
		if want := [3]bool{name == api.ShedAccept, name == api.ShedData, name == api.ShedPool}; got != want {
			t.Errorf("%s: %v", name, got)
		}
		counted := uint64(1)
		if name == "another" {
			counted = 0
		}
		w.want(name, map[string]uint64{name + ".shed_load_count": counted, name + ".scale_percent": 100})
	}
}

func TestAFileIsReadWhenOneWasMovedIntoItsPlace(t *testing.T) {
	w := newWorld(t, api.Overload{}, "r")
	for _, step := range []struct {
		what, moved, written string
		pressure, failed     uint64
	}{
		{"there is none", "", "", 0, 1},
		{"and still none", "", "", 0, 2},
		{"one is moved in", " 0.29\n", "", 28, 2}, // cut off as Envoy's double is
		{"one is written into", "", "0.9", 28, 2},
		{"no number", "high", "", 28, 3},
		{"the error stays", "", "", 28, 4},
		{"too much", "1.5", "", 28, 5},
		{"less than nothing", "-1", "", 28, 6},
		{"all of it", "1", "", 100, 6},
	} {
		if step.moved != "" {
			w.inject("r", step.moved)
		}
		if step.written != "" {
			if err := os.WriteFile(filepath.Join(w.dir, "r"), []byte(step.written), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		w.inject("other", "0.7") // is nobody's
		w.round()
		w.want(step.what, map[string]uint64{"r.pressure": step.pressure, "r.failed_updates": step.failed, "r.skipped_updates": 0})
	}
}

func TestAFileInNoFolderIsRefused(t *testing.T) {
	_, err := New(Options{Stats: stats.New(), Config: &api.Overload{Monitors: []api.ResourceMonitor{{Name: "r", Injected: &api.InjectedResource{Path: "/nowhere/r"}}}}})
	if err == nil || err.Error() != "make resource monitor r: unable to add filesystem watch for file /nowhere/r: No such file or directory" {
		t.Error(err)
	}
}

// Connections are asked for last, so that what they trigger is of this round.
func TestConnectionsAreMeasuredAfterTheRest(t *testing.T) {
	w := newWorld(t, api.Overload{Monitors: []api.ResourceMonitor{{Name: "n", Connections: &api.ConnectionsMonitor{Max: 4}}},
		Actions: []api.OverloadAction{{Name: api.RejectIncomingConnections, Triggers: []api.Trigger{threshold("n", .75)}}}}, "r")
	w.inject("r", "0.5")
	if !w.round() || !w.Rejects() {
		t.Error("three of four connections trigger nothing")
	}
	w.Overflowed()
	w.want("at three of four", map[string]uint64{"n.pressure": 75, "n.failed_updates": 1, "r.pressure": 50})
	if last := w.monitors[len(w.monitors)-1]; !last.last {
		t.Error("the connections are not the last")
	}
}

func TestTimeoutsAreScaledDownToTheirMinimum(t *testing.T) {
	for _, tt := range []struct {
		what     string
		minimum  *api.TimerMinimum
		pressure string
		want     time.Duration // of 10 s
	}{
		{"another timer's", nil, "1", 10 * time.Second},
		{"at rest", &api.TimerMinimum{Time: 2 * time.Second}, "0", 10 * time.Second},
		{"half way", &api.TimerMinimum{Time: 2 * time.Second}, "0.5", 6 * time.Second},
		{"saturated", &api.TimerMinimum{Time: 2 * time.Second}, "1", 2 * time.Second},
		{"a share", &api.TimerMinimum{Time: -1, Share: .1}, "1", time.Second},
		{"nothing is left", &api.TimerMinimum{Time: -1}, "1", 0},
		{"a minimum beyond the timeout", &api.TimerMinimum{Time: time.Minute}, "1", 10 * time.Second},
	} {
		w := newWorld(t, api.Overload{Actions: []api.OverloadAction{{Name: api.ReduceTimeouts, ConnectTimeout: tt.minimum, Triggers: []api.Trigger{scaled("r", 0, 1)}}}}, "r")
		w.inject("r", tt.pressure)
		w.round()
		if got := w.ConnectTimeouts().Of(10 * time.Second); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.what, got, tt.want)
		}
	}
}

func TestMemoryIsGivenBackWhileTheActionIsActive(t *testing.T) {
	w := newWorld(t, api.Overload{Actions: []api.OverloadAction{{Name: api.ShrinkHeap, Triggers: []api.Trigger{threshold("r", .5)}, Shrink: &api.HeapShrinking{Every: time.Hour}}}}, "r")
	freed := 0
	w.shrinker.free = func() { freed++ }
	for _, step := range []struct {
		what, pressure string
		unfreed        uint64
		freed          int
		counted        uint64
	}{
		{"at rest", "0.1", 0, 0, 0},
		{"active", "0.5", 0, 1, 1},
		{"too little to give", "0.9", 1 << 60, 1, 2},
		{"at rest again", "0.1", 0, 1, 2},
	} {
		w.inject("r", step.pressure)
		w.round()
		w.shrinker.MaxUnfreed = step.unfreed
		w.shrinker.once()
		if freed != step.freed {
			t.Errorf("%s: freed %d times, want %d", step.what, freed, step.freed)
		}
		w.want(step.what, map[string]uint64{api.ShrinkHeap + ".shrink_count": step.counted})
	}
}

func TestARunningManagerTellsOfChanges(t *testing.T) {
	changed := make(chan bool, 1)
	dir := t.TempDir()
	file := filepath.Join(dir, "r")
	if err := os.WriteFile(file, []byte("0.9"), 0o600); err != nil {
		t.Fatal(err)
	}
	store := stats.New()
	var m *Manager
	m, err := New(Options{Stats: store, Log: slog.New(slog.DiscardHandler), Changed: func() { changed <- m.StopsAccepting() },
		Config: &api.Overload{Refresh: time.Millisecond, Monitors: []api.ResourceMonitor{{Name: "r", Injected: &api.InjectedResource{Path: file}}},
			Actions: []api.OverloadAction{{Name: api.StopAcceptingConnections, Triggers: []api.Trigger{threshold("r", .5)}}}}})
	if err != nil {
		t.Fatal(err)
	}
	m.Start()
	if !<-changed {
		t.Error("told of a change to nothing")
	}
	fresh := filepath.Join(dir, "fresh")
	if err := os.WriteFile(fresh, []byte("0.1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, file); err != nil {
		t.Fatal(err)
	}
	if <-changed {
		t.Error("not told of the change back")
	}
	m.Close()
	if s, ok := store.Lookup("overload.refresh_interval_delay"); !ok || s.Hist.Count < 1 {
		t.Errorf("rounds are not counted: %+v", s)
	}
}

func TestNothingIsMeasuredWithoutMonitors(t *testing.T) {
	store := stats.New()
	m, err := New(Options{Stats: store})
	if err != nil {
		t.Fatal(err)
	}
	m.Start()
	if m.StopsAccepting() || m.Rejects() || m.ConnectTimeouts().Of(time.Second) != time.Second {
		t.Error("overloaded by nothing")
	}
	m.Overflowed()
	m.Close()
	m.Close()
	if got := store.All(); len(got) != 2 || got[1].Name != "overload.refresh_interval_delay" {
		t.Errorf("figures: %v", got)
	}
}
