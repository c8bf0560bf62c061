package balance

import "sync"

// roundRobin goes round while weights are equal, and by earliest deadline first
// while they are not.
type roundRobin[H Host] struct {
	rng func() uint64
	// start differs from process to process, lest all begin with the same host.
	start uint64

	mu    sync.Mutex
	next  map[poolID]uint64 // place in the pool, kept across Sets
	turns *turns[H]
}

func (b *roundRobin[H]) Pick(s *Set[H]) (h H, ok bool) {
	p := s.pool(b.rng)
	if p == nil {
		return h, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !p.equal {
		return b.turns.pickLocked(s, p), true
	}
	n, seen := b.next[p.id]
	if !seen {
		n = b.start
	}
	b.next[p.id] = n + 1
	return p.hosts[n%uint64(len(p.hosts))], true
}

// leastRequest draws some hosts and takes the least busy while weights are
// equal; while they are not, it takes turns with weight/(active+1).
type leastRequest[H Host] struct {
	rng     func() uint64
	choices uint32

	mu    sync.Mutex
	turns *turns[H]
}

func (b *leastRequest[H]) Pick(s *Set[H]) (h H, ok bool) {
	p := s.pool(b.rng)
	if p == nil {
		return h, false
	}
	if !p.equal {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.turns.pickLocked(s, p), true
	}
	n := uint64(len(p.hosts))
	h = p.hosts[b.rng()%n]
	active := h.Active()
	for i := uint32(1); i < b.choices; i++ {
		// Drawn with replacement, as Envoy does.
		other := p.hosts[b.rng()%n]
		if a := other.Active(); a < active {
			h, active = other, a
		}
	}
	return h, true
}

// random looks at no weight: neither does Envoy's.
type random[H Host] struct{ rng func() uint64 }

func (b *random[H]) Pick(s *Set[H]) (h H, ok bool) {
	p := s.pool(b.rng)
	if p == nil {
		return h, false
	}
	return p.hosts[b.rng()%uint64(len(p.hosts))], true
}
