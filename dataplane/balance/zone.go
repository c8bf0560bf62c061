package balance

import "github.com/sluice-proxy/sluice/api/stats"

// zoneState is what zone-aware routing comes to for the first level of a group
// (ZoneAwareLoadBalancerBase::regenerateLocalityRoutingStructures). Every worker
// computes it anew when the hosts here or those of the local cluster changed.
type zoneState struct {
	local *Set
	mode  zoneMode
	// toRoute of 10000 connections stay in the home locality; the others go to
	// localities by residual, which accumulates.
	toRoute  uint64
	residual []uint64
}

type zoneMode uint8

const (
	zoneOff zoneMode = iota
	zoneDirect
	zoneResidual
)

// zone is the locality that the next connection goes to, -1 if localities are
// not looked at; false if it is to fail.
func (p *Picker) zone(g *group, l *level) (int, bool) {
	c := &g.set.config
	local := c.Local()
	if local == nil {
		return -1, true
	}
	z := p.zones[g]
	if z == nil || z.local != local {
		if g.counted.Load() != local {
			g.countZones(local)
		}
		z = newZoneState(c, l, local)
		p.zones[g] = z
	}
	switch {
	case z.mode == zoneOff:
		return -1, true
	case c.Rand()%100 >= c.Runtime.Number("upstream.zone_routing.enabled", uint64(c.Balancing.Zone.Enabled)):
		return -1, true
	case local.whole.levels[0].under(uint64(c.PanicThreshold)):
		c.Stats.LocalClusterNotOK.Inc()
		return -1, !c.Balancing.Zone.FailOnPanic
	case z.mode == zoneDirect:
		c.Stats.AllDirectly.Inc()
		return 0, true
	case c.Rand()%10000 < z.toRoute:
		c.Stats.Sampled.Inc()
		return 0, true
	}
	c.Stats.CrossZone.Inc()
	most := z.residual[len(z.residual)-1]
	if most == 0 {
		c.Stats.NoCapacity.Inc()
		return int(c.Rand() % uint64(len(z.residual))), true
	}
	at := c.Rand() % most
	for i, upTo := range z.residual {
		if at < upTo {
			return i, true
		}
	}
	return len(z.residual) - 1, true
}

func newZoneState(c *Config, l *level, local *Set) *zoneState {
	z := &zoneState{local: local}
	home := &local.whole.levels[0]
	if fits, _ := zoneFits(c, l, home); !fits {
		return z
	}
	here, there := shares(c, l, l), shares(c, home, l)
	force := c.Balancing.Zone.ForceLocal
	if l.home && (here[0] > 0 && here[0] >= there[0] || force > 0 && len(l.localities[0].healthy.hosts) >= int(force)) {
		z.mode = zoneDirect
		return z
	}
	z.mode = zoneResidual
	if l.home && there[0] > 0 {
		z.toRoute = here[0] * 10000 / there[0]
	}
	sum := uint64(0)
	for i := range here {
		if !(i == 0 && l.home) && here[i] > there[i] {
			sum += here[i] - there[i]
		}
		z.residual = append(z.residual, sum)
	}
	return z
}

// countZones counts what Envoy's threads would when the hosts here, or those of
// the local cluster, have changed.
func (g *group) countZones(local *Set) {
	was := g.counted.Load()
	if local != nil && (was == local || !g.counted.CompareAndSwap(was, local)) {
		return
	}
	c, home := &g.set.config, &level{}
	if local != nil {
		home = &local.whole.levels[0]
	}
	c.Stats.Recalculate.Add(c.Threads)
	if _, why := zoneFits(c, &g.levels[0], home); why != nil {
		why.Add(c.Threads)
	}
}

// zoneFits says whether localities are looked at, and if not, what counts that.
func zoneFits(c *Config, l, home *level) (bool, *stats.Counter) {
	zone := &c.Balancing.Zone
	switch {
	case len(l.localities) < 2:
		return false, nil
	case len(home.localities) < 2 && zone.ForceLocal == 0:
		return false, nil
	case !home.home || len(home.localities[0].all) == 0:
		return false, c.Stats.LocalClusterNotOK
	case uint64(len(l.healthy.hosts)) < c.Runtime.Number("upstream.zone_routing.min_cluster_size", zone.MinClusterSize):
		return false, c.Stats.TooSmall
	}
	return true, nil
}

// shares are how much of the healthy hosts of of each locality of l has, of
// 10000. A locality of l without healthy hosts has none.
func shares(c *Config, of, l *level) []uint64 {
	size := func(p *pool) uint64 {
		if c.Balancing.Zone.ByWeight {
			return p.weight(c)
		}
		return uint64(len(p.hosts))
	}
	out := make([]uint64, len(l.localities))
	total := size(&of.healthy)
	if total == 0 {
		return out
	}
	for i := range l.localities {
		if len(l.localities[i].healthy.hosts) == 0 {
			continue
		}
		for j := range of.localities {
			if of.localities[j].place == l.localities[i].place {
				out[i] = 10000 * size(&of.localities[j].healthy) / total
			}
		}
	}
	return out
}
