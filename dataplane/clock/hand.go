package clock

import (
	"slices"
	"sync"
	"time"
)

// Hand is a clock that stands still until it is moved. The zero value begins at
// the zero time.
type Hand struct {
	mu     sync.Mutex
	now    time.Time
	timers []*handTimer
}

type handTimer struct {
	clock *Hand
	at    time.Time
	f     func()
}

// Now is the time that the clock was moved to.
func (h *Hand) Now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

// AfterFunc has Move call f.
func (h *Hand) AfterFunc(d time.Duration, f func()) Timer {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := &handTimer{clock: h, at: h.now.Add(d), f: f}
	h.timers = append(h.timers, t)
	return t
}

func (t *handTimer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	i := slices.Index(t.clock.timers, t)
	if i < 0 {
		return false
	}
	t.clock.timers = slices.Delete(t.clock.timers, i, i+1)
	return true
}

// Move moves the clock on, and calls what becomes due, in order, before it
// returns.
func (h *Hand) Move(d time.Duration) {
	h.mu.Lock()
	end := h.now.Add(d)
	for {
		var next *handTimer
		for _, t := range h.timers {
			if !t.at.After(end) && (next == nil || t.at.Before(next.at)) {
				next = t
			}
		}
		if next == nil {
			break
		}
		h.timers = slices.DeleteFunc(h.timers, func(t *handTimer) bool { return t == next })
		h.now = next.at
		h.mu.Unlock()
		next.f()
		h.mu.Lock()
	}
	h.now = end
	h.mu.Unlock()
}

// Next is how long it is until something is due; false: nothing is.
func (h *Hand) Next() (time.Duration, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.timers) == 0 {
		return 0, false
	}
	first := slices.MinFunc(h.timers, func(a, b *handTimer) int { return a.at.Compare(b.at) })
	return first.at.Sub(h.now), true
}
