package main

import (
	"os"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// burstGarbage is how much garbage there may be in a burst, in percent of what
	// lives; usualGarbage is Go's own figure, for all other times.
	burstGarbage = 400
	usualGarbage = 100
	// burstEnd is how long after the last big response a burst is over; longestBurst
	// ends it whatever comes.
	burstEnd     = time.Second
	longestBurst = 5 * time.Second
)

// garbage lets a push be decoded with fewer visits of the collector, which would
// come several times while the heap grows, and take from the workers the
// processors that they need at that very moment. What was left is collected when
// the burst is over.
type garbage struct {
	set func(percent int) int // debug.SetGCPercent

	mu    sync.Mutex
	began time.Time   // the burst that is on
	end   *time.Timer // nil when none is
}

// newGarbage returns nil where the operator has said how much garbage there may be.
func newGarbage() *garbage {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	return &garbage{set: debug.SetGCPercent}
}

// burst is called before a big response is decoded.
func (g *garbage) burst() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.end != nil {
		g.end.Reset(max(0, min(burstEnd, longestBurst-time.Since(g.began))))
		return
	}
	g.set(burstGarbage)
	g.began, g.end = time.Now(), time.AfterFunc(burstEnd, g.over)
}

func (g *garbage) over() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.end != nil {
		g.end = nil
		g.set(usualGarbage)
	}
}
