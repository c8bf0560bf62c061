package pair

import (
	"time"

	"github.com/sluice-proxy/sluice/bpf"
	"golang.org/x/sys/unix"
)

const (
	// partPeriod is how often a pair that parts is looked at: some round trips of the
	// links that it is for.
	partPeriod = time.Millisecond
	// partWithin is how long what is under way may take to be acknowledged: a segment
	// that is lost is sent again within that, and a lone ACK is not held back longer.
	partWithin = 300 * time.Millisecond
)

// parting is a grafted pair that was ended in order. Its sockets are open until its
// halves have parted, and then say FIN to both sides as any others would; where that
// cannot be they say RST.
type parting struct {
	bpf.Grafted
	fds   [2]int
	until int64
}

// part has the pair's sockets closed when its halves have parted. False says that
// they cannot: it is not at rest.
func (p *Pair) part() bool {
	s, g := p.set, p.cfg.graft
	if !g.frozen || !g.Part() {
		return false
	}
	for i := range p.ends {
		s.worker.Del(p.ends[i].fd)
	}
	s.partings = append(s.partings, parting{g.Grafted, [2]int{p.ends[0].fd, p.ends[1].fd}, s.worker.Now() + int64(s.partWithin)})
	if !s.parts.Armed() {
		s.worker.After(&s.parts, partPeriod)
	}
	return true
}

// partAll looks at all that are to part.
func (s *Set) partAll() {
	left := s.partings[:0]
	for _, p := range s.partings {
		if !p.over(s) {
			left = append(left, p)
		}
	}
	clear(s.partings[len(left):])
	if s.partings = left; len(left) > 0 {
		s.worker.After(&s.parts, partPeriod)
	}
}

// over closes the sockets if it is time to.
func (p *parting) over(s *Set) bool {
	switch p.State() {
	case bpf.GraftParting:
		done, err := p.Parted()
		switch {
		case done:
			s.Parted.Add(1)
			lingerOff(p.fds[0])
			lingerOff(p.fds[1])
		case err != nil || s.worker.Now() >= p.until:
			p.End()
		default:
			return false
		}
	default: // its ends came to an end of their own: the sockets' RSTs reach nobody
	}
	p.close()
	return true
}

func (p *parting) close() {
	unix.Close(p.fds[0])
	unix.Close(p.fds[1])
	p.Rest()
}

// partNone ends by RST what has not parted.
func (s *Set) partNone() {
	s.worker.Stop(&s.parts)
	for _, p := range s.partings {
		p.End()
		p.close()
	}
	s.partings = nil
}
