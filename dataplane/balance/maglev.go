package balance

import (
	"cmp"
	"slices"
)

// maglev is the look-up table of Google's Maglev: every host fills it by a
// permutation of its own until it is full (maglev_lb.cc).
type maglev struct {
	all         []share
	size        uint64
	slots       []uint32
	least, most uint64
}

func newMaglev(all []share, size uint64) *maglev {
	m := &maglev{all: all, size: size}
	if len(all) == 0 {
		return m
	}
	if len(all) == 1 { // Envoy gives it a table of one entry
		m.size, m.slots, m.least, m.most = 1, make([]uint32, 1), 1, 1
		return m
	}
	type builder struct {
		host               uint32
		offset, skip, next uint64
		weight, target     float64
		count              uint64
	}
	heaviest := 0.0
	order := make([]int, len(all))
	for i := range all {
		order[i] = i
		heaviest = max(heaviest, all[i].weight)
	}
	// The order decides who takes a slot first.
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(all[a].key, all[b].key) })
	hosts := make([]builder, len(all))
	for i, at := range order {
		s := &all[at]
		hosts[i] = builder{host: uint32(at), weight: s.weight, offset: XXHash(s.key, 0) % size, skip: XXHash(s.key, 1)%(size-1) + 1}
	}
	const free = ^uint32(0)
	m.slots = make([]uint32, size)
	for i := range m.slots {
		m.slots[i] = free
	}
	filled := uint64(0)
	for turn := uint32(1); filled < size; turn++ {
		for i := range hosts {
			if filled == size {
				break
			}
			b := &hosts[i]
			// A host of a third of the greatest weight is up every third turn.
			if float64(turn)*b.weight < b.target {
				continue
			}
			b.target += heaviest
			at := (b.offset + b.skip*b.next) % size
			for m.slots[at] != free {
				b.next++
				at = (b.offset + b.skip*b.next) % size
			}
			m.slots[at] = b.host
			b.next++
			b.count++
			filled++
		}
	}
	m.least = size
	for i := range hosts {
		m.least, m.most = min(m.least, hosts[i].count), max(m.most, hosts[i].count)
	}
	return m
}

func (m *maglev) shares() []share { return m.all }

func (m *maglev) at(hash uint64) int {
	if len(m.slots) == 0 {
		return -1
	}
	return int(m.slots[hash%m.size])
}

func (m *maglev) report(s *Stats) {
	s.scope.Gauge("maglev_lb.min_entries_per_host").Set(m.least)
	s.scope.Gauge("maglev_lb.max_entries_per_host").Set(m.most)
}
