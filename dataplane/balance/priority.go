package balance

// distribute gives each level its share of the load, in percent: a level is fully
// available until fewer than 100/factor of its hosts are, and what it cannot
// take goes to the next (Envoy docs, "Priority levels"; integer arithmetic as in
// LoadBalancerBase::recalculatePerPriorityState, so that shares agree to the
// percent).
func (g *group) distribute() {
	c := &g.set.config
	threshold := uint64(c.PanicThreshold)
	health := make([]uint64, len(g.levels))
	degraded := make([]uint64, len(g.levels))
	var available uint64
	for i := range g.levels {
		l := &g.levels[i]
		h, d, n := l.measure(c)
		if n > 0 {
			health[i] = min(100, uint64(c.Overprovisioning)*h/n)
			degraded[i] = min(100, uint64(c.Overprovisioning)*d/n)
		}
		available += health[i] + degraded[i]
	}
	available = min(available, 100)

	if available > 0 {
		g.shareOut(health, degraded, available)
	}
	if threshold == 0 && available == 0 {
		// Someone must get the load; as panic is off this finds no host.
		g.levels[0].healthyLoad = 100
		return
	}
	totalPanic := true
	for i := range g.levels {
		// While others can take the load, a sick level does not panic.
		g.levels[i].panic = available < 100 && g.levels[i].under(threshold)
		totalPanic = totalPanic && g.levels[i].panic
	}
	switch {
	case totalPanic:
		g.shareOutByCount()
	case available == 0:
		// A factor far below 100 rounds even a level with healthy hosts to zero.
		g.firstUsable().healthyLoad = 100
	}
}

// measure is what of the level is healthy and degraded, and what counts: hosts,
// or their weights.
func (l *level) measure(c *Config) (healthy, degraded, counted uint64) {
	if l.counted() == 0 {
		return 0, 0, 0
	}
	if !c.WeightedHealth {
		return uint64(len(l.healthy.hosts)), uint64(len(l.degraded.hosts)), uint64(l.counted())
	}
	for _, h := range l.all.hosts {
		if !h.Flags().Excluded() {
			counted += uint64(c.weight(h))
		}
	}
	return l.healthy.weight(c), l.degraded.weight(c), counted
}

func (p *pool) weight(c *Config) (sum uint64) {
	for _, h := range p.hosts {
		sum += uint64(c.weight(h))
	}
	return sum
}

// firstUsable is the first level with a healthy host, else the first.
func (g *group) firstUsable() *level {
	for i := range g.levels {
		if len(g.levels[i].healthy.hosts) > 0 {
			return &g.levels[i]
		}
	}
	return &g.levels[0]
}

func (g *group) shareOut(health, degraded []uint64, available uint64) {
	left := uint64(100)
	var first *uint32 // gets what rounding left over
	give := func(share uint64, to *uint32) {
		if share == 0 {
			return
		}
		if first == nil {
			first = to
		}
		load := min(left, share*100/available)
		*to = uint32(load)
		left -= load
	}
	for i := range g.levels {
		give(health[i], &g.levels[i].healthyLoad)
	}
	for i := range g.levels {
		give(degraded[i], &g.levels[i].degradedLoad)
	}
	*first += uint32(left)
}

// counted are the hosts that health is a share of: one that EDS marks as
// draining is left out (measured on Envoy 1.40: membership_excluded).
func (l *level) counted() int { return len(l.all.hosts) - l.excluded }

// under says whether the usable share of l is below threshold percent.
func (l *level) under(threshold uint64) bool {
	n := l.counted()
	if n == 0 {
		return threshold > 0
	}
	return 100*float64(len(l.healthy.hosts)+len(l.degraded.hosts))/float64(n) < float64(threshold)
}

// shareOutByCount is used when every level panics: health says nothing any
// more, so the number of hosts decides.
func (g *group) shareOutByCount() {
	total := g.count(func(l *level) int { return len(l.all.hosts) })
	if total == 0 {
		g.levels[0].healthyLoad = 100
		return
	}
	left := uint32(100)
	first := -1
	for i := range g.levels {
		l := &g.levels[i]
		if first < 0 && len(l.all.hosts) > 0 {
			first = i
		}
		l.healthyLoad = uint32(100 * len(l.all.hosts) / total)
		l.degradedLoad = 0
		left -= l.healthyLoad
	}
	g.levels[first].healthyLoad += left
}
