package upstream

import (
	"math"
	"sync/atomic"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/api/stats"
)

// resources are what one configuration of a cluster counts against its limits. As
// in Envoy the next configuration begins at nothing, whatever is open by then; new
// endpoints are no other configuration.
type resources struct {
	limits breakers
	stats  *Stats
	left   *left // nil unless track_remaining is set

	active, pending, requests atomic.Int64
}

// left are the gauges of what the breakers let through yet.
type left struct{ cx, pending, rq *stats.Gauge }

func (s *Stats) newResources(c *api.Cluster, rt *runtime.Runtime) *resources {
	r := &resources{stats: s}
	r.limits.configured, r.limits.runtime, r.limits.key = &c.CircuitBreakers, rt, "circuit_breakers."+c.Name+".default."
	if c.CircuitBreakers.TrackRemaining {
		l := showAll(s.breaker, r.limits.now())
		r.left = &l
	}
	if c.HighBreakers.TrackRemaining {
		showAll(s.highBreaker(), &c.HighBreakers) // no TCP connection has this priority
	}
	return r
}

// showAll shows that nothing is taken.
func showAll(sc *stats.Scope, l *api.CircuitBreakers) left {
	pools := uint64(math.MaxUint64) // there is no limit
	if l.MaxPools != nil {
		pools = uint64(*l.MaxPools)
	}
	sc.Gauge("remaining_cx_pools").Set(pools)
	sc.Gauge("remaining_retries").Set(uint64(l.MaxRetries))
	out := left{sc.Gauge("remaining_cx"), sc.Gauge("remaining_pending"), sc.Gauge("remaining_rq")}
	out.cx.Set(uint64(l.MaxConnections))
	out.pending.Set(uint64(l.MaxPendingRequests))
	out.rq.Set(uint64(l.MaxRequests))
	return out
}

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

// full says that no more connections are let through.
func (r *resources) full() bool { return r.active.Load() >= int64(r.limits.now().MaxConnections) }

func (r *resources) takeActive() bool {
	if !take(&r.active, r.limits.now().MaxConnections) {
		return false
	}
	r.stats.Active.Inc()
	r.showActive()
	return true
}

// forceActive counts one more, whatever the limit.
func (r *resources) forceActive() {
	r.active.Add(1)
	r.stats.Active.Inc()
	r.showActive()
}

func (r *resources) giveActive() {
	r.active.Add(-1)
	r.stats.Active.Dec()
	r.showActive()
}

func (r *resources) takePending() bool {
	if !take(&r.pending, r.limits.now().MaxPendingRequests) {
		return false
	}
	r.stats.PendingActive.Inc()
	r.showPending()
	return true
}

func (r *resources) givePending() {
	r.pending.Add(-1)
	r.stats.PendingActive.Dec()
	r.showPending()
}

// request counts a request in or out: a connection that stands is one. Their
// limit is shown, and turns nobody away, as in Envoy's pool of TCP.
func (r *resources) request(by int64) {
	n := r.requests.Add(by)
	r.stats.RqActive.Add(by)
	open(r.stats.rqOpen, n, r.limits.now().MaxRequests)
	if r.left != nil {
		remaining(r.left.rq, n, r.limits.now().MaxRequests)
	}
}

func (r *resources) showActive() {
	n := r.active.Load()
	open(r.stats.cxOpen, n, r.limits.now().MaxConnections)
	if r.left != nil {
		remaining(r.left.cx, n, r.limits.now().MaxConnections)
	}
}

func (r *resources) showPending() {
	n := r.pending.Load()
	open(r.stats.pendingOpen, n, r.limits.now().MaxPendingRequests)
	if r.left != nil {
		remaining(r.left.pending, n, r.limits.now().MaxPendingRequests)
	}
}

// MaxRetries is the limit of retries that stands now, as /clusters shows it.
func (u *Cluster) MaxRetries() uint64 {
	r := u.view.Load().resources
	return r.limits.now().Retries(uint64(r.requests.Load() + r.pending.Load()))
}

// Breakers are the limits in force, of both priorities.
func (u *Cluster) Breakers() (normal, high *api.CircuitBreakers) {
	v := u.view.Load()
	h := breakers{configured: &v.config.HighBreakers, runtime: u.near.Runtime, key: "circuit_breakers." + v.config.Name + ".high."}
	return v.resources.limits.now(), h.now()
}

// breakers are limits that the runtime may change. They are read for every
// connection, and so kept until the runtime has changed.
type breakers struct {
	configured *api.CircuitBreakers
	runtime    *runtime.Runtime // may be nil
	key        string           // what the runtime's keys begin with
	kept       atomic.Pointer[inForce]
}

type inForce struct {
	api.CircuitBreakers
	version uint64
}

func (b *breakers) now() *api.CircuitBreakers {
	version := b.runtime.Version()
	if kept := b.kept.Load(); kept != nil && kept.version == version {
		return &kept.CircuitBreakers
	}
	next := &inForce{*b.configured, version}
	number := func(limit *uint32, name string) {
		*limit = uint32(min(math.MaxUint32, b.runtime.Number(b.key+name, uint64(*limit))))
	}
	number(&next.MaxConnections, "max_connections")
	number(&next.MaxPendingRequests, "max_pending_requests")
	number(&next.MaxRequests, "max_requests")
	number(&next.MaxRetries, "max_retries")
	b.kept.Store(next)
	return &next.CircuitBreakers
}

// open sets a breaker's gauge: 1 while no more are let through. As in Envoy a limit
// of none shows with the first that comes and goes, not before.
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
