package dataplane

import (
	"reflect"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/drain"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/loop"
)

// DrainOptions are the operator's say on what goes away under connections.
type DrainOptions struct {
	// Time is how long a drain lasts; at its end what is left is ended. 0 means
	// drain.DefaultTime.
	Time     time.Duration
	Strategy drain.Strategy
	// OnUpdate drains the connections of what an update changes, as Envoy does.
	// Without it they are kept for as long as their ends want them.
	OnUpdate bool
}

// drainStats are the figures of listener_manager that drains move.
type drainStats struct {
	listeners, chains *stats.Gauge
	stopped           *stats.Counter
}

func newDrainStats(s *stats.Store) drainStats {
	sc := s.Scope("listener_manager")
	return drainStats{listeners: sc.Gauge("total_listeners_draining"), chains: sc.Gauge("total_filter_chains_draining"), stopped: sc.Counter("listener_stopped")}
}

// stop says which listeners take no connections any more.
type stop uint8

const (
	stopNone stop = iota
	stopInbound
	stopAll
)

func (s stop) covers(c *api.Listener) bool {
	return s == stopAll || s == stopInbound && c.Direction == api.Inbound
}

// FailHealthChecks says whether /healthcheck/fail is in force.
func (p *Plane) FailHealthChecks(fail bool) { p.drains.FailHealthChecks(fail) }

// DrainListeners is /drain_listeners: connections that ask are told to end from
// now on, and the listeners (the inbound ones only, if inboundOnly) stop: at
// once, or if graceful when the drain time is over, or with skipExit never.
func (p *Plane) DrainListeners(inboundOnly, graceful, skipExit bool) {
	first := p.drains.Start(inboundOnly)
	what := stopAll
	if inboundOnly {
		what = stopInbound
	}
	switch {
	case skipExit:
	case !graceful:
		p.mu.Lock()
		p.stopLocked(what)
		p.mu.Unlock()
	case first:
		p.mu.Lock()
		p.afterLocked(p.drains.Time, func() { p.stopLocked(what) })
		p.mu.Unlock()
	}
}

// stopLocked closes the sockets of listeners. They stay known, and what is added
// later gets none.
func (p *Plane) stopLocked(what stop) {
	p.stopped = max(p.stopped, what)
	for _, l := range p.listeners {
		if !p.stopped.covers(l.config) || l.stopped {
			continue
		}
		l.stopped, l.bound = true, p.boundLocked(l)
		p.dropSocketsLocked(l)
		p.drainStats.stopped.Inc()
	}
}

// afterLocked calls f with the lock held, once d has passed, unless the plane is
// closed before.
func (p *Plane) afterLocked(d time.Duration, f func()) {
	if p.closed {
		return
	}
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if _, due := p.timers[t]; due {
			delete(p.timers, t)
			f()
		}
	})
	p.timers[t] = struct{}{}
}

// drainLocked ends the connections that came in by versions of a listener up to l,
// at the end of the drain time. keep says which chains they may stay on; nil is
// none, and then it is the listener that drains, else n of its chains.
func (p *Plane) drainLocked(l *listener, keep func(*api.FilterChain) bool, n int64) {
	gauge := p.drainStats.chains
	if keep == nil {
		gauge, n = p.drainStats.listeners, 1
	}
	gauge.Add(n)
	held := l.holders.Hold() // the figures stay until the drain is over
	begin, length := p.drains.Window()
	p.afterLocked(begin, func() {
		p.endLocked(l, keep, length)
		p.afterLocked(length, func() {
			gauge.Add(-n)
			if held {
				l.holders.Drop()
			}
		})
	})
}

// endLocked ends connections one by one, over length.
func (p *Plane) endLocked(l *listener, keep func(*api.FilterChain) bool, length time.Duration) {
	of := func(owner any) *listener {
		if o, ok := owner.(*listener); ok && o.family == l.family && o.version <= l.version {
			return o
		}
		return nil
	}
	known := map[*filter.Chain]bool{}
	stays := func(o *listener, c *filter.Chain) bool {
		if keep == nil {
			return false
		}
		if _, ok := known[c]; !ok {
			known[c] = keep(o.configs[c])
		}
		return known[c]
	}
	p.everywhere(func(core *filter.Core) { // one worker after the other
		var left []*filter.Connection
		for _, c := range core.Connections {
			if o := of(c.Owner); o != nil && !stays(o, c.Chain()) {
				left = append(left, c)
			}
		}
		for i, c := range left {
			t := &loop.Timer{F: c.Close} // of one that is over it does nothing
			core.Worker.After(t, drain.Spread(i, len(left), length))
		}
		if keep != nil {
			return
		}
		for s := range core.Sockets {
			if of(s.Owner) != nil {
				s.Kill()
			}
		}
	})
}

// updatedLocked drains what an update changes, if the operator wants that: the
// chains that are not there any more as they were or, if more than chains
// changed, all of them (Envoy's filter chain only update).
func (p *Plane) updatedLocked(have *listener, c *api.Listener) {
	if !p.drainOptions.OnUpdate {
		return
	}
	if !onlyChains(have.config, c) {
		have.drain.Start()
		p.drainLocked(have, nil, 0)
		return
	}
	gone := int64(0)
	for chain := range have.chains {
		if !has(c, chain) {
			gone++
		}
	}
	if gone > 0 {
		p.drainLocked(have, func(chain *api.FilterChain) bool { return has(c, chain) }, gone)
	}
}

// removedLocked drains every version of a listener that is gone.
func (p *Plane) removedLocked(l *listener) {
	l.family.Start()
	p.drainLocked(l, nil, 0)
}

// onlyChains says whether two versions of a listener differ in nothing but their
// filter chains, and in how these are found.
func onlyChains(a, b *api.Listener) bool {
	x, y := *a, *b
	x.FilterChains, x.DefaultFilterChain, x.Matcher = nil, nil, nil
	y.FilterChains, y.DefaultFilterChain, y.Matcher = nil, nil, nil
	return len(b.FilterChains) > 0 && reflect.DeepEqual(x, y)
}

func has(l *api.Listener, chain *api.FilterChain) bool {
	for _, c := range l.FilterChains {
		if reflect.DeepEqual(c, chain) {
			return true
		}
	}
	return l.DefaultFilterChain != nil && reflect.DeepEqual(l.DefaultFilterChain, chain)
}
