package upstream

import (
	"sync/atomic"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/balance"
)

// Stats are a cluster's figures, under Envoy's names (docs: "Cluster manager
// stats"). When which one moves was measured on Envoy 1.40.
type Stats struct {
	scope, breaker *stats.Scope

	Total, ConnectFail, ConnectTimeout, ConnectAttemptsExceeded, Overflow, NoneHealthy        *stats.Counter
	Destroy, DestroyLocal, DestroyRemote                                                      *stats.Counter
	DestroyWithActiveRq, DestroyLocalWithActiveRq, DestroyRemoteWithActiveRq                  *stats.Counter
	RxBytes, TxBytes, RqTotal, PendingTotal, PendingOverflow, PendingFailureEject             *stats.Counter
	MembershipChange, BindErrors, DestinationInvalid                                          *stats.Counter
	Active, RqActive, PendingActive                                                           *stats.Gauge
	MembershipTotal, MembershipHealthy, MembershipDegraded, MembershipExcluded, MaxHostWeight *stats.Gauge
	ConnectMS, LengthMS                                                                       *stats.Histogram

	balance             *balance.Stats
	cxOpen, pendingOpen *stats.Gauge
	active, pending     atomic.Int64
}

func newStats(store *stats.Store, name string) *Stats {
	tag := stats.Tag{Name: "envoy.cluster_name", Value: name}
	sc := store.Scope("cluster", tag)
	cb := store.Scope("cluster", tag, "circuit_breakers", "default")
	for _, always := range []string{"upstream_cx_pool_overflow", "upstream_cx_max_requests", "upstream_cx_protocol_error", "upstream_cx_idle_timeout", "upstream_rq_timeout", "upstream_rq_cancelled",
		"upstream_flow_control_paused_reading_total", "upstream_flow_control_resumed_reading_total", "upstream_flow_control_backed_up_total", "upstream_flow_control_drained_total"} {
		sc.Counter(always) // named as Envoy names them, and never moved yet
	}
	return &Stats{
		scope: sc, breaker: cb, balance: balance.NewStats(sc),
		Total:                     sc.Counter("upstream_cx_total"),
		ConnectFail:               sc.Counter("upstream_cx_connect_fail"),
		ConnectTimeout:            sc.Counter("upstream_cx_connect_timeout"),
		ConnectAttemptsExceeded:   sc.Counter("upstream_cx_connect_attempts_exceeded"),
		Overflow:                  sc.Counter("upstream_cx_overflow"),
		NoneHealthy:               sc.Counter("upstream_cx_none_healthy"),
		Destroy:                   sc.Counter("upstream_cx_destroy"),
		DestroyLocal:              sc.Counter("upstream_cx_destroy_local"),
		DestroyRemote:             sc.Counter("upstream_cx_destroy_remote"),
		DestroyWithActiveRq:       sc.Counter("upstream_cx_destroy_with_active_rq"),
		DestroyLocalWithActiveRq:  sc.Counter("upstream_cx_destroy_local_with_active_rq"),
		DestroyRemoteWithActiveRq: sc.Counter("upstream_cx_destroy_remote_with_active_rq"),
		RxBytes:                   sc.Counter("upstream_cx_rx_bytes_total"),
		TxBytes:                   sc.Counter("upstream_cx_tx_bytes_total"),
		RqTotal:                   sc.Counter("upstream_rq_total"),
		PendingTotal:              sc.Counter("upstream_rq_pending_total"),
		PendingOverflow:           sc.Counter("upstream_rq_pending_overflow"),
		PendingFailureEject:       sc.Counter("upstream_rq_pending_failure_eject"),
		MembershipChange:          sc.Counter("membership_change"),
		BindErrors:                sc.Counter("bind_errors"),
		DestinationInvalid:        sc.Counter("original_dst_host_invalid"),
		Active:                    sc.Gauge("upstream_cx_active"),
		RqActive:                  sc.Gauge("upstream_rq_active"),
		PendingActive:             sc.Gauge("upstream_rq_pending_active"),
		MembershipTotal:           sc.Gauge("membership_total"),
		MembershipHealthy:         sc.Gauge("membership_healthy"),
		MembershipDegraded:        sc.Gauge("membership_degraded"),
		MembershipExcluded:        sc.Gauge("membership_excluded"),
		MaxHostWeight:             sc.Gauge("max_host_weight"),
		ConnectMS:                 sc.Histogram("upstream_cx_connect_ms"),
		LengthMS:                  sc.Histogram("upstream_cx_length_ms"),
		cxOpen:                    cb.Gauge("cx_open"),
		pendingOpen:               cb.Gauge("rq_pending_open"),
	}
}

func (s *Stats) release() {
	s.scope.Release()
	s.breaker.Release()
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

func (s *Stats) takeActive(limit uint32) bool {
	if !take(&s.active, limit) {
		return false
	}
	s.Active.Inc()
	open(s.cxOpen, &s.active, limit)
	return true
}

func (s *Stats) giveActive(limit uint32) {
	s.active.Add(-1)
	s.Active.Dec()
	open(s.cxOpen, &s.active, limit)
}

func (s *Stats) takePending(limit uint32) bool {
	if !take(&s.pending, limit) {
		return false
	}
	s.PendingActive.Inc()
	open(s.pendingOpen, &s.pending, limit)
	return true
}

func (s *Stats) givePending(limit uint32) {
	s.pending.Add(-1)
	s.PendingActive.Dec()
	open(s.pendingOpen, &s.pending, limit)
}

func (s *Stats) breakers(c *api.CircuitBreakers) {
	open(s.cxOpen, &s.active, c.MaxConnections)
	open(s.pendingOpen, &s.pending, c.MaxPendingRequests)
}

// open sets a breaker's gauge: 1 while no more are let through.
func open(g *stats.Gauge, n *atomic.Int64, limit uint32) {
	v := uint64(0)
	if n.Load() >= int64(limit) {
		v = 1
	}
	if g.Value() != v {
		g.Set(v)
	}
}
