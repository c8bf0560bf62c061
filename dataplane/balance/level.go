package balance

import (
	"slices"

	"github.com/sluice-proxy/sluice/api"
)

// level is one priority.
type level struct {
	priority               uint32
	all, healthy, degraded pool
	excluded               int // of all, those that do not count for health
	// localities are in Envoy's order; the proxy's own comes first if it has
	// hosts here, and home says so.
	localities []locality
	home       bool

	// The loads of all levels add up to 100.
	healthyLoad, degradedLoad uint32
	panic                     bool
	// healthyTurns and degradedTurns are the weights of localities where these
	// are drawn first; nil if they are not.
	healthyTurns, degradedTurns *turns
	table                       table // where connections are hashed
}

// locality is one locality of a level.
type locality struct {
	place             api.Place
	weight            uint32 // 0 if none was given
	all               []Host
	healthy, degraded pool
	excluded          int
}

// pool is a list of hosts of which one is picked.
type pool struct {
	hosts []Host
	equal bool // all weights are the same
	seat  *seat
	// started is when the last host of it became healthy; it matters for slow
	// start only.
	started int64
}

// sort puts hosts into their levels by priority, health and locality. The
// priorities that no host has are empty levels, as in Envoy.
func sort(hosts []Host, c *Config) []level {
	levels := make([]level, 1) // there is always one, as in Envoy
	index := map[Spot]int{}
	for _, h := range hosts {
		at := h.Priority()
		for uint64(len(levels)) <= uint64(at) {
			levels = append(levels, level{priority: uint32(len(levels))})
		}
		l := &levels[at]
		spot := Spot{at, h.Place()}
		i, ok := index[spot]
		if !ok {
			i = len(l.localities)
			index[spot] = i
			l.localities = append(l.localities, locality{place: spot.Place})
		}
		l.add(h, &l.localities[i])
	}
	for i := range levels {
		l := &levels[i]
		slices.SortStableFunc(l.localities, func(a, b locality) int {
			switch {
			case a.place == c.Home && c.Home != api.Place{}:
				return -1
			case b.place == c.Home && c.Home != api.Place{}:
				return 1
			case a.place.Less(b.place):
				return -1
			}
			return 1
		})
		l.home = c.Home != api.Place{} && len(l.localities) > 0 && l.localities[0].place == c.Home
	}
	return levels
}

func (l *level) add(h Host, loc *locality) {
	l.all.hosts = append(l.all.hosts, h)
	loc.all = append(loc.all, h)
	flags := h.Flags()
	switch flags.Coarse() {
	case api.HealthHealthy:
		l.healthy.hosts = append(l.healthy.hosts, h)
		loc.healthy.hosts = append(loc.healthy.hosts, h)
	case api.HealthDegraded:
		l.degraded.hosts = append(l.degraded.hosts, h)
		loc.degraded.hosts = append(loc.degraded.hosts, h)
	}
	if flags.Excluded() {
		l.excluded++
		loc.excluded++
	}
}

// weight is the host's, or 1 where all weigh the same.
func (c *Config) weight(h Host) uint32 {
	if c.Balancing.EqualWeights {
		return 1
	}
	return max(h.Weight(), 1)
}

// finish is called when the hosts of p are complete.
func (p *pool) finish(s *seat, c *Config) {
	p.seat = s
	p.equal = true
	for _, h := range p.hosts {
		if c.weight(h) != c.weight(p.hosts[0]) {
			p.equal = false
		}
		p.started = max(p.started, h.HealthySince())
	}
}

// effective is what a locality's weight comes to by the health of its hosts
// (LocalityWrr::effectiveLocalityWeight).
func (l *locality) effective(usable int, overprovisioning uint32) float64 {
	n := len(l.all) - l.excluded
	if n == 0 {
		return 0
	}
	return float64(l.weight) * min(1, float64(overprovisioning)/100*float64(usable)/float64(n))
}
