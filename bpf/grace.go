package bpf

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// membarrierGlobal is MEMBARRIER_CMD_GLOBAL (linux/membarrier.h).
const membarrierGlobal = 1

// grace waits for the kernel's grace periods (RCU): when one has passed, no CPU is
// still at work on a packet that it began before. It takes milliseconds, and has a
// goroutine of its own, which asks once for all that wait.
type grace struct {
	wanted, passed atomic.Uint64
	ask            chan struct{}
	done           chan struct{}
}

func newGrace() (*grace, error) {
	if err := haveMembarrier(); err != nil {
		return nil, err
	}
	g := &grace{ask: make(chan struct{}, 1), done: make(chan struct{})}
	go g.wait()
	return g, nil
}

func haveMembarrier() error {
	commands, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, 0, 0, 0)
	switch {
	case errno != 0:
		return fmt.Errorf("ask for membarrier: %w", errno)
	case commands&membarrierGlobal == 0:
		return fmt.Errorf("ask for membarrier: the kernel has no MEMBARRIER_CMD_GLOBAL among its commands, %#x", commands)
	}
	return nil
}

func (g *grace) wait() {
	defer close(g.done)
	for range g.ask {
		n := g.wanted.Load()
		if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno == 0 {
			g.passed.Store(n)
		}
	}
}

// begin asks for a period; over tells whether it has passed.
func (g *grace) begin() uint64 {
	n := g.wanted.Add(1)
	select {
	case g.ask <- struct{}{}:
	default: // the one that is asked for begins later than now
	}
	return n
}

func (g *grace) over(n uint64) bool { return g.passed.Load() >= n }

func (g *grace) close() {
	close(g.ask)
	<-g.done
}
