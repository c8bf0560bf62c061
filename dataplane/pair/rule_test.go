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
func replay(m Mode, reads []read, quiet bool, batch float32, crowd int) string {
	var (
		changes  []string
		on       = api.PathRelay
		t        traffic
		now      = int64(1)
		at       = situation{splice: m != Off, quiet: func() bool { return quiet }, batch: batch, crowd: crowd}
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
		at.now = now
		at.stayed, at.empty = now-changed, r.bytes < 256<<10
		next, why := m.fromUserSpace(on, &t, at)
		to(next, why)
		lastScan = now
	}
	return strings.Join(changes, ", ")
}

func TestRuleOnRecordedTraffic(t *testing.T) {
	const (
		talk  = "splice (conversation)"
		bulk  = "pipe (bulk)"
		crowd = "relay (one of many busy conversations)"
	)
	for _, tt := range []struct {
		file, machine string
		batch         float32 // events a wake-up
		crowd         int     // busy pairs that are spliced
		auto, off     string
	}{
		{"redis", "busy", 1, 1, talk, ""},
		{"redis", "quiet", 1, 1, talk, ""},
		{"redis", "busy", 4.6, 0, "", ""}, // 16 connections of the benchmark
		{"redis", "busy", 1, 8, "", ""},
		{"redis", "quiet", 1, 8, talk, ""},
		{"shell", "quiet", 1, 0, talk, ""},
		{"shell", "busy", 1, 8, talk, ""}, // not busy itself
		{"download", "busy", 1, 0, bulk, bulk},
		{"download", "busy", 4.6, 0, bulk, bulk},
		{"dump", "busy", 1, 0, talk + ", " + bulk, bulk},
		{"short", "quiet", 1, 0, "", ""},
		{"then", "busy", 1, 0, bulk + ", " + talk, bulk + ", relay (small pieces)"},
		{"then", "busy", 4.6, 0, bulk + ", relay (small pieces)", bulk + ", relay (small pieces)"},
	} {
		t.Run(fmt.Sprintf("%s, %s, %v events a wake-up, %d busy", tt.file, tt.machine, tt.batch, tt.crowd), func(t *testing.T) {
			reads := recorded(t, tt.file)
			if got := replay(Auto, reads, tt.machine == "quiet", tt.batch, tt.crowd); got != tt.auto {
				t.Errorf("auto: %q, want %q", got, tt.auto)
			}
			if got := replay(Off, reads, tt.machine == "quiet", tt.batch, tt.crowd); got != tt.off {
				t.Errorf("off: %q, want %q", got, tt.off)
			}
		})
	}
}

// A spliced conversation goes back to the relay when it is one of many on a
// machine that has nothing to spare.
func TestCrowdLeavesTheSplice(t *testing.T) {
	busy := scanned{bytes: 2000 * 64, segments: 2000}
	for _, tt := range []struct {
		name  string
		moved scanned
		crowd int
		batch float32
		quiet bool
		want  api.Path
	}{
		{"many spliced", busy, 3, 1, false, api.PathRelay},
		{"many relayed", busy, 0, 4.6, false, api.PathRelay},
		{"few", busy, 2, 1, false, api.PathSplice},
		{"idle CPUs", busy, 30, 4.6, true, api.PathSplice},
		{"slow itself", scanned{bytes: 64 * 100, segments: 100}, 30, 4.6, false, api.PathSplice},
	} {
		at := situation{changes: 1, stayed: 2 * minStay, splice: true, crowd: tt.crowd, batch: tt.batch, quiet: func() bool { return tt.quiet }}
		if got, _ := Auto.fromSplice(tt.moved, at); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		if got, _ := Always.fromSplice(tt.moved, at); got != api.PathSplice {
			t.Errorf("%s, always: %v", tt.name, got)
		}
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
		ago         int64
		want        bool
	}{{0, 0, cpuPeriod, false}, {60, 200, cpuPeriod, true}, {59, 200, cpuPeriod, false}, {200, 200, cpuPeriod, true}, {200, 200, 2 * cpuPeriod, false}} {
		r.w.Do(func() {
			then := r.set.cpuThen
			r.set.cpu = func() (cpuTime, error) { return cpuTime{then.idle + tt.idle, then.total + tt.total}, nil }
			if r.set.cpuRead != 0 {
				r.set.cpuRead = r.w.Now() - tt.ago
			}
			if got := r.set.quiet(); got != tt.want {
				t.Errorf("%d of %d idle: quiet %v", tt.idle, tt.total, got)
			}
		})
	}
}
