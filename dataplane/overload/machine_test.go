package overload

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// files is a root with these files.
func files(t *testing.T, all map[string]string) string {
	t.Helper()
	root := t.TempDir()
	write(t, root, all)
	return root
}

func write(t *testing.T, root string, all map[string]string) {
	t.Helper()
	for name, text := range all {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMemoryOfACgroup(t *testing.T) {
	v2 := func(used, limit string) map[string]string {
		return map[string]string{"sys/fs/cgroup/memory.current": used, "sys/fs/cgroup/memory.max": limit}
	}
	for _, tt := range []struct {
		what string
		all  map[string]string
		most uint64
		want float64
		err  string // after the root
	}{
		{"half of it", v2("50\n", "100\n"), 0, .5, ""},
		{"without a limit", v2("50\n", "max\n"), 0, 0, ""},
		{"with one of ours", v2("50\n", "max\n"), 200, .25, ""},
		{"the lower one counts", v2("50\n", "100\n"), 200, .5, ""},
		{"version 1", map[string]string{"sys/fs/cgroup/memory/memory.usage_in_bytes": "5", "sys/fs/cgroup/memory/memory.limit_in_bytes": "50"}, 0, .1, ""},
		{"version 1 without a limit", map[string]string{"sys/fs/cgroup/memory/memory.usage_in_bytes": "5", "sys/fs/cgroup/memory/memory.limit_in_bytes": "-1"}, 0, 0, ""},
		{"empty", v2("", "100"), 0, 0, "Empty memory stats file at ROOT/sys/fs/cgroup/memory.current"},
		{"no number", v2("1", "many"), 0, 0, "Unable to parse memory stats from file at ROOT/sys/fs/cgroup/memory.max"},
	} {
		root := files(t, tt.all)
		read, err := cgroupMemory(root, tt.most)
		if err != nil {
			t.Errorf("%s: %v", tt.what, err)
			continue
		}
		got, err := read()
		said := ""
		if err != nil {
			said = err.Error()
		}
		if want := strings.ReplaceAll(tt.err, "ROOT", root); got != tt.want || said != want {
			t.Errorf("%s: %v, %q; want %v, %q", tt.what, got, said, tt.want, want)
		}
	}
	if _, err := cgroupMemory(t.TempDir(), 0); err != errNoMemoryCgroup {
		t.Errorf("without cgroups: %v", err)
	}
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestProcessorsOfTheMachine(t *testing.T) {
	root := files(t, map[string]string{"proc/stat": "cpu  10 10 10 70 5 5 5\n"})
	read, err := processors(root, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read(); err == nil {
		t.Error("a pressure without any time")
	}
	// 50 of 100, then nothing of 100: what is idle counts, what waits does not.
	for i, tt := range []struct {
		stat string
		want float64
	}{{"cpu  30 20 30 120 9 9 9\n", .025}, {"cpu  30 20 30 220 9 9 9\n", .02375}} {
		write(t, root, map[string]string{"proc/stat": tt.stat})
		if got, err := read(); err != nil || !near(got, tt.want) {
			t.Errorf("round %d: %v, %v; want %v", i, got, err, tt.want)
		}
	}
	write(t, root, map[string]string{"proc/stat": "cpu0 1 2 3 4\n"})
	if _, err := read(); err != errNoTimes {
		t.Errorf("of another file: %v", err)
	}
}

func TestProcessorsOfACgroup(t *testing.T) {
	for _, tt := range []struct {
		what string
		all  map[string]string
		want times
	}{
		{"all of two", map[string]string{"cpu.stat": "usage_usec 4000\nuser_usec 1\n", "cpuset.cpus.effective": "0-1\n", "cpu.max": "max 100000\n"}, times{2e6, 7}},
		{"half of one", map[string]string{"cpu.stat": "usage_usec 4000\n", "cpuset.cpus.effective": "0,2-3", "cpu.max": "50000 100000"}, times{8e6, 7}},
	} {
		root := files(t, tt.all)
		if got, err := cgroup2Times(root, 7); err != nil || got != tt.want {
			t.Errorf("%s: %v, %v; want %v", tt.what, got, err, tt.want)
		}
		for name := range tt.all {
			broken := files(t, tt.all)
			write(t, broken, map[string]string{name: "?"})
			if got, err := cgroup2Times(broken, 7); err == nil {
				t.Errorf("%s: %v of a bad %s", tt.what, got, name)
			}
		}
	}
	v1 := files(t, map[string]string{"cpu.shares": "500", "cpuacct.usage": "1000"})
	if got, err := cgroup1Times(v1, 7); err != nil || got != (times{2000, 7}) {
		t.Errorf("version 1: %v, %v", got, err)
	}
	if _, err := processors(t.TempDir(), true); err != errNoCPUCgroup {
		t.Errorf("without cgroups: %v", err)
	}
}

// What is measured of this process is something, and not everything.
func TestTheHeapIsMeasured(t *testing.T) {
	read := heap(func() uint64 { return 1 << 40 })
	if got, err := read(); err != nil || got <= 0 || got >= 1 {
		t.Errorf("%v, %v", got, err)
	}
	if got, _ := heap(func() uint64 { return 1 })(); got < 1 {
		t.Errorf("%v of one byte", got)
	}
}
