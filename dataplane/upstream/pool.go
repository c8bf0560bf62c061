package upstream

import (
	"slices"
	"sync/atomic"
)

// pool is one worker's connections to one host, and those that the limits have wait
// for one of them to end: Envoy's ConnPoolImplBase, as far as it shows. It belongs to
// one configuration of the cluster and is for its worker's thread.
type pool struct {
	of      *resources
	load    *load
	size    int // connections, also those that are being opened
	waiting []waiter
}

// load is how many connections a host has of one configuration, by all workers.
type load struct {
	of *resources
	n  atomic.Int64
}

// waiter is a connection that waits, and what is called when its turn comes, or when
// a connection that it waits for comes to nothing.
type waiter struct {
	c      *Connection
	ready  func()
	failed func(why string)
}

// pools are a host's, by worker. A slot is its worker's own.
type pools struct {
	slots atomic.Pointer[[]*slot]
	load  atomic.Pointer[load]
}

type slot struct{ pool *pool }

// of is the pool of a worker for r, made when it is first asked for. A worker below 0
// is none: such connections are each alone.
func (p *pools) of(worker int, r *resources) *pool {
	if worker < 0 {
		return &pool{of: r, load: p.loadOf(r)}
	}
	s := p.slot(worker)
	if s.pool == nil || s.pool.of != r {
		s.pool = &pool{of: r, load: p.loadOf(r)}
	}
	return s.pool
}

func (p *pools) loadOf(r *resources) *load {
	for {
		old := p.load.Load()
		if old != nil && old.of == r {
			return old
		}
		if next := (&load{of: r}); p.load.CompareAndSwap(old, next) {
			return next
		}
	}
}

func (p *pools) slot(worker int) *slot {
	for {
		old := p.slots.Load()
		var now []*slot
		if old != nil {
			if now = *old; worker < len(now) {
				return now[worker]
			}
		}
		next := make([]*slot, worker+1)
		for i := copy(next, now); i < len(next); i++ {
			next[i] = &slot{}
		}
		if p.slots.CompareAndSwap(old, &next) {
			return next[worker]
		}
	}
}

// enter counts one more connection as being opened, if the limits let it. They let
// one in that has no other to wait for, which is beyond them then. taken says that
// the cluster counts it already.
func (p *pool) enter(h *Host, taken bool) (in, beyond bool) {
	r, s := p.of, h.cluster.Stats
	limit := r.limits.configured.PerHost
	within := limit == nil || p.load.n.Load() < int64(*limit)
	if within && !taken {
		taken = r.takeActive()
		within = taken
	}
	if !within {
		s.Overflow.Inc()
		if p.size > 0 {
			if taken {
				r.giveActive()
			}
			return false, true
		}
	}
	if !taken {
		r.forceActive()
	}
	p.size++
	p.load.n.Add(1)
	s.Total.Inc()
	h.cxTotal.Add(1)
	h.cxActive.Add(1)
	return true, !within
}

// left counts the end of a connection.
func (p *pool) left() {
	p.size--
	p.load.n.Add(-1)
	p.serve()
}

// serve opens connections for those that wait, in turn: at most three at once, as
// in Envoy.
func (p *pool) serve() {
	for range 3 {
		if len(p.waiting) == 0 {
			return
		}
		w := p.waiting[0]
		in, beyond := p.enter(w.c.Host, false)
		if !in {
			return
		}
		p.remove(w.c)
		w.c.waits = false
		w.ready()
		if beyond {
			return
		}
	}
}

// fail ends the wait of all: a connection that came to nothing is as good as theirs.
func (p *pool) fail(why string) {
	all := p.waiting
	p.waiting = nil
	for _, w := range all {
		w.c.ejected()
		w.failed(why)
	}
}

func (p *pool) remove(c *Connection) {
	p.waiting = slices.DeleteFunc(p.waiting, func(w waiter) bool { return w.c == c })
}

// Waits says that the host's limits hold the connection back: the caller calls Await,
// at once.
func (c *Connection) Waits() bool { return c.waits }

// Await has ready called when the connection may be opened, which then counts as
// being opened, or failed when it came to nothing. Neither is called after GivenUp.
// c must stay where it is.
func (c *Connection) Await(ready func(), failed func(why string)) {
	p := c.pool
	p.waiting = append(p.waiting, waiter{c, ready, failed})
	if len(p.waiting) > 1 { // who comes first is served first, also if there is room now
		p.serve()
	}
}

// ejected counts a wait that came to nothing.
func (c *Connection) ejected() {
	c.ended, c.waits = true, false
	c.pool.of.givePending()
	c.Host.cluster.Stats.PendingFailureEject.Inc()
	c.Host.rqPending.Add(^uint64(0))
	c.drop()
}
