// Package balance picks the host that a new connection goes to.
//
// A Set is one immutable view of a cluster's hosts, made anew by every update; a
// Picker is one worker's own, and keeps what must outlive a Set, such as whose
// turn it is. The rules are those of Envoy's load balancers
// (source/extensions/load_balancing_policies, docs "Load balancing"), so that
// the same client gets the same host wherever Envoy would tell.
package balance

import (
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/runtime"
)

// Host is what is picked from. Upstream owns it; a host that stays in the
// cluster should stay the same value from Set to Set, else its turn is lost.
type Host interface {
	// Weight is load_balancing_weight; 0 counts as 1.
	Weight() uint32
	// Active is the number of connections open now.
	Active() uint64
	// Flags are what is wrong with the host now.
	Flags() api.HealthFlags
	// Priority 0 is the highest.
	Priority() uint32
	Place() api.Place
	// Address and Hostname name the host where connections are hashed, unless
	// its metadata do (envoy.lb, hash_key).
	Address() string
	Hostname() string
	Metadata() api.Metadata
	// HealthySince is when the host became healthy, by the clock of Config.
	HealthySince() int64
}

// Asked is what a connection brings to its pick.
type Asked struct {
	// Hash is what its hash policy came to, if Hashed.
	Hash   uint64
	Hashed bool
	// Match is what the hosts of a cluster with subsets need; nil leaves it.
	Match Criteria
	// Metadata is the connection's dynamic metadata.
	Metadata map[string]map[string]any
	// Named is how many of the hosts that they name have been tried.
	Named int
}

// Config is what a Set is made of, but for its hosts.
type Config struct {
	Balancing *api.Balancing
	// PanicThreshold is in percent, and 0 turns panic off.
	PanicThreshold float64
	// Overprovisioning is in percent; 0 means 140, Envoy's default.
	Overprovisioning uint32
	WeightedHealth   bool
	// Weights are load_balancing_weight of localities.
	Weights map[Spot]uint32
	// Home is where the proxy stands, Local the hosts of its own kind; without
	// Local zones are not looked at.
	Home  api.Place
	Local func() *Set
	Stats *Stats
	// Threads is how many threads would balance in Envoy's place, of which each
	// has, and counts, subsets and zones of its own; 0 counts as 1.
	Threads uint64
	// Runtime beats the panic threshold (asked when a Set is made) and the settings
	// of zones (asked as they are used), by Envoy's keys; nil has nothing to say.
	Runtime *runtime.Runtime
	// ActiveTotal is the number of the cluster's open connections.
	ActiveTotal func() uint64
	// Rand yields uniform 64-bit numbers and is safe for concurrent use, Now
	// monotonic nanoseconds; both have defaults.
	Rand func() uint64
	Now  func() int64
}

// Spot is a locality in a priority.
type Spot struct {
	Priority uint32
	Place    api.Place
}

// Set is a cluster's hosts, and how they are picked.
type Set struct {
	config  Config
	whole   *group
	subsets *subsets // nil: without
	// seats are whose turns outlive this Set, by what they are for.
	seats map[seatKey]*seat
	// addresses finds the hosts that a connection names; nil unless it can.
	addresses map[string]Host
	total     int
}

// New makes a Set. before is the one that it replaces, nil if there is none:
// what has not changed is taken over from it. hosts is not kept.
func New(c Config, hosts []Host, before *Set) *Set {
	c.defaults()
	s := &Set{config: c, seats: map[seatKey]*seat{}, total: len(hosts)}
	var was *group
	if before != nil {
		was = before.whole
	}
	s.whole = newGroup(s, wholeGroup, sort(hosts, &s.config), c.Weights, was, before)
	switch {
	case c.Balancing.Subsets != nil:
		s.subsets = newSubsets(s, hosts, before)
	case before != nil:
		before.Close()
	}
	if c.Balancing.Override != nil {
		s.addresses = make(map[string]Host, len(hosts))
		for _, h := range hosts {
			s.addresses[h.Address()] = h
		}
	}
	if s.subsets != nil {
		s.subsets.report()
	} else {
		s.whole.report()
	}
	return s
}

// Close takes what the Set counts as there out of the figures, when its cluster
// goes.
func (s *Set) Close() {
	if s.subsets != nil {
		s.subsets.close()
	}
}

// Pick returns the host for the next connection. False means that there is none
// to offer: no endpoint, or none healthy and panic off (flag UH).
func (s *Set) Pick(p *Picker, a *Asked) (Host, bool) {
	p.enter(s)
	if s.addresses != nil {
		if h := s.named(a); h != nil {
			return h, true
		}
	}
	var h Host
	if s.subsets != nil {
		h = s.subsets.pick(p, a)
	} else {
		h = s.whole.pick(p, a)
	}
	return h, h != nil
}

// Total, Healthy, Degraded and Excluded are the gauges membership_total and so on.
func (s *Set) Total() int { return s.total }

// Healthy counts hosts that are picked first.
func (s *Set) Healthy() int { return s.whole.count(func(l *level) int { return len(l.healthy.hosts) }) }

// Degraded counts those that are picked when healthy ones run short.
func (s *Set) Degraded() int {
	return s.whole.count(func(l *level) int { return len(l.degraded.hosts) })
}

// Excluded counts hosts that do not count where health is a share.
func (s *Set) Excluded() int { return s.whole.count(func(l *level) int { return l.excluded }) }
