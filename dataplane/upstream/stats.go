package upstream

import (
	"sync"

	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/balance"
)

// Stats are a cluster's figures, under Envoy's names (docs: "Cluster manager
// stats"). When which one moves was measured on Envoy 1.40.
type Stats struct {
	scope, breaker *stats.Scope
	store          *stats.Store
	name           stats.Tag
	high           *stats.Scope // nil until something of the HIGH priority is shown

	Total, ConnectFail, ConnectTimeout, ConnectAttemptsExceeded, Overflow, NoneHealthy        *stats.Counter
	Destroy, DestroyLocal, DestroyRemote                                                      *stats.Counter
	DestroyWithActiveRq, DestroyLocalWithActiveRq, DestroyRemoteWithActiveRq                  *stats.Counter
	RxBytes, TxBytes, RqTotal, PendingTotal, PendingOverflow, PendingFailureEject, Cancelled  *stats.Counter
	MembershipChange, BindErrors, DestinationInvalid                                          *stats.Counter
	Active, RqActive, PendingActive                                                           *stats.Gauge
	MembershipTotal, MembershipHealthy, MembershipDegraded, MembershipExcluded, MaxHostWeight *stats.Gauge
	ConnectMS, LengthMS                                                                       *stats.Histogram

	balance                     *balance.Stats
	cxOpen, pendingOpen, rqOpen *stats.Gauge
}

// unmoved are the figures that Envoy shows of every cluster, and that a proxy of
// TCP does not move, or not yet.
var unmoved = sync.OnceValue(func() *stats.Blank {
	breakers := []string{"upstream_cx_rx_bytes_buffered", "upstream_cx_tx_bytes_buffered", "version", "warming_state",
		"circuit_breakers.default.cx_pool_open", "circuit_breakers.default.rq_retry_open"}
	for _, high := range []string{"cx_open", "cx_pool_open", "rq_open", "rq_pending_open", "rq_retry_open"} {
		breakers = append(breakers, "circuit_breakers.high."+high)
	}
	return stats.NewBlank([]string{
		"assignment_stale", "assignment_timeout_received", "assignment_use_cached", "original_dst_host_invalid", "retry_or_shadow_abandoned",
		"update_attempt", "update_empty", "update_failure", "update_no_rebuild", "update_success",
		"upstream_cx_close_notify", "upstream_cx_connect_with_0_rtt", "upstream_cx_http1_total", "upstream_cx_http2_total", "upstream_cx_http3_total",
		"upstream_cx_idle_timeout", "upstream_cx_max_duration_reached", "upstream_cx_max_requests", "upstream_cx_pool_overflow",
		"upstream_cx_preconnect_skipped", "upstream_cx_protocol_error", "upstream_flow_control_backed_up_total",
		"upstream_flow_control_drained_total", "upstream_flow_control_paused_reading_total", "upstream_flow_control_resumed_reading_total",
		"upstream_http3_broken", "upstream_internal_redirect_failed_total", "upstream_internal_redirect_succeeded_total", "upstream_queue_overloaded",
		"upstream_rq_0rtt", "upstream_rq_active_overflow", "upstream_rq_completed", "upstream_rq_maintenance_mode",
		"upstream_rq_max_duration_reached", "upstream_rq_per_try_idle_timeout", "upstream_rq_per_try_timeout", "upstream_rq_retry",
		"upstream_rq_retry_backoff_exponential", "upstream_rq_retry_backoff_ratelimited", "upstream_rq_retry_limit_exceeded",
		"upstream_rq_retry_overflow", "upstream_rq_retry_success", "upstream_rq_rx_reset", "upstream_rq_rx_reset_no_error",
		"upstream_rq_timeout", "upstream_rq_tx_reset",
	}, breakers, []string{"upstream_rq_per_cx"})
})

func newStats(store *stats.Store, name string) *Stats {
	tag := stats.Tag{Name: "envoy.cluster_name", Value: name}
	sc := store.Scope("cluster", tag)
	cb := store.Scope("cluster", tag, "circuit_breakers", "default")
	sc.Show(unmoved())
	return &Stats{
		scope: sc, breaker: cb, store: store, name: tag, balance: balance.NewStats(sc),
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
		Cancelled:                 sc.Counter("upstream_rq_cancelled"),
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
		rqOpen:                    cb.Gauge("rq_open"),
	}
}

func (s *Stats) release() {
	s.scope.Release()
	s.breaker.Release()
	if s.high != nil {
		s.high.Release()
	}
}

// highBreaker is the scope of the HIGH priority's breakers; who updates the cluster
// asks for it.
func (s *Stats) highBreaker() *stats.Scope {
	if s.high == nil {
		s.high = s.store.Scope("cluster", s.name, "circuit_breakers", "high")
	}
	return s.high
}
