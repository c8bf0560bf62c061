package torture

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// script is what the two ends of a connection do: [0] the client, [1] the server.
type script struct {
	end   [2]conduct
	limit uint32
	// dawdle is how long the proxy leaves the accepted connection alone, so that
	// bytes and FIN are there before the pair is.
	dawdle time.Duration
	// early asks for the graft before the first byte.
	early bool
	// cut has the proxy end it in order, at a moment when its sockets are at rest.
	cut bool
}

// ending is how an end goes.
type ending uint8

const (
	fin   ending = iota // FIN after the last byte, then reads to the end
	reset               // RST after some bytes
	death               // close with whatever is unread, after some bytes
)

func (e ending) String() string { return [...]string{"fin", "reset", "death"}[e] }

// conduct is what one end does.
type conduct struct {
	total  int64 // bytes that it sends in all
	sizes  [2]int
	pause  time.Duration // between two messages, one time in often
	often  int
	answer bool  // sends only after the other's end
	turns  []int // messages, each sent when what it answers has come whole
	last   bool  // ends only after the other's end
	ending ending

	buffer   int           // of a read
	nap      time.Duration // now and then between two reads
	stallAt  int64         // offset at which the reader stops for a while
	stall    time.Duration
	narrow   bool // a small receive buffer
	lateRead time.Duration
}

// draw makes a script. Every choice is of the connection's own random numbers.
func draw(r *rand.Rand, w *wire) (s script) {
	s.limit = 4 << 10 << r.IntN(9)
	if r.IntN(4) == 0 {
		s.dawdle = time.Duration(r.IntN(5000)) * time.Microsecond
	}
	for i := range s.end {
		c := &s.end[i]
		c.total = spread(r, w.most)
		switch r.IntN(4) {
		case 0:
			c.sizes, c.total = [2]int{1, 16}, min(c.total, 20<<10)
		case 1:
			c.sizes, c.total = [2]int{1, 2000}, min(c.total, 500<<10)
		case 2:
			c.sizes = [2]int{1, 64 << 10}
		case 3:
			c.sizes = [2]int{16 << 10, 256 << 10}
		}
		if r.IntN(2) == 0 {
			c.pause = time.Duration(1+r.IntN(1000)) * time.Microsecond
		}
		c.often = 1 + r.IntN(8)
		c.buffer = 1 + int(spread(r, 256<<10))
		if r.IntN(4) == 0 {
			c.nap = time.Duration(1+r.IntN(2000)) * time.Microsecond
		}
		if r.IntN(5) == 0 {
			c.stall = time.Duration(1+r.IntN(300)) * time.Millisecond
		}
		if r.IntN(6) == 0 {
			c.lateRead = time.Duration(1+r.IntN(50)) * time.Millisecond
		}
		c.narrow = r.IntN(4) == 0
	}
	if r.IntN(4) > 0 {
		s.chat(r)
	}
	for i := range s.end {
		if s.end[i].narrow { // a window smaller than a segment is slow
			s.end[1-i].total = min(s.end[1-i].total, 64<<10)
		}
		s.end[i].stallAt = r.Int64N(s.end[1-i].total + 1)
		// A tiny buffer is for short streams: each read costs a system call.
		if other := s.end[1-i].total; int64(s.end[i].buffer) < other/2000 {
			s.end[i].buffer = int(other/2000) + 1
		}
		if s.end[i].nap > 0 {
			s.end[i].buffer = max(s.end[i].buffer, int(s.end[1-i].total/400)+1)
		}
	}
	switch r.IntN(10) {
	case 0, 1:
		s.end[0].answer = true
	case 2, 3:
		s.end[1].answer = true
	case 4: // FIN right behind the first bytes
		s.end[r.IntN(2)].total = r.Int64N(3000)
	}
	switch r.IntN(8) {
	case 0:
		s.end[r.IntN(2)].ending = reset
	case 1:
		s.end[r.IntN(2)].ending = death
	}
	for i := range s.end {
		if c := &s.end[i]; c.ending != fin {
			c.answer = false
			c.total = r.Int64N(c.total + 1)
		}
	}
	return s
}

// chat makes a long conversation of it, in which paths can change many times.
func (s *script) chat(r *rand.Rand) {
	for i := range s.end {
		c := &s.end[i]
		c.total = 200<<10 + r.Int64N(1800<<10)
		c.sizes = [2]int{1, 100 << r.IntN(6)}
		c.total = min(c.total, int64(c.sizes[1])*3000)
		c.pause, c.often = time.Duration(1+r.IntN(400))*time.Microsecond, 1+r.IntN(3)
		c.buffer = max(c.buffer, 1000)
		c.nap, c.narrow = 0, false
	}
}

// spread draws from 0 to most, each order of magnitude as often as any.
func spread(r *rand.Rand, most int64) int64 {
	bits := 0
	for n := most; n > 0; n >>= 1 {
		bits++
	}
	return min(r.Int64N(1<<r.IntN(bits+1)), most)
}

// orderly tells whether nobody breaks the connection.
func (s script) orderly() bool { return !s.cut && s.end[0].ending == fin && s.end[1].ending == fin }

func (s script) String() string {
	out := fmt.Sprintf("limit %d dawdle %v", s.limit, s.dawdle)
	for i, name := range []string{"client", "server"} {
		c := s.end[i]
		out += fmt.Sprintf("; %s sends %d in %v pause %v answer %v last %v turns %d ends by %v, reads %d nap %v stall %v at %d late %v narrow %v",
			name, c.total, c.sizes, c.pause, c.answer, c.last, len(c.turns), c.ending, c.buffer, c.nap, c.stall, c.stallAt, c.lateRead, c.narrow)
	}
	return out
}
