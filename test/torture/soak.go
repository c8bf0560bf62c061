package torture

import (
	"math/rand/v2"
	"time"
)

// brief makes a script of a soak: hundreds of such connections pass in a second.
func brief(r *rand.Rand, _ *wire) (s script) {
	s.limit = 4 << 10 << r.IntN(4)
	s.early = r.IntN(3) == 0
	s.cut = r.IntN(10) == 0
	if r.IntN(8) == 0 {
		s.dawdle = time.Duration(r.IntN(2000)) * time.Microsecond
	}
	for i := range s.end {
		c := &s.end[i]
		c.often, c.buffer = 1+r.IntN(4), 1<<10+int(spread(r, 127<<10))
		if r.IntN(3) == 0 {
			c.pause = time.Duration(1+r.IntN(500)) * time.Microsecond
		}
	}
	last := r.IntN(3) // 2: neither waits for the other's end
	switch r.IntN(8) {
	case 0, 1, 2, 3:
		s.pingPong(r, 8+r.IntN(80), 1<<(3+r.IntN(13)))
	case 4, 5: // bulk one way; the other side says little, and mostly stays
		from := r.IntN(2)
		s.pingPong(r, r.IntN(8), 512)
		s.bulk(r, from, 128<<10, 1<<20)
		s.bulk(r, 1-from, 1, 2<<10)
		if r.IntN(4) > 0 {
			last = 1 - from
		}
	default:
		s.pingPong(r, r.IntN(8), 512)
		s.bulk(r, 0, 32<<10, 512<<10)
		s.bulk(r, 1, 64<<10, 512<<10)
	}
	if last < 2 {
		s.end[last].last = true
	}
	if r.IntN(8) == 0 {
		c := &s.end[r.IntN(2)]
		c.ending, c.last = reset, false
		if r.IntN(2) == 0 {
			c.ending = death
		}
		c.total = r.Int64N(c.total + 1)
	}
	return s
}

// pingPong begins it with a conversation in which each side waits for the other.
func (s *script) pingPong(r *rand.Rand, rounds, most int) {
	for i := range s.end {
		c := &s.end[i]
		for range rounds {
			n := 1 + r.IntN(most)
			c.turns = append(c.turns, n)
			c.total += int64(n)
		}
		c.sizes = [2]int{1, most}
	}
}

// bulk has one end send so many bytes at once; the other may be slow to read, with
// a small buffer, so that windows are small, or shut, at the graft.
func (s *script) bulk(r *rand.Rand, from int, least, most int64) {
	c, to := &s.end[from], &s.end[1-from]
	bulk := least + spread(r, most-least)
	c.sizes = [2]int{1, 1 << (10 + r.IntN(8))}
	how := r.IntN(6)
	if how == 0 { // a window smaller than a segment is slow
		to.narrow = true
		bulk = min(bulk, 48<<10)
	}
	c.total += bulk
	switch how {
	case 1:
		to.stallAt, to.stall = r.Int64N(c.total+1), time.Duration(1+r.IntN(30))*time.Millisecond
	case 2:
		to.lateRead = time.Duration(1+r.IntN(20)) * time.Millisecond
	case 3:
		to.nap = time.Duration(1+r.IntN(500)) * time.Microsecond
		to.buffer = max(to.buffer, int(c.total/100)+1)
	}
	to.buffer = max(to.buffer, int(c.total/500)+1)
}

// takesTurns waits until what the next message answers has come whole; false says
// that it will not come.
func (e *end) takesTurns(message int) bool {
	need := int64(0)
	for _, n := range e.k.script.end[1-e.side].turns[:message+e.side] {
		need += int64(n)
	}
	for e.got.Load() < need {
		select {
		case <-e.news:
		case <-e.otherEnd:
			return e.got.Load() >= need
		}
	}
	return true
}
