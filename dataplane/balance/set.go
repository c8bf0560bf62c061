package balance

import (
	"math"

	"github.com/sluice-proxy/sluice/api"
)

// Set is one view of a cluster's hosts. It is immutable; the health of each
// host was read once, when the Set was made.
type Set[H Host] struct {
	levels []level[H]
	// sole is the pool that takes all load, if there is one: the usual case, and
	// it saves the draw.
	sole                     *pool[H]
	total, healthy, degraded int
	excluded                 int
}

// level is one priority.
type level[H Host] struct {
	all, healthy, degraded pool[H]
	// The loads of all levels add up to 100.
	healthyLoad, degradedLoad uint32
	panic                     bool
	excluded                  int // of all, those that do not count for health
}

// pool is a list of hosts of which one is picked.
type pool[H Host] struct {
	id    poolID
	hosts []H
	equal bool // all weights are the same
}

// poolID names a pool over the life of a cluster.
type poolID struct {
	priority uint32
	source   source
}

type source uint8

const (
	allHosts source = iota
	healthyHosts
	degradedHosts
)

// NewSet sorts hosts by priority and health. overprovisioningFactor and
// panicThreshold are in percent; 0 for the first means 140, Envoy's default; 0
// for the second turns panic off. hosts is not kept.
func NewSet[H Host](hosts []H, overprovisioningFactor uint32, panicThreshold float64) *Set[H] {
	if overprovisioningFactor == 0 {
		overprovisioningFactor = api.DefaultOverprovisioningFactor
	}
	s := &Set[H]{total: len(hosts)}
	for _, h := range hosts {
		l := s.level(h.Priority())
		l.all.hosts = append(l.all.hosts, h)
		flags := h.Flags()
		switch flags.Coarse() {
		case api.HealthHealthy:
			l.healthy.hosts = append(l.healthy.hosts, h)
			s.healthy++
		case api.HealthDegraded:
			l.degraded.hosts = append(l.degraded.hosts, h)
			s.degraded++
		}
		if flags.Excluded() {
			l.excluded++
			s.excluded++
		}
	}
	for i := range s.levels {
		l := &s.levels[i]
		for src, p := range map[source]*pool[H]{allHosts: &l.all, healthyHosts: &l.healthy, degradedHosts: &l.degraded} {
			p.id = poolID{uint32(i), src}
			p.equal = weightsEqual(p.hosts)
		}
	}
	if len(s.levels) > 0 {
		s.distribute(uint64(overprovisioningFactor), roundPercent(panicThreshold))
	}
	for i := range s.levels {
		l := &s.levels[i]
		switch {
		case l.healthyLoad == 100:
			s.sole = l.source(healthyHosts)
		case l.degradedLoad == 100:
			s.sole = l.source(degradedHosts)
		}
	}
	return s
}

// Total, Healthy, Degraded and Excluded are the gauges membership_total and so on.
func (s *Set[H]) Total() int    { return s.total }
func (s *Set[H]) Healthy() int  { return s.healthy }
func (s *Set[H]) Degraded() int { return s.degraded }
func (s *Set[H]) Excluded() int { return s.excluded }

// Panicking says that some priority ignores health now.
func (s *Set[H]) Panicking() bool {
	for i := range s.levels {
		if s.levels[i].panic {
			return true
		}
	}
	return false
}

// level returns the level of priority p. Priorities that no host has are empty
// levels, as in Envoy: they get no load.
func (s *Set[H]) level(p uint32) *level[H] {
	for uint64(len(s.levels)) <= uint64(p) {
		s.levels = append(s.levels, level[H]{})
	}
	return &s.levels[p]
}

// source is the pool that load for src goes to (LoadBalancerBase::hostSourceToUse).
func (l *level[H]) source(src source) *pool[H] {
	switch {
	case l.panic:
		return &l.all
	case src == degradedHosts:
		return &l.degraded
	}
	return &l.healthy
}

// pool draws the pool for the next connection; nil if it has no host.
func (s *Set[H]) pool(rng func() uint64) *pool[H] {
	p := s.sole
	if p == nil {
		p = s.drawPool(rng)
	}
	if p == nil || len(p.hosts) == 0 {
		return nil
	}
	return p
}

func (s *Set[H]) drawPool(rng func() uint64) *pool[H] {
	if len(s.levels) == 0 {
		return nil
	}
	draw := uint32(rng()%100) + 1
	var upTo uint32
	for i := range s.levels {
		if upTo += s.levels[i].healthyLoad; draw <= upTo {
			return s.levels[i].source(healthyHosts)
		}
	}
	for i := range s.levels {
		if upTo += s.levels[i].degradedLoad; draw <= upTo {
			return s.levels[i].source(degradedHosts)
		}
	}
	return nil
}

func weightsEqual[H Host](hosts []H) bool {
	for _, h := range hosts {
		if weight(h) != weight(hosts[0]) {
			return false
		}
	}
	return true
}

// roundPercent rounds as Envoy does with its panic threshold.
func roundPercent(p float64) uint64 {
	if !(p > 0) { // NaN too
		return 0
	}
	return uint64(math.Round(min(p, 100)))
}
