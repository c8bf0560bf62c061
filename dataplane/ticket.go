package dataplane

// ticket is a socket's place among the limits, from its accept to its end.
type ticket struct {
	p      *Plane
	l      *listener
	worker int // that serves it
	held   bool
}

// admit counts a socket in, unless a limit is reached, and chooses its worker. fresh
// says that it was just accepted: one that is handed on is no new load.
func (p *Plane) admit(l *listener, worker int, fresh bool) (ticket, bool) {
	limits := p.limits.Load()
	if n := p.open.Add(1); limits.Connections > 0 && !l.config.IgnoreGlobalLimit && n > int64(limits.Connections) {
		p.open.Add(-1)
		p.overload.Overflowed()
		l.stats.globalOverflow.Inc()
		return ticket{}, false
	}
	if fresh && p.sheds(l) {
		p.open.Add(-1)
		return ticket{}, false
	}
	if n, most := l.open.Add(1), limits.ByListener[l.config.Name]; most > 0 && n > int64(most) {
		l.open.Add(-1)
		p.open.Add(-1)
		l.stats.overflow.Inc()
		return ticket{}, false
	}
	if l.config.ExactBalance {
		worker = l.lightest(worker)
	}
	l.balance[worker].Add(1)
	return ticket{p: p, l: l, worker: worker, held: l.holders.Hold()}, true
}

// lightest is the worker with the fewest sockets of the listener; own wins a tie.
func (l *listener) lightest(own int) int {
	least := l.balance[own].Load()
	for i := range l.balance {
		if n := l.balance[i].Load(); n < least {
			own, least = i, n
		}
	}
	return own
}

// back gives the place back.
func (t ticket) back() {
	t.p.open.Add(-1)
	t.l.open.Add(-1)
	t.l.balance[t.worker].Add(-1)
	if t.held {
		t.l.holders.Drop()
	}
}
