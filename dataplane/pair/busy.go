package pair

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

const (
	// cpuPeriod is how long a reading of the machine's idle share counts.
	cpuPeriod = int64(time.Second)
	// quietIdle is the share of idle CPU, in percent, from which on the machine
	// counts as quiet.
	quietIdle = 30
)

// cpuTime is the machine's, of all CPUs together, since boot, in ticks.
type cpuTime struct{ idle, total uint64 }

func readCPU() (cpuTime, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpuTime{}, fmt.Errorf("read CPU times: %w", err)
	}
	return parseCPU(b)
}

// parseCPU reads the first line of /proc/stat (proc(5)): user nice system idle
// iowait irq softirq steal; what follows is in user and nice already.
func parseCPU(b []byte) (t cpuTime, err error) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	f := bytes.Fields(line)
	if len(f) < 6 || string(f[0]) != "cpu" {
		return t, fmt.Errorf("read CPU times: %q is not as expected", line)
	}
	for i, word := range f[1:min(len(f), 9)] {
		n, err := strconv.ParseUint(string(word), 10, 64)
		if err != nil {
			return t, fmt.Errorf("read CPU times: %w", err)
		}
		t.total += n
		if i == 3 || i == 4 {
			t.idle += n
		}
	}
	return t, nil
}

// cpu is a reading of it, and what it said.
type cpu struct {
	read  func() (cpuTime, error) // replaced by tests
	at    int64                   // 0 for never
	then  cpuTime
	quiet bool
}

// isQuiet tells whether CPUs had nothing to do in the last second or so. It is
// false until that is known, and after a while in which nobody asked: what was
// then says nothing of now.
func (c *cpu) isQuiet(now int64) (bool, error) {
	if c.at != 0 && now-c.at < cpuPeriod {
		return c.quiet, nil
	}
	t, err := c.read()
	if err != nil {
		t = cpuTime{}
	}
	idle, total := t.idle-c.then.idle, t.total-c.then.total
	c.quiet = err == nil && c.at != 0 && now-c.at < 2*cpuPeriod && total > 0 && idle*100 >= total*quietIdle
	c.at, c.then = now, t
	return c.quiet, err
}
