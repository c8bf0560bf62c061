package torture

import (
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
	timeFlag = flag.Duration("time", time.Minute, "how long to torture")
	atOnce   = flag.Int("connections", 48, "connections at once")
)

func TestTorture(t *testing.T) {
	report := torture(t, false)
	for _, name := range []string{"event.trimmed", "exit.redirected", "exit.empty", "event.overflow", "event.left"} {
		if report != nil && report.Programs[name] == 0 {
			t.Errorf("%s is 0: that part of the verdict was not tortured", name)
		}
	}
}

// The same with pairs that are grafted under way, for a quarter of the time.
func TestTortureOfGrafts(t *testing.T) {
	report := torture(t, true)
	for _, name := range []string{"passage.local", "passage.neighbour", "passage.reset", "passage.copied", "passage.own", "passage.own_lifted"} {
		if report != nil && report.Programs[name] == 0 {
			t.Errorf("%s is 0: that part of the graft was not tortured", name)
		}
	}
}

// torture runs it; the report is nil if it was too short to have seen everything.
func torture(t *testing.T, graft bool) *Report {
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs and makes namespaces")
	}
	kept, err := books.Open()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Seed: *seedFlag, Time: *timeFlag, Connections: *atOnce, Graft: graft,
		Log:      slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Progress: func(s string) { t.Log(s) }}
	if graft {
		cfg.Time /= 4
	}
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
	if len(report.Failures) > 0 || cfg.Time < 10*time.Second {
		return nil
	}
	paths := forcedPaths
	if graft {
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
