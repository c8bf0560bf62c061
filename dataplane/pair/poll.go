package pair

import (
	"time"

	"github.com/sluice-proxy/sluice/dataplane/loop"
)

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

// alarm is what a pair has that waits for a time.
type alarm struct {
	// timer is for what comes first of the polls of the directions and these.
	timer    loop.Timer
	deadline int64 // of a pair whose one end has failed
	idle     int64 // of a pair with a short idle timeout
}

func (p *Pair) needAlarm() *alarm {
	if p.alarm == nil {
		p.alarm = &alarm{timer: loop.Timer{F: p.timed}}
	}
	return p.alarm
}

func (p *Pair) dropAlarm() {
	if p.alarm != nil {
		p.set.worker.Stop(&p.alarm.timer)
		p.alarm = nil
	}
}

// deadline is when a pair whose one end has failed is reset, 0 for another.
func (p *Pair) deadline() int64 {
	if p.alarm == nil {
		return 0
	}
	return p.alarm.deadline
}

// arm sets the alarm to what comes first, or gives it up.
func (p *Pair) arm() {
	first := p.deadline()
	dues := [...]int64{p.direction[0].due, p.direction[1].due, 0}
	if p.alarm != nil {
		dues[2] = p.alarm.idle
	}
	for _, due := range dues {
		if due != 0 && (first == 0 || due < first) {
			first = due
		}
	}
	if first == 0 {
		p.dropAlarm()
		return
	}
	p.set.worker.At(&p.needAlarm().timer, first)
}

func (p *Pair) timed() {
	now := p.set.worker.Now()
	if at := p.deadline(); at != 0 && now >= at {
		p.close(p.broken, true)
		return
	}
	if a := p.alarm; a.idle != 0 && now >= a.idle {
		if a.idle = p.idled(now); p.closed {
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
