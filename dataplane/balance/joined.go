package balance

// At is a priority of a Set, of which the healthy or the degraded hosts are meant.
type At struct {
	level    int
	degraded bool
}

// Joined draws one of several clusters, and one of its priorities, as if they were
// the priorities of one: those of the first cluster come first (Envoy's aggregate
// cluster). c has what that one's own configuration says. False means that there
// is no host at all.
func Joined(sets []*Set, c Config) (set int, at At, ok bool) {
	c.defaults()
	g := &group{set: &Set{config: c}}
	var from []int
	for i, s := range sets {
		for j := range s.whole.levels {
			l := s.whole.levels[j]
			if len(l.all.hosts) == 0 {
				continue // it counts for nothing
			}
			l.priority, l.healthyLoad, l.degradedLoad, l.panic = uint32(j), 0, 0, false
			g.levels = append(g.levels, l)
			from = append(from, i)
		}
	}
	if len(g.levels) == 0 {
		return 0, At{}, false
	}
	g.distribute()
	l, degraded := g.draw(c.Rand())
	i := 0
	for &g.levels[i] != l {
		i++
	}
	return from[i], At{int(l.priority), degraded}, true
}

// PickAt is Pick where the priority is drawn already. Where hosts are named, hashed
// to or in subsets it is Pick.
func (s *Set) PickAt(p *Picker, a *Asked, at At) (Host, bool) {
	if s.addresses != nil || s.subsets != nil || s.config.Balancing.Policy.Hashes() || at.level >= len(s.whole.levels) {
		return s.Pick(p, a)
	}
	p.enter(s)
	from := s.whole.sourceAt(p, &s.whole.levels[at.level], at.degraded)
	if from == nil || len(from.hosts) == 0 {
		return nil, false
	}
	return p.from(from, &s.config), true
}
