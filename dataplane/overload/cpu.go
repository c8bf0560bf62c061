package overload

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// dampening is the share of the newest measurement, as Envoy has it: a pressure that
// rises at once is seen after tens of rounds.
const dampening = 0.05

var errNoTimes = errors.New("Failed to read CPU times")

// times are the processors' work and all the time that there was for it, in one unit.
// Only differences mean something.
type times struct{ work, total float64 }

// processors is how busy the machine's processors are, or the container's.
func processors(root string, container bool) (func() (float64, error), error) {
	read := func() (times, error) { return machineTimes(filepath.Join(root, "proc/stat")) }
	if container {
		v2, v1 := filepath.Join(root, "sys/fs/cgroup"), filepath.Join(root, "sys/fs/cgroup/cpu")
		begun := time.Now()
		elapsed := func() float64 { return float64(time.Since(begun)) }
		switch {
		case exists(filepath.Join(v2, "cpu.stat")) && exists(filepath.Join(v2, "cpu.max")) && exists(filepath.Join(v2, "cpuset.cpus.effective")):
			read = func() (times, error) { return cgroup2Times(v2, elapsed()) }
		case exists(filepath.Join(v1, "cpu.shares")) && exists(filepath.Join(v1, "cpuacct.usage")):
			read = func() (times, error) { return cgroup1Times(v1, elapsed()) }
		default:
			return nil, errNoCPUCgroup
		}
	}
	return dampened(read), nil
}

// dampened is the moving average of what read's differences say. The first reading
// counts as no work.
func dampened(read func() (times, error)) func() (float64, error) {
	before, err := read()
	known, average := err == nil, 0.0
	return func() (float64, error) {
		now, err := read()
		if err != nil {
			return 0, errNoTimes
		}
		busy := 0.0
		if known {
			work, total := now.work-before.work, now.total-before.total
			if work < 0 || total <= 0 {
				return 0, fmt.Errorf("Erroneous CPU stats calculation. Work_over_period='%v' cannot be a negative number and total_over_period='%v' must be a positive number.", work, total)
			}
			busy = min(work/total, 1)
		}
		before, known = now, true
		average = busy*dampening + average*(1-dampening)
		return average, nil
	}
}

// machineTimes reads /proc/stat: user, nice and system against those and idle.
func machineTimes(path string) (t times, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return t, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line)
	if len(f) < 5 || f[0] != "cpu" {
		return t, fmt.Errorf("Unexpected format in linux cpu stats file %s", path)
	}
	for i, text := range f[1:5] {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return t, err
		}
		if i < 3 {
			t.work += float64(n)
		}
		t.total += float64(n)
	}
	return t, nil
}

// cgroup2Times has for time what the cgroup may use of its processors, in nanoseconds.
func cgroup2Times(dir string, elapsed float64) (t times, err error) {
	stat, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return t, err
	}
	used := -1.0
	for line := range strings.Lines(string(stat)) {
		if text, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
			if err != nil {
				return t, err
			}
			used = float64(n) * 1000
		}
	}
	if used < 0 {
		return t, errors.New("Missing usage_usec in cpu.stat file")
	}
	effective, err := os.ReadFile(filepath.Join(dir, "cpuset.cpus.effective"))
	if err != nil {
		return t, err
	}
	cores, err := countCPUs(strings.TrimSpace(string(effective)))
	if err != nil {
		return t, err
	}
	limit, err := os.ReadFile(filepath.Join(dir, "cpu.max"))
	if err != nil {
		return t, err
	}
	if cores, err = quota(string(limit), cores); err != nil {
		return t, err
	}
	return times{used / cores, elapsed}, nil
}

// quota is how many of n processors cpu.max lets the cgroup use.
func quota(text string, n float64) (float64, error) {
	f := strings.Fields(text)
	if len(f) != 2 {
		return 0, errors.New("Unexpected cpu.max format")
	}
	if f[0] == "max" {
		return n, nil
	}
	most, err := strconv.ParseUint(f[0], 10, 63)
	period, err2 := strconv.ParseUint(f[1], 10, 63)
	if err != nil || err2 != nil || most == 0 || period == 0 {
		return 0, errors.New("Failed to parse cpu.max values")
	}
	return min(n, float64(most)/float64(period)), nil
}

// countCPUs reads a list as `0-3,5`.
func countCPUs(list string) (n float64, err error) {
	for one := range strings.SplitSeq(list, ",") {
		low, high, ranged := strings.Cut(one, "-")
		if !ranged {
			high = low
		}
		a, err := strconv.ParseUint(low, 10, 31)
		b, err2 := strconv.ParseUint(high, 10, 31)
		if err != nil || err2 != nil || b < a {
			return 0, fmt.Errorf("read list of CPUs: %q", list)
		}
		n += float64(b - a + 1)
	}
	return n, nil
}

// cgroup1Times is in nanoseconds; the share is in thousandths of a processor.
func cgroup1Times(dir string, elapsed float64) (t times, err error) {
	shares, err := readNumber(filepath.Join(dir, "cpu.shares"))
	if err != nil {
		return t, err
	}
	used, err := readNumber(filepath.Join(dir, "cpuacct.usage"))
	if err != nil {
		return t, err
	}
	if shares <= 0 {
		return t, fmt.Errorf("Invalid CPU shares value: %v", shares)
	}
	return times{used * 1000 / shares, elapsed}, nil
}

func readNumber(path string) (float64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
}
