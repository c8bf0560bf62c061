package torture

import (
	"cmp"
	"flag"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/test/books"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	seedFlag = flag.Uint64("seed", 0, "seed of the torture; 0 takes the clock's")
	timeFlag = flag.Duration("time", 0, "how long to torture; 0 is a minute, and a few seconds for the soak")
	wires    = flag.String("wires", "", "only wires with this in their name")
	atOnce   = flag.Int("connections", 48, "connections at once")
)

func TestTorture(t *testing.T) {
	report := torture(t, Config{Time: cmp.Or(*timeFlag, time.Minute)})
	for _, name := range []string{"event.trimmed", "exit.redirected", "exit.empty", "event.overflow", "event.left"} {
		if report != nil && report.Programs[name] == 0 {
			t.Errorf("%s is 0: that part of the verdict was not tortured", name)
		}
	}
}

// The same with pairs that are grafted under way, for a quarter of the time.
func TestTortureOfGrafts(t *testing.T) {
	report := torture(t, Config{Time: cmp.Or(*timeFlag, time.Minute) / 4, Graft: true})
	for _, name := range []string{"passage.local", "passage.neighbour", "passage.reset", "passage.copied", "passage.own", "passage.own_lifted"} {
		if report != nil && report.Programs[name] == 0 {
			t.Errorf("%s is 0: that part of the graft was not tortured", name)
		}
	}
}

// Many short connections on wires that lose nothing: nearly each is grafted.
func TestSoakOfGrafts(t *testing.T) {
	cfg := Config{Time: cmp.Or(*timeFlag, 5*time.Second), Graft: true, Soak: true}
	report := torture(t, cfg)
	if report == nil || report.Connections < 1000 { // too few to have seen everything
		return
	}
	for _, name := range []string{"passage.local", "passage.loopback", "passage.neighbour", "passage.reset", "passage.copied", "passage.own", "passage.held", "passage.parted", "passage.own_parted"} {
		if report.Programs[name] == 0 {
			t.Errorf("%s is 0: that part of the graft was not soaked", name)
		}
	}
	if grafts := report.Pairs["grafts"]; 2*grafts < uint64(report.Connections) {
		t.Errorf("%d grafts in %d connections", grafts, report.Connections)
	}
}

// torture runs it; the report is nil if it cannot have seen everything.
func torture(t *testing.T, cfg Config) *Report {
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs and makes namespaces")
	}
	kept, err := books.Open()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Seed, cfg.Connections, cfg.Wires = *seedFlag, *atOnce, *wires
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	cfg.Progress = func(s string) { t.Log(s) }
	if cfg.Seed == 0 {
		cfg.Seed = uint64(time.Now().UnixNano())
	}
	report, err := Run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(report)
	for _, f := range report.Failures {
		t.Error(f)
	}
	// Others on this host use TCP too: theirs has to end first.
	if err := kept.Close(time.Minute); err != nil {
		t.Error(err)
	}
	for wire, n := range report.Drifts {
		t.Errorf("%s: the kernel's account of %d sockets is off", wire, n)
	}
	if len(report.Failures) > 0 || cfg.Time < 5*time.Second || cfg.Wires != "" {
		return nil
	}
	if cfg.Soak {
		return report
	}
	paths := forcedPaths
	if cfg.Graft {
		paths = graftedPaths
	}
	for _, family := range familyNames {
		for _, from := range paths {
			for _, to := range paths {
				if kind := kind(family, from, to); from != to && from != api.PathGraft && report.Changes[kind] == 0 {
					t.Errorf("no change of kind %q had bytes on both sides", kind)
				}
			}
		}
	}
	return report
}
