package upstream

import (
	"math"
	"sync/atomic"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
)

// take counts one more if that stays within the limit.
func take(n *atomic.Int64, limit uint32) bool {
	for {
		now := n.Load()
		if now >= int64(limit) {
			return false
		}
		if n.CompareAndSwap(now, now+1) {
			return true
		}
	}
}

func (s *Stats) takeActive(limit uint32) bool {
	if !take(&s.active, limit) {
		return false
	}
	s.Active.Inc()
	s.showActive(limit)
	return true
}

func (s *Stats) giveActive(limit uint32) {
	s.active.Add(-1)
	s.Active.Dec()
	s.showActive(limit)
}

func (s *Stats) takePending(limit uint32) bool {
	if !take(&s.pending, limit) {
		return false
	}
	s.PendingActive.Inc()
	s.showPending(limit)
	return true
}

func (s *Stats) givePending(limit uint32) {
	s.pending.Add(-1)
	s.PendingActive.Dec()
	s.showPending(limit)
}

// request counts a request in or out: a connection that stands is one. Their
// limit is shown, and turns nobody away, as in Envoy's pool of TCP.
func (s *Stats) request(by int64, limit uint32) {
	s.RqActive.Add(by)
	s.showRequests(limit)
}

func (s *Stats) showActive(limit uint32) {
	open(s.cxOpen, s.active.Load(), limit)
	if l := s.left.Load(); l != nil {
		remaining(l.cx, s.active.Load(), limit)
	}
}

func (s *Stats) showPending(limit uint32) {
	open(s.pendingOpen, s.pending.Load(), limit)
	if l := s.left.Load(); l != nil {
		remaining(l.pending, s.pending.Load(), limit)
	}
}

func (s *Stats) showRequests(limit uint32) {
	n := int64(s.RqActive.Value())
	open(s.rqOpen, n, limit)
	if l := s.left.Load(); l != nil {
		remaining(l.rq, n, limit)
	}
}

// breakers shows other limits.
func (s *Stats) breakers(c *api.CircuitBreakers) {
	if c.TrackRemaining {
		s.breaker.Gauge("remaining_retries").Set(uint64(c.MaxRetries))
		s.breaker.Gauge("remaining_cx_pools").Set(math.MaxUint64) // there is no limit
		s.left.CompareAndSwap(nil, &left{s.breaker.Gauge("remaining_cx"), s.breaker.Gauge("remaining_pending"), s.breaker.Gauge("remaining_rq")})
	}
	s.showActive(c.MaxConnections)
	s.showPending(c.MaxPendingRequests)
	s.showRequests(c.MaxRequests)
}

// open sets a breaker's gauge: 1 while no more are let through.
func open(g *stats.Gauge, n int64, limit uint32) {
	v := uint64(0)
	if n >= int64(limit) {
		v = 1
	}
	if g.Value() != v {
		g.Set(v)
	}
}

func remaining(g *stats.Gauge, n int64, limit uint32) { g.Set(uint64(max(0, int64(limit)-n))) }
