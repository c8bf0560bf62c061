package selftest

import (
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/bpf"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEveryStepPassesHere(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	s, err := bpf.Load(1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	results, ok := Run(s, slog.New(slog.DiscardHandler))
	if !ok || len(results) != len(steps) {
		t.Errorf("self-test: %+v", results)
	}
	for _, r := range results {
		if r.Result != "ok" {
			t.Errorf("%s: %s %s", r.Name, r.Result, r.Detail)
		}
	}
	c, err := s.Counters()
	if err != nil {
		t.Fatal(err)
	}
	// Only the overlapping segment of the first step is trimmed, and it must be.
	if c["event.trimmed"] == 0 {
		t.Error("no segment was trimmed: the overlap step proved nothing")
	}
}

// Without CAP_NET_RAW one step cannot be tried; that fails nothing.
func TestWithoutNetRawTheOverlapIsSkipped(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	s, err := bpf.Load(1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never let go: the thread ends with its capabilities
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		if err := unix.Capget(&head, &caps[0]); err != nil {
			t.Error(err)
			return
		}
		caps[0].Effective &^= 1 << unix.CAP_NET_RAW
		if err := unix.Capset(&head, &caps[0]); err != nil {
			t.Error(err)
			return
		}
		results, ok := Run(s, slog.New(slog.DiscardHandler))
		if !ok || len(results) != len(steps) {
			t.Errorf("self-test: %+v", results)
		}
		for i, r := range results {
			want := "ok"
			if i == 0 {
				want = "skipped"
			}
			if r.Result != want || i == 0 && !strings.Contains(r.Detail, "CAP_NET_RAW") {
				t.Errorf("%s: %s %s, want %s", r.Name, r.Result, r.Detail, want)
			}
		}
	}()
	<-done
}

func TestEveryStepOfTheGraftPassesHere(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	g, err := bpf.LoadGraft(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	results, ok := RunGraft(g, slog.New(slog.DiscardHandler))
	if !ok || len(results) != len(graftSteps) {
		t.Errorf("self-test: %+v", results)
	}
	if _, used, _ := g.Sizes(); used != 0 {
		t.Errorf("%d grafts are still in use", used)
	}
}
