package selftest

import (
	"log/slog"
	"os"
	"testing"

	"github.com/sluice-proxy/sluice/bpf"
	"go.uber.org/goleak"
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
