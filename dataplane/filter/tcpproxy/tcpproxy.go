package tcpproxy

import (
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/pair"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// Filter is one tcp_proxy of a filter chain. Read-only after New.
type Filter struct {
	config *api.TCPProxy
	stats  *filterStats
	// cluster finds a cluster that is in force now, or nil.
	cluster func(name string) *upstream.Cluster
}

type filterStats struct {
	scope                                         *stats.Scope
	total, noRoute, rxBytes, txBytes, idleTimeout *stats.Counter
}

// New makes the filter of one chain; Release gives its statistics back.
func New(c *api.TCPProxy, store *stats.Store, cluster func(string) *upstream.Cluster) *Filter {
	sc := store.Scope("tcp", stats.Tag{Name: "envoy.tcp_prefix", Value: c.StatPrefix})
	for _, always := range []string{"downstream_cx_drain_close", "downstream_cx_overload_close", "early_data_received_count_total", "max_downstream_connection_duration",
		"downstream_flow_control_paused_reading_total", "downstream_flow_control_resumed_reading_total", "route_delayed_total", "upstream_flush_total"} {
		sc.Counter(always) // named as Envoy names them, and never moved yet
	}
	for _, always := range []string{"downstream_cx_rx_bytes_buffered", "downstream_cx_tx_bytes_buffered", "upstream_flush_active"} {
		sc.Gauge(always)
	}
	return &Filter{config: c, cluster: cluster, stats: &filterStats{
		scope:       sc,
		total:       sc.Counter("downstream_cx_total"),
		noRoute:     sc.Counter("downstream_cx_no_route"),
		rxBytes:     sc.Counter("downstream_cx_rx_bytes_total"),
		txBytes:     sc.Counter("downstream_cx_tx_bytes_total"),
		idleTimeout: sc.Counter("idle_timeout"),
	}}
}

// Release forgets the filter's statistics, if no other filter has them too.
func (f *Filter) Release() { f.stats.scope.Release() }

// Downstream is an accepted connection and where it came in.
type Downstream struct {
	FD         int
	ID         uint64
	Listener   string
	Chain      string
	Generation uint64
	// Limit is the listener's per_connection_buffer_limit_bytes.
	Limit uint32
	// Closed is called once, on the worker, when the connection has ended.
	Closed func()
}

// Core is what a filter uses of the worker that it runs on.
type Core struct {
	Worker *loop.Worker
	Pairs  *pair.Set
	// Sessions are those that live on the worker.
	Sessions map[*Session]struct{}
}
