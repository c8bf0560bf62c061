package meter

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

func TestUsageGrowsWithWork(t *testing.T) {
	pids := []int{os.Getpid()}
	before, err := Read(pids)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
	}
	time.Sleep(time.Millisecond)
	after, err := Read(pids)
	if err != nil {
		t.Fatal(err)
	}
	if u := after.Sub(before); u.CPU <= 0 || u.CPU > time.Minute || u.Voluntary == 0 {
		t.Errorf("usage of a busy moment and a sleep: %+v", u)
	}
	if _, err := Read([]int{1 << 30}); err == nil {
		t.Error("a process that is not there has a usage")
	}
	m, err := ReadMemory(pids)
	if err != nil || m.RSS < 1<<20 || m.PSS == 0 || m.PSS > m.RSS {
		t.Errorf("memory %+v, error %v", m, err)
	}
}

func TestFamilyHoldsChildrenOfChildren(t *testing.T) {
	cmd := exec.Command("sh", "-c", "(sleep 60; :) & wait")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var family []int
	for deadline := time.Now().Add(5 * time.Second); len(family) < 3 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		var err error
		if family, err = Family(cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	if len(family) != 3 || family[0] != cmd.Process.Pid || slices.Contains(family, os.Getpid()) {
		t.Errorf("family of %d: %v, want it, its child and its child's child", cmd.Process.Pid, family)
	}
	for _, pid := range family {
		p, _ := os.FindProcess(pid)
		_ = p.Kill()
	}
	_ = cmd.Wait()
}

func TestBusyLeavesOutIdleAndWait(t *testing.T) {
	got, err := busy("cpu  1 2 4 1000 2000 8 16 0 0 0\ncpu0 1 1 1 1 1 1 1\n")
	if err != nil || got != 310*time.Millisecond {
		t.Errorf("got %v, %v; want 310ms", got, err)
	}
	for _, text := range []string{"", "intr 1 2", "cpu 1 x 3 4 5 6 7 8"} {
		if _, err := busy(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestField(t *testing.T) {
	const text = "nonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t5\nRss:   12 kB\n"
	for name, want := range map[string]uint64{"voluntary_ctxt_switches:": 5, "nonvoluntary_ctxt_switches:": 7, "Rss:": 12, "Pss:": 0} {
		if got := field(text, name); got != want {
			t.Errorf("%s %d, want %d", name, got, want)
		}
	}
}
