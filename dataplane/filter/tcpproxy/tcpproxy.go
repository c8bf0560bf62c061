package tcpproxy

import (
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// Factory is one tcp_proxy of a filter chain. Read-only after New.
type Factory struct {
	config  *api.TCPProxy
	stats   *factoryStats
	cluster func(name string) *upstream.Cluster
}

type factoryStats struct {
	scope                                         *stats.Scope
	total, noRoute, rxBytes, txBytes, idleTimeout *stats.Counter
}

// New makes the factory of one chain.
func New(c *api.TCPProxy, ctx filter.Context) *Factory {
	sc := ctx.Stats.Scope("tcp", stats.Tag{Name: "envoy.tcp_prefix", Value: c.StatPrefix})
	for _, always := range []string{"downstream_cx_drain_close", "downstream_cx_overload_close", "early_data_received_count_total", "max_downstream_connection_duration",
		"downstream_flow_control_paused_reading_total", "downstream_flow_control_resumed_reading_total", "route_delayed_total", "upstream_flush_total"} {
		sc.Counter(always) // named as Envoy names them, and never moved yet
	}
	for _, always := range []string{"downstream_cx_rx_bytes_buffered", "downstream_cx_tx_bytes_buffered", "upstream_flush_active"} {
		sc.Gauge(always)
	}
	return &Factory{config: c, cluster: ctx.Cluster, stats: &factoryStats{
		scope:       sc,
		total:       sc.Counter("downstream_cx_total"),
		noRoute:     sc.Counter("downstream_cx_no_route"),
		rxBytes:     sc.Counter("downstream_cx_rx_bytes_total"),
		txBytes:     sc.Counter("downstream_cx_tx_bytes_total"),
		idleTimeout: sc.Counter("idle_timeout"),
	}}
}

// New makes the tcp_proxy of a connection.
func (f *Factory) New(c *filter.Connection) filter.Filter { return &Session{factory: f, conn: c} }

// Watch says that tcp_proxy itself needs to see nothing.
func (f *Factory) Watch() filter.Watch { return filter.Nothing }

// Release forgets the statistics, if no other filter has them too.
func (f *Factory) Release() { f.stats.scope.Release() }
