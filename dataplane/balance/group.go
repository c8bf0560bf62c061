package balance

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// wholeGroup is the name of all of a cluster's hosts.
const wholeGroup = ""

// group is hosts that are balanced over together: all of a cluster, or a subset.
type group struct {
	set    *Set
	levels []level
	// counted is the local cluster that zones were counted for last.
	counted atomic.Pointer[Set]
	// sole is the pool that takes all load, if there is one: the usual case, and
	// it saves the draw.
	sole *pool
}

func newGroup(s *Set, name string, levels []level, weights map[Spot]uint32, before *group, old *Set) *group {
	g := &group{set: s, levels: levels}
	c := &s.config
	idle := name == wholeGroup && c.Balancing.Subsets != nil // subsets are picked from
	for i := range g.levels {
		l := &g.levels[i]
		seat := func(src source, loc int) *seat {
			return s.seat(seatKey{name, l.priority, src, loc}, old)
		}
		l.all.finish(seat(allHosts, -1), c)
		l.healthy.finish(seat(healthyHosts, -1), c)
		l.degraded.finish(seat(degradedHosts, -1), c)
		for j := range l.localities {
			loc := &l.localities[j]
			loc.weight = weights[Spot{l.priority, loc.place}]
			loc.healthy.finish(seat(healthyHosts, j), c)
			loc.degraded.finish(seat(degradedHosts, j), c)
		}
	}
	g.distribute()
	for i := range g.levels {
		l := &g.levels[i]
		switch {
		case idle:
		case c.Balancing.Policy.Hashes():
			var was table
			if before != nil && i < len(before.levels) {
				was = before.levels[i].table
			}
			l.table = newTable(c, l, was)
		case c.Balancing.LocalityWeighted:
			l.healthyTurns = l.newTurns(c, func(l *locality) int { return len(l.healthy.hosts) })
			l.degradedTurns = l.newTurns(c, func(l *locality) int { return len(l.degraded.hosts) })
		}
	}
	if !c.Balancing.LocalityWeighted && c.Local == nil {
		for i := range g.levels {
			switch l := &g.levels[i]; {
			case l.panic: // it is counted
			case l.healthyLoad == 100:
				g.sole = &l.healthy
			case l.degradedLoad == 100:
				g.sole = &l.degraded
			}
		}
	}
	if c.Local != nil && !idle {
		if before == nil {
			g.countZones(nil) // Envoy makes it before it knows the local cluster's hosts
		} else {
			g.countZones(c.Local())
		}
	}
	return g
}

// newTurns are the localities with what their weights come to; nil if none has
// any.
func (l *level) newTurns(c *Config, usable func(*locality) int) *turns {
	t := &turns{}
	for i := range l.localities {
		loc := &l.localities[i]
		if w := loc.effective(usable(loc), c.Overprovisioning); w > 0 {
			t.index = append(t.index, i)
			t.weights = append(t.weights, w)
		}
	}
	if len(t.index) == 0 {
		return nil
	}
	return t
}

func (g *group) count(of func(*level) int) (n int) {
	for i := range g.levels {
		n += of(&g.levels[i])
	}
	return n
}

// pick picks from the group; nil if it has nothing to offer.
func (g *group) pick(p *Picker, a *Asked) Host {
	b := g.set.config.Balancing
	if b.Policy.Hashes() {
		return g.pickHashed(p, a)
	}
	from := g.sole
	if from == nil {
		from = g.source(p)
	}
	if from == nil || len(from.hosts) == 0 {
		return nil
	}
	return p.from(from, &g.set.config)
}

// source draws the pool for the next connection (hostSourceToUse).
func (g *group) source(p *Picker) *pool {
	l, degraded := g.draw(g.set.config.Rand())
	return g.sourceAt(p, l, degraded)
}

// sourceAt is source where the level is drawn already.
func (g *group) sourceAt(p *Picker, l *level, degraded bool) *pool {
	c := &g.set.config
	if l.panic {
		c.Stats.HealthyPanic.Inc()
		if c.Balancing.Zone.FailOnPanic {
			return nil
		}
		return &l.all
	}
	if c.Balancing.LocalityWeighted {
		t := l.healthyTurns
		if degraded {
			t = l.degradedTurns
		}
		if t != nil {
			return l.in(p.locality(t), degraded)
		}
	}
	if c.Local != nil && l.priority == 0 {
		i, ok := p.zone(g, l)
		switch {
		case !ok:
			return nil
		case i >= 0:
			return l.in(i, degraded)
		}
	}
	if degraded {
		return &l.degraded
	}
	return &l.healthy
}

// in is a locality's pool.
func (l *level) in(i int, degraded bool) *pool {
	if degraded {
		return &l.localities[i].degraded
	}
	return &l.localities[i].healthy
}

// draw is the level that a random number, or a hash, falls on.
func (g *group) draw(n uint64) (l *level, degraded bool) {
	at := uint32(n%100) + 1
	var upTo uint32
	for i := range g.levels {
		if upTo += g.levels[i].healthyLoad; at <= upTo {
			return &g.levels[i], false
		}
	}
	for i := range g.levels {
		if upTo += g.levels[i].degradedLoad; at <= upTo {
			return &g.levels[i], true
		}
	}
	return &g.levels[0], false
}

func (c *Config) defaults() {
	if c.Overprovisioning == 0 {
		c.Overprovisioning = api.DefaultOverprovisioningFactor
	}
	c.PanicThreshold = float64(min(100, c.Runtime.Number("upstream.healthy_panic_threshold", roundPercent(c.PanicThreshold))))
	if c.Rand == nil {
		c.Rand = rand.Uint64
	}
	if c.Now == nil {
		start := time.Now()
		c.Now = func() int64 { return int64(time.Since(start)) }
	}
	c.Threads = max(c.Threads, 1)
	if c.ActiveTotal == nil {
		c.ActiveTotal = func() uint64 { return 0 }
	}
}

// roundPercent rounds as Envoy does with its panic threshold.
func roundPercent(p float64) uint64 {
	if !(p > 0) { // NaN too
		return 0
	}
	return uint64(math.Round(min(p, 100)))
}
