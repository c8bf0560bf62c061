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

// quiet tells whether CPUs had nothing to do in the last second or so. It is
// false until that is known, and after a while in which nobody asked: what was
// then says nothing of now.
func (s *Set) quiet() bool {
	now := s.worker.Now()
	if s.cpuRead != 0 && now-s.cpuRead < cpuPeriod {
		return s.isQuiet
	}
	t, err := s.cpu()
	if err != nil {
		s.log.Warn("watch CPU", "error", err)
		t = cpuTime{}
	}
	idle, total := t.idle-s.cpuThen.idle, t.total-s.cpuThen.total
	s.isQuiet = err == nil && s.cpuRead != 0 && now-s.cpuRead < 2*cpuPeriod && total > 0 && idle*100 >= total*quietIdle
	s.cpuRead, s.cpuThen = now, t
	return s.isQuiet
}
