// Package balance picks the host that a new connection goes to.
//
// A Set is one immutable view of a cluster's hosts; a Balancer picks from it and
// keeps what must outlive a Set, such as whose turn it is. The rules are those
// of Envoy's load balancers (docs: "Priority levels", "Panic threshold",
// "Supported load balancers"; source/common/upstream/load_balancer_impl.cc and
// edf_scheduler.h). Weights of localities are not looked at, as in Envoy unless
// locality_weighted_lb_config is set.
package balance

import "github.com/sluice-proxy/sluice/api"

// Host is what a balancer picks from. Upstream owns it; a host that stays in
// the cluster should stay the same value from Set to Set, else its turn is lost.
type Host interface {
	comparable
	// Weight is load_balancing_weight; 0 counts as 1.
	Weight() uint32
	// Active is the number of connections open now.
	Active() uint32
	// Flags are what is wrong with the host now.
	Flags() api.HealthFlags
	// Priority 0 is the highest.
	Priority() uint32
}

// Balancer picks hosts by one policy. It is safe for concurrent use.
type Balancer[H Host] interface {
	// Pick returns the host for the next connection. False means that s has no
	// host to offer: no endpoint, or none healthy and panic off (flag UH).
	Pick(s *Set[H]) (h H, ok bool)
}

// New returns the balancer for p. choiceCount is the number of hosts that
// LEAST_REQUEST draws; under 2 counts as 2, which is Envoy's lower bound. rng
// yields uniform 64-bit numbers and must be safe for concurrent use, as
// math/rand/v2.Uint64 is.
func New[H Host](p api.LBPolicy, choiceCount uint32, rng func() uint64) Balancer[H] {
	switch p {
	case api.LeastRequest:
		return &leastRequest[H]{
			rng:     rng,
			choices: max(choiceCount, 2),
			turns:   newTurns(rng, leastRequestWeight[H]),
		}
	case api.Random:
		return &random[H]{rng: rng}
	default:
		return &roundRobin[H]{
			rng:   rng,
			start: rng(),
			next:  make(map[poolID]uint64),
			turns: newTurns(rng, weight[H]),
		}
	}
}

func weight[H Host](h H) float64 { return float64(max(h.Weight(), 1)) }

// leastRequestWeight is Envoy's with active_request_bias 1, its default.
func leastRequestWeight[H Host](h H) float64 { return weight(h) / float64(h.Active()+1) }
