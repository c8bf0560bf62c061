package pair

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// memoryPeriod is how long a reading of TCP's memory counts.
const memoryPeriod = int64(time.Second)

// Memory is what TCP has of the host's memory, in pages: all sockets together,
// and the marks of the sysctl net.ipv4.tcp_mem. Above Pressure the kernel takes
// from every socket's buffers, until the sum is below Low.
type Memory struct{ Used, Low, Pressure uint64 }

// TCPMemory reads it from /proc.
func TCPMemory() (Memory, error) {
	var m Memory
	marks, err := os.ReadFile("/proc/sys/net/ipv4/tcp_mem")
	if err != nil {
		return m, fmt.Errorf("read TCP's memory marks: %w", err)
	}
	stat, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return m, fmt.Errorf("read TCP's memory: %w", err)
	}
	err = m.parse(marks, stat)
	return m, err
}

func (m *Memory) parse(marks, stat []byte) error {
	f := bytes.Fields(marks)
	if len(f) != 3 {
		return fmt.Errorf("read TCP's memory marks: %q has not three words", marks)
	}
	var err error
	for i, into := range []*uint64{&m.Low, &m.Pressure} {
		if *into, err = strconv.ParseUint(string(f[i]), 10, 64); err != nil {
			return fmt.Errorf("read TCP's memory marks: %w", err)
		}
	}
	for line := range bytes.Lines(stat) {
		if f := bytes.Fields(line); len(f) > 2 && string(f[0]) == "TCP:" && string(f[len(f)-2]) == "mem" {
			if m.Used, err = strconv.ParseUint(string(f[len(f)-1]), 10, 64); err != nil {
				return fmt.Errorf("read TCP's memory: %w", err)
			}
			return nil
		}
	}
	return fmt.Errorf("read TCP's memory: no mem in %q", stat)
}

// IgnoreMemory has the set promote however short of memory TCP is: the self-test
// wants to know what the kernel does, not when. Before the first pair.
func (s *Set) IgnoreMemory() { s.memory = func() (Memory, error) { return Memory{}, nil } }

// pressed tells, from a reading that is at most a second old, whether TCP is
// short of memory, or whether the backlogs hold half of what they may: then
// nothing more is given to the verdict, whose backlogs come on top of what TCP
// accounts for.
func (s *Set) pressed() bool {
	if limit, charged := s.splice.Budget(); charged > limit/2 {
		return true
	}
	now := s.worker.Now()
	if s.memoryRead != 0 && now-s.memoryRead < memoryPeriod {
		return s.pressure
	}
	s.memoryRead = now
	m, err := s.memory()
	if err != nil {
		s.log.Warn("watch TCP's memory", "error", err)
		s.pressure = false
		return false
	}
	s.pressure = m.Used > m.Pressure || s.pressure && m.Used > m.Low
	return s.pressure
}
