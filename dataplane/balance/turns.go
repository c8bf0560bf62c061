package balance

import "container/heap"

// turns picks by earliest deadline first: a host picked at time t is due again
// at t + 1/weight (Envoy's EdfScheduler).
//
// While a push is taken up, one worker may still pick from the Set before it;
// so the schedules of the last two Sets are kept.
type turns[H Host] struct {
	rng    func() uint64
	weight func(H) float64
	sets   [2]map[poolID]*schedule[H]
	of     [2]*Set[H]
}

func newTurns[H Host](rng func() uint64, weight func(H) float64) *turns[H] {
	return &turns[H]{rng: rng, weight: weight}
}

// pickLocked needs the balancer's lock. p belongs to s and is not empty.
func (t *turns[H]) pickLocked(s *Set[H], p *pool[H]) H {
	i := 0
	switch s {
	case t.of[0]:
	case t.of[1]:
		i = 1
	default:
		t.of[1], t.sets[1] = t.of[0], t.sets[0]
		t.of[0], t.sets[0] = s, make(map[poolID]*schedule[H])
	}
	sch := t.sets[i][p.id]
	if sch == nil {
		sch = t.schedule(p, t.sets[1-i][p.id])
		t.sets[i][p.id] = sch
	}
	return sch.pick(t.weight)
}

// schedule makes the schedule for p. Hosts that were in before keep their place;
// without one before, the start is random, as for equal weights.
func (t *turns[H]) schedule(p *pool[H], before *schedule[H]) *schedule[H] {
	sch := &schedule[H]{entries: make([]*entry[H], 0, len(p.hosts))}
	known := make(map[H]*entry[H])
	if before != nil {
		sch.now, sch.order = before.now, before.order
		for _, e := range before.entries {
			known[e.host] = e
		}
	}
	for _, h := range p.hosts {
		e := &entry[H]{host: h, weight: t.weight(h)}
		if old := known[h]; old != nil {
			e.order, e.deadline = old.order, old.deadline
			if e.weight != old.weight {
				// The same share of the interval is left to wait.
				e.deadline = sch.now + (old.deadline-sch.now)*old.weight/e.weight
			}
		} else {
			e.order, e.deadline = sch.order, sch.now+1/e.weight
			sch.order++
		}
		sch.entries = append(sch.entries, e)
	}
	heap.Init(sch)
	if before == nil {
		for range t.rng() % uint64(len(p.hosts)) {
			sch.pick(t.weight)
		}
	}
	return sch
}

// schedule is a heap of the hosts of one pool by deadline.
type schedule[H Host] struct {
	entries []*entry[H]
	now     float64
	order   uint64 // breaks ties: who waits longer goes first
}

type entry[H Host] struct {
	host             H
	deadline, weight float64
	order            uint64
}

func (s *schedule[H]) pick(weight func(H) float64) H {
	e := s.entries[0]
	s.now = e.deadline
	e.weight = weight(e.host)
	e.deadline = s.now + 1/e.weight
	e.order = s.order
	s.order++
	heap.Fix(s, 0)
	return e.host
}

func (s *schedule[H]) Len() int { return len(s.entries) }

func (s *schedule[H]) Less(i, j int) bool {
	a, b := s.entries[i], s.entries[j]
	if a.deadline != b.deadline {
		return a.deadline < b.deadline
	}
	return a.order < b.order
}

func (s *schedule[H]) Swap(i, j int) { s.entries[i], s.entries[j] = s.entries[j], s.entries[i] }

// Push and Pop are never called: a schedule does not change its size.
func (s *schedule[H]) Push(any) { panic("balance: schedule has a fixed size") }
func (s *schedule[H]) Pop() any { panic("balance: schedule has a fixed size") }
