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
// every change. crowdAt is when a crowd comes, after the first read.
func replay(m Mode, reads []read, crowdAt time.Duration) string {
	var (
		changes  []string
		on       = api.PathRelay
		t        traffic
		now      = int64(1)
		at       = situation{splice: m != Off}
		changed  = now
		moved    scanned
		lastScan = now
		talked   int64 // when it began to talk, 0 for not yet
	)
	to := func(next api.Path, why reason) {
		if next == on {
			return
		}
		changes = append(changes, fmt.Sprintf("%v (%s)", next, reasons[why]))
		on, changed, t, moved, talked = next, now, traffic{}, scanned{}, 0
		at.changes++
	}
	for _, r := range reads {
		now += int64(r.after)
		at.crowded = time.Duration(now) >= crowdAt
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
		if t.talks() && talked == 0 {
			talked = now
		}
		at.known = !t.busy(now) || talked != 0 && now-talked >= int64(lookPeriod)
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
		small = "relay (small pieces)"
		crowd = "relay (one of many busy conversations)"
		never = time.Hour
	)
	for _, tt := range []struct {
		file      string
		crowdAt   time.Duration
		auto, off string
	}{
		{"redis", never, talk, ""},
		{"redis", 0, "", ""},
		{"redis", lookPeriod / 2, "", ""}, // those that began with it
		{"redis", 200 * time.Millisecond, talk + ", " + crowd, ""},
		{"shell", never, talk, ""},
		{"shell", 0, "", ""},
		{"shell", 900 * time.Millisecond, talk, ""}, // not busy itself, so it stays
		{"download", never, bulk, bulk},
		{"download", 0, bulk, bulk},
		{"dump", never, talk + ", " + bulk, bulk},
		{"dump", 0, bulk, bulk},
		{"short", never, "", ""},
		{"then", never, bulk + ", " + talk, bulk + ", " + small},
		{"then", 0, bulk + ", " + small, bulk + ", " + small},
	} {
		t.Run(fmt.Sprintf("%s, crowd after %v", tt.file, tt.crowdAt), func(t *testing.T) {
			reads := recorded(t, tt.file)
			if got := replay(Auto, reads, tt.crowdAt); got != tt.auto {
				t.Errorf("auto: %q, want %q", got, tt.auto)
			}
			if got := replay(Off, reads, tt.crowdAt); got != tt.off {
				t.Errorf("off: %q, want %q", got, tt.off)
			}
		})
	}
}

// A busy spliced conversation goes back to the relay when a crowd has come.
func TestCrowdLeavesTheSplice(t *testing.T) {
	busy := scanned{bytes: 2000 * 64, segments: 2000}
	for _, tt := range []struct {
		name    string
		moved   scanned
		crowded bool
		want    api.Path
	}{
		{"one of many", busy, true, api.PathRelay},
		{"one of few", busy, false, api.PathSplice},
		{"slow itself", scanned{bytes: 64 * 20, segments: 20}, true, api.PathSplice},
	} {
		at := situation{changes: 1, stayed: 2 * minStay, splice: true, crowded: tt.crowded}
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
	var c cpu
	for _, tt := range []struct {
		idle, total uint64
		ago         int64
		want        bool
	}{{0, 0, cpuPeriod, false}, {60, 200, cpuPeriod, true}, {59, 200, cpuPeriod, false}, {200, 200, cpuPeriod, true}, {200, 200, 2 * cpuPeriod, false}} {
		then, now := c.then, c.at+tt.ago
		c.read = func() (cpuTime, error) { return cpuTime{then.idle + tt.idle, then.total + tt.total}, nil }
		if got, err := c.isQuiet(now); got != tt.want || err != nil {
			t.Errorf("%d of %d idle: quiet %v, %v", tt.idle, tt.total, got, err)
		}
	}
}
