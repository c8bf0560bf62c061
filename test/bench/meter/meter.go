// Package meter reads from /proc what processes and the machine have used.
package meter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Usage is what a set of processes has used since they began.
type Usage struct {
	// CPU is utime and stime, as the scheduler counts them, in ns.
	CPU time.Duration
	// Voluntary switches are those to wait; each is followed by a wake-up.
	Voluntary, Involuntary uint64
}

// Sub is the usage since an earlier one.
func (u Usage) Sub(o Usage) Usage {
	return Usage{CPU: u.CPU - o.CPU, Voluntary: u.Voluntary - o.Voluntary, Involuntary: u.Involuntary - o.Involuntary}
}

// Read sums up the threads of the processes. Threads that end in between take
// their share with them.
func Read(pids []int) (Usage, error) {
	var u Usage
	for _, pid := range pids {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return u, fmt.Errorf("read usage: %w", err)
		}
		for _, t := range tasks {
			dir := fmt.Sprintf("/proc/%d/task/%s/", pid, t.Name())
			sched, err := os.ReadFile(dir + "schedstat")
			if errors.Is(err, fs.ErrNotExist) {
				continue // the thread has ended
			} else if err != nil {
				return u, fmt.Errorf("read usage: %w", err)
			}
			ran, _, _ := strings.Cut(string(sched), " ")
			ns, err := strconv.ParseInt(ran, 10, 64)
			if err != nil {
				return u, fmt.Errorf("read usage of thread %s: %w", t.Name(), err)
			}
			u.CPU += time.Duration(ns)
			status, err := os.ReadFile(dir + "status")
			if err != nil {
				continue
			}
			u.Voluntary += field(string(status), "voluntary_ctxt_switches:")
			u.Involuntary += field(string(status), "nonvoluntary_ctxt_switches:")
		}
	}
	return u, nil
}

// Memory is what processes hold, in bytes: RSS counts what they share with
// others in full, PSS by shares.
type Memory struct{ RSS, PSS uint64 }

// ReadMemory sums up the processes.
func ReadMemory(pids []int) (Memory, error) {
	var m Memory
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return m, fmt.Errorf("read memory: %w", err)
		}
		m.RSS += field(string(text), "Rss:") << 10
		m.PSS += field(string(text), "Pss:") << 10
	}
	return m, nil
}

// field finds "name value" at the beginning of a line.
func field(text, name string) uint64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			f := strings.Fields(rest)
			if len(f) > 0 {
				n, _ := strconv.ParseUint(f[0], 10, 64)
				return n
			}
		}
	}
	return 0
}

// tick is USER_HZ, which is 100 on every Linux that Go runs on.
const tick = time.Second / 100

// Busy is the time that all CPUs together have not been idle, to 10 ms.
func Busy() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read use of the machine: %w", err)
	}
	return busy(string(text))
}

func busy(stat string) (time.Duration, error) {
	line, _, _ := strings.Cut(stat, "\n")
	f := strings.Fields(line)
	if len(f) < 8 || f[0] != "cpu" {
		return 0, fmt.Errorf("read use of the machine: first line of /proc/stat is %q", line)
	}
	var sum time.Duration
	for i, s := range f[1:8] { // user nice system idle iowait irq softirq
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read use of the machine: %w", err)
		}
		if i != 3 && i != 4 {
			sum += time.Duration(n) * tick
		}
	}
	return sum, nil
}

// Family is the process and all that descend from it, the process first.
func Family(pid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	children := map[int][]int{}
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		id, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		// The name in brackets may hold spaces.
		_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')'):]), " ")
		if f := strings.Fields(rest); len(f) > 1 {
			parent, _ := strconv.Atoi(f[1])
			children[parent] = append(children[parent], id)
		}
	}
	family := []int{pid}
	for i := 0; i < len(family); i++ {
		c := children[family[i]]
		slices.Sort(c)
		family = append(family, c...)
	}
	return family, nil
}
