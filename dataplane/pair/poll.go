package pair

import "time"

// The poll: what is owed has other ways to be noticed, and this one is there for
// where there is none, or when they fail. It begins fast and gets slow.
const (
	firstPoll   = 200 * time.Microsecond
	longestPoll = time.Second
)

// pollSoon has the direction pumped again without an event.
func (d *direction) pollSoon() {
	if d.due != 0 {
		return
	}
	d.backoff = min(max(firstPoll, 2*d.backoff), longestPoll)
	d.due = d.p.set.worker.Now() + int64(d.backoff)
	d.p.arm()
}

// arm sets the timer to what comes first.
func (p *Pair) arm() {
	first := p.deadline
	for _, due := range [...]int64{p.idle, p.direction[0].due, p.direction[1].due} {
		if due != 0 && (first == 0 || due < first) {
			first = due
		}
	}
	if first != 0 {
		p.set.worker.At(&p.timer, first)
	}
}

func (p *Pair) timed() {
	now := p.set.worker.Now()
	if p.deadline != 0 && now >= p.deadline {
		p.close(p.broken, true)
		return
	}
	if p.idle != 0 && now >= p.idle {
		if p.idled(); p.closed {
			return
		}
	}
	for i := range p.direction {
		if d := &p.direction[i]; d.due != 0 && d.due <= now {
			d.due = 0
			d.pump()
		}
	}
	if !p.closed {
		p.arm()
		p.watch()
	}
}
