package loop

import "time"

// Timer calls a function on its worker's thread at a time. The zero value with
// F set is ready; it is armed by Worker.At and After.
type Timer struct {
	F     func()
	at    int64
	index int // in the heap, plus one; 0 when not armed
}

// Armed tells whether the timer is going to fire.
func (t *Timer) Armed() bool { return t.index != 0 }

// At arms the timer, or moves it, to a time of CLOCK_MONOTONIC in nanoseconds.
func (w *Worker) At(t *Timer, at int64) {
	t.at = at
	if t.index == 0 {
		w.timers = append(w.timers, t)
		t.index = len(w.timers)
		w.timers.up(t.index - 1)
		return
	}
	w.timers.fix(t.index - 1)
}

// After arms the timer, or moves it, to d from now.
func (w *Worker) After(t *Timer, d time.Duration) { w.At(t, w.now+int64(d)) }

// Stop disarms the timer if it is armed.
func (w *Worker) Stop(t *Timer) {
	if t.index == 0 {
		return
	}
	i := t.index - 1
	t.index = 0
	last := len(w.timers) - 1
	moved := w.timers[last]
	w.timers[last] = nil
	w.timers = w.timers[:last]
	if i != last {
		w.timers[i] = moved
		moved.index = i + 1
		w.timers.fix(i)
	}
}

// timerHeap is a binary heap by time. It is written out, not container/heap,
// because a timer has to know its place to be moved or stopped.
type timerHeap []*Timer

func (h timerHeap) wait(now int64) time.Duration {
	if len(h) == 0 {
		return -1
	}
	return time.Duration(max(0, h[0].at-now))
}

func (h *timerHeap) fire(now int64) {
	for len(*h) > 0 && (*h)[0].at <= now {
		t := (*h)[0]
		last := len(*h) - 1
		moved := (*h)[last]
		(*h)[last] = nil
		*h = (*h)[:last]
		t.index = 0
		if last > 0 {
			(*h)[0] = moved
			moved.index = 1
			h.down(0)
		}
		t.F()
	}
}

func (h timerHeap) fix(i int) {
	h.up(i)
	h.down(i)
}

func (h timerHeap) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if h[parent].at <= h[i].at {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h timerHeap) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && h[child+1].at < h[child].at {
			child++
		}
		if h[i].at <= h[child].at {
			return
		}
		h.swap(i, child)
		i = child
	}
}

func (h timerHeap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}
