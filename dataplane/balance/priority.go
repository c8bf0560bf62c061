package balance

// distribute gives each level its share of the load, in percent: a level is fully
// available until fewer than 100/factor of its hosts are, and what it cannot
// take goes to the next (Envoy docs, "Priority levels"; integer arithmetic as in
// LoadBalancerBase::recalculatePerPriorityState, so that shares agree to the
// percent).
func (s *Set[H]) distribute(factor, panicThreshold uint64) {
	health := make([]uint64, len(s.levels))
	degraded := make([]uint64, len(s.levels))
	var available uint64
	for i := range s.levels {
		l := &s.levels[i]
		if n := uint64(l.counted()); n > 0 {
			health[i] = min(100, factor*uint64(len(l.healthy.hosts))/n)
			degraded[i] = min(100, factor*uint64(len(l.degraded.hosts))/n)
		}
		available += health[i] + degraded[i]
	}
	available = min(available, 100)

	if available > 0 {
		s.shareOut(health, degraded, available)
	}
	if panicThreshold == 0 && available == 0 {
		// Someone must get the load; as panic is off this finds no host.
		s.levels[0].healthyLoad = 100
		return
	}
	totalPanic := true
	for i := range s.levels {
		// While others can take the load, a sick level does not panic.
		s.levels[i].panic = available < 100 && s.levels[i].under(panicThreshold)
		totalPanic = totalPanic && s.levels[i].panic
	}
	switch {
	case totalPanic:
		s.shareOutByCount()
	case available == 0:
		// A factor far below 100 rounds even a level with healthy hosts to zero.
		s.firstUsable().healthyLoad = 100
	}
}

// firstUsable is the first level with a healthy host, else the first.
func (s *Set[H]) firstUsable() *level[H] {
	for i := range s.levels {
		if len(s.levels[i].healthy.hosts) > 0 {
			return &s.levels[i]
		}
	}
	return &s.levels[0]
}

func (s *Set[H]) shareOut(health, degraded []uint64, available uint64) {
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
	for i := range s.levels {
		give(health[i], &s.levels[i].healthyLoad)
	}
	for i := range s.levels {
		give(degraded[i], &s.levels[i].degradedLoad)
	}
	*first += uint32(left)
}

// counted are the hosts that health is a share of: one that EDS marks as
// draining is left out (measured on Envoy 1.40: membership_excluded).
func (l *level[H]) counted() int { return len(l.all.hosts) - l.excluded }

// under says whether the usable share of l is below threshold percent.
func (l *level[H]) under(threshold uint64) bool {
	n := l.counted()
	if n == 0 {
		return threshold > 0
	}
	return 100*float64(len(l.healthy.hosts)+len(l.degraded.hosts))/float64(n) < float64(threshold)
}

// shareOutByCount is used when every level panics: health says nothing any
// more, so the number of hosts decides.
func (s *Set[H]) shareOutByCount() {
	left := uint32(100)
	first := -1
	for i := range s.levels {
		l := &s.levels[i]
		if first < 0 && len(l.all.hosts) > 0 {
			first = i
		}
		l.healthyLoad = uint32(100 * len(l.all.hosts) / s.total)
		l.degradedLoad = 0
		left -= l.healthyLoad
	}
	s.levels[first].healthyLoad += left
}
