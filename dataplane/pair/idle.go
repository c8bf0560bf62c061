package pair

import "time"

// A long idle timeout needs no timer for each pair: one sweep over all of them
// finds those that are over, at most sweepGap late.
const (
	sweepFrom = 10 * time.Second
	sweepGap  = time.Second
)

// watchIdle has the pair ended after its idle timeout, if it has one.
func (p *Pair) watchIdle() {
	at := p.active + int64(p.cfg.IdleTimeout)
	switch s := p.set; {
	case p.cfg.IdleTimeout == 0:
	case p.cfg.IdleTimeout < s.sweepFrom:
		p.needAlarm().idle = at
		p.arm()
	case !s.sweep.Armed() || at < s.sweepAt:
		s.sweepAt = at
		s.worker.At(&s.sweep, at)
	}
}

// idled ends the pair if its idle timeout is over, else it says when that may be.
func (p *Pair) idled(now int64) (at int64) {
	if at := p.Activity() + int64(p.cfg.IdleTimeout); at > now {
		return at
	}
	p.close(IdleTimeout, p.owes())
	return 0
}

// sweepIdle comes back when the next pair may be over, but not at once.
func (s *Set) sweepIdle() {
	now, next := s.worker.Now(), int64(0)
	for i := len(s.pairs) - 1; i >= 0; i-- {
		if t := s.pairs[i].cfg.IdleTimeout; t == 0 || t < s.sweepFrom {
			continue
		}
		if at := s.pairs[i].idled(now); at != 0 && (next == 0 || at < next) {
			next = at
		}
	}
	if next != 0 {
		s.sweepAt = max(next, now+int64(sweepGap))
		s.worker.At(&s.sweep, s.sweepAt)
	}
}
