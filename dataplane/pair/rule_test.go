package pair

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// read is one line of recorded traffic (testdata/README).
type read struct {
	after time.Duration
	bytes int
}

func recorded(t *testing.T, name string) (out []read) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		w := strings.Fields(lines.Text())
		if len(w) == 0 || w[0][0] == '#' {
			continue
		}
		times := 1
		if len(w) == 4 && w[1] == "x" {
			times, w = atoi(t, w[0]), w[2:]
		}
		if len(w) != 2 {
			t.Fatalf("%s: line %q", name, lines.Text())
		}
		for range times {
			out = append(out, read{time.Duration(atoi(t, w[0])) * time.Microsecond, atoi(t, w[1])})
		}
	}
	return out
}

func atoi(t *testing.T, s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// replay runs the rule over the traffic, as relay, pipe and scan do, and tells
// every change.
func replay(m Mode, reads []read, quiet bool) string {
	var (
		changes  []string
		on       = api.PathRelay
		t        traffic
		now      = int64(1)
		at       = situation{splice: m != Off, quiet: func() bool { return quiet }}
		changed  = now
		moved    scanned
		lastScan = now
	)
	to := func(next api.Path, why reason) {
		if next == on {
			return
		}
		changes = append(changes, fmt.Sprintf("%v (%s)", next, reasons[why]))
		on, changed, t, moved = next, now, traffic{}, scanned{}
		at.changes++
	}
	for _, r := range reads {
		now += int64(r.after)
		if on == api.PathSplice {
			for ; now-lastScan >= int64(scanPeriod); lastScan += int64(scanPeriod) {
				at.stayed = now - changed
				next, why := m.fromSplice(moved, at)
				moved = scanned{}
				to(next, why)
			}
		}
		if on == api.PathSplice {
			moved.bytes += uint64(r.bytes)
			moved.segments++
			continue
		}
		t.saw(r.bytes, now)
		at.stayed, at.empty = now-changed, r.bytes < 256<<10
		to(m.fromUserSpace(on, &t, at))
		lastScan = now
	}
	return strings.Join(changes, ", ")
}

func TestRuleOnRecordedTraffic(t *testing.T) {
	const (
		talk  = "splice (conversation)"
		bulk  = "pipe (bulk)"
		quiet = "relay (fast conversation on a quiet machine)"
	)
	for _, tt := range []struct {
		file, machine string
		auto, off     string
	}{
		{"redis", "busy", talk, ""},
		{"redis", "quiet", talk + ", " + quiet, ""},
		{"shell", "quiet", talk, ""},
		{"download", "busy", bulk, bulk},
		{"dump", "busy", talk + ", " + bulk, bulk},
		{"short", "quiet", "", ""},
		{"then", "busy", bulk + ", " + talk, bulk + ", relay (small pieces)"},
	} {
		t.Run(tt.file+" "+tt.machine, func(t *testing.T) {
			reads := recorded(t, tt.file)
			if got := replay(Auto, reads, tt.machine == "quiet"); got != tt.auto {
				t.Errorf("auto: %q, want %q", got, tt.auto)
			}
			if got := replay(Off, reads, tt.machine == "quiet"); got != tt.off {
				t.Errorf("off: %q, want %q", got, tt.off)
			}
		})
	}
}

func TestQuietIsReadFromProc(t *testing.T) {
	if _, err := readCPU(); err != nil {
		t.Error(err)
	}
	got, err := parseCPU([]byte("cpu  10 1 5 70 4 2 3 5 9 9\ncpu0 1 2 3\n"))
	if err != nil || got != (cpuTime{idle: 74, total: 100}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "cpu0 1 2 3 4 5", "cpu 1 2", "cpu a b c d e f"} {
		if _, err := parseCPU([]byte(bad)); err == nil {
			t.Errorf("%q gives no error", bad)
		}
	}
	r := newRig(t, Off, "tcp4")
	for _, tt := range []struct {
		idle, total uint64
		want        bool
	}{{0, 0, false}, {60, 200, true}, {59, 200, false}, {200, 200, true}} {
		r.w.Do(func() {
			then := r.set.cpuThen
			r.set.cpu = func() (cpuTime, error) { return cpuTime{then.idle + tt.idle, then.total + tt.total}, nil }
			r.set.cpuRead = min(r.set.cpuRead, 1) // long ago, or never
			if got := r.set.quiet(); got != tt.want {
				t.Errorf("%d of %d idle: quiet %v", tt.idle, tt.total, got)
			}
		})
	}
}
