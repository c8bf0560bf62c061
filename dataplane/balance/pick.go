package balance

import (
	"math"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// from picks of a pool that has hosts. Weights are looked at where they differ,
// or while slow start makes them differ; RANDOM never looks at them.
func (p *Picker) from(from *pool, c *Config) Host {
	if len(from.hosts) == 1 {
		return from.hosts[0]
	}
	b := c.Balancing
	switch {
	case b.Policy == api.Random:
		return from.hosts[c.Rand()%uint64(len(from.hosts))]
	case !from.equal || c.slow(from.started):
		return p.turn(from, c)
	case b.Policy == api.LeastRequest && b.FullScan:
		return fullScan(from.hosts, c.Rand)
	case b.Policy == api.LeastRequest:
		return choices(from.hosts, b.ChoiceCount, c.Rand)
	}
	n := from.seat.next.Add(1) - 1
	return from.hosts[n%uint64(len(from.hosts))]
}

// choices draws some hosts, with replacement as Envoy does, and takes the least
// busy.
func choices(hosts []Host, n uint32, rng func() uint64) Host {
	best := hosts[rng()%uint64(len(hosts))]
	active := best.Active()
	for i := uint32(1); i < max(n, api.DefaultChoiceCount); i++ {
		h := hosts[rng()%uint64(len(hosts))]
		if a := h.Active(); a < active {
			best, active = h, a
		}
	}
	return best
}

// fullScan takes the least busy of all, and of several one at random.
func fullScan(hosts []Host, rng func() uint64) Host {
	best, active, ties := hosts[0], hosts[0].Active(), uint64(1)
	for _, h := range hosts[1:] {
		switch a := h.Active(); {
		case a < active:
			best, active, ties = h, a, 1
		case a == active:
			if ties++; rng()%ties == 0 {
				best = h
			}
		}
	}
	return best
}

// pull is what a host's weight comes to now.
func (c *Config) pull(h Host) float64 {
	b := c.Balancing
	w := float64(c.weight(h))
	if b.Policy == api.LeastRequest && b.ActiveRequestBias != 0 {
		busy := float64(h.Active() + 1)
		if b.ActiveRequestBias != 1 {
			busy = math.Pow(busy, b.ActiveRequestBias)
		}
		w /= busy
	}
	if b.SlowStart.Window > 0 {
		w *= c.warmth(h)
	}
	return w
}

// slow says that a host that became healthy then is still in slow start.
func (c *Config) slow(since int64) bool {
	w := c.Balancing.SlowStart.Window
	return w > 0 && c.Now()-since <= int64(w)
}

// warmth is the share of its weight that a host in slow start gets.
func (c *Config) warmth(h Host) float64 {
	s := &c.Balancing.SlowStart
	up := time.Duration(c.Now() - h.HealthySince()).Truncate(time.Millisecond)
	if up >= s.Window || h.Flags().Coarse() != api.HealthHealthy {
		return 1
	}
	share := float64(max(up, time.Millisecond)) / float64(s.Window)
	if s.Aggression > 0 && s.Aggression != 1 {
		share = math.Pow(share, 1/s.Aggression)
	}
	return max(share, s.MinWeight)
}
