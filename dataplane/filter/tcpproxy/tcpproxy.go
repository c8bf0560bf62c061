package tcpproxy

import (
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/accesslog"
	"github.com/sluice-proxy/sluice/dataplane/balance"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/proxyheader"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// Factory is one tcp_proxy of a filter chain. Read-only after New.
type Factory struct {
	config  *api.TCPProxy
	stats   *factoryStats
	cluster func(name string) *upstream.Cluster
	// demand asks for a cluster that is not there; nil: such a connection ends.
	demand  func(api.Demand, *loop.Worker, func(api.DemandOutcome)) (cancel func())
	logs    accesslog.Logs
	tunnel  *tunneling // nil: none
	weights uint64     // the sum
	// match is for the one cluster, matches for those drawn by weight.
	match   balance.Criteria
	matches []balance.Criteria
	tlvs    proxyheader.Values
	// shed, if it is not nil, is asked about bytes of the client.
	shed func() bool
}

type factoryStats struct {
	scope                                         *stats.Scope
	total, noRoute, rxBytes, txBytes, idleTimeout *stats.Counter
	maxDuration, early, drainClose, overloadClose *stats.Counter
	http                                          *httpStats   // nil unless it stands for HTTP
	demand                                        *demandStats // nil without on_demand
}

// httpStats are those of a connection manager that can be told of its connections
// alone.
type httpStats struct {
	scope                         *stats.Scope
	total, destroy, asTCP, rx, tx *stats.Counter
	active                        *stats.Gauge
}

func newHTTPStats(c *api.TCPProxy, ctx filter.Context) *httpStats {
	if !c.ForHTTP {
		return nil
	}
	sc := ctx.Stats.Scope("http", stats.Tag{Name: "envoy.http_conn_manager_prefix", Value: c.StatPrefix})
	return &httpStats{
		scope: sc, total: sc.Counter("downstream_cx_total"), destroy: sc.Counter("downstream_cx_destroy"),
		// What Envoy does to the headers of every request is lost on these.
		asTCP: sc.Counter("downstream_cx_as_tcp"),
		rx:    sc.Counter("downstream_cx_rx_bytes_total"), tx: sc.Counter("downstream_cx_tx_bytes_total"),
		active: sc.Gauge("downstream_cx_active"),
	}
}

// New makes the factory of one chain. The error is that of opening an access
// log.
func New(c *api.TCPProxy, ctx filter.Context) (*Factory, error) {
	logs, err := ctx.Files.Logs(c.AccessLogs)
	if err != nil {
		return nil, err
	}
	sc := ctx.Stats.Scope("tcp", stats.Tag{Name: "envoy.tcp_prefix", Value: c.StatPrefix})
	for _, always := range []string{"downstream_flow_control_paused_reading_total", "downstream_flow_control_resumed_reading_total", "route_delayed_total", "upstream_flush_total"} {
		sc.Counter(always) // named as Envoy names them, and never moved yet
	}
	for _, always := range []string{"downstream_cx_rx_bytes_buffered", "downstream_cx_tx_bytes_buffered", "upstream_flush_active"} {
		sc.Gauge(always)
	}
	f := &Factory{config: c, shed: ctx.ShedData, tlvs: proxyheader.NewValues(c.ProxyProtocolTLVs), match: balance.NewCriteria(c.MetadataMatch, false), cluster: ctx.Cluster, logs: logs, tunnel: newTunneling(c.Tunnel), stats: &factoryStats{
		scope:       sc,
		total:       sc.Counter("downstream_cx_total"),
		noRoute:     sc.Counter("downstream_cx_no_route"),
		rxBytes:     sc.Counter("downstream_cx_rx_bytes_total"),
		txBytes:     sc.Counter("downstream_cx_tx_bytes_total"),
		idleTimeout: sc.Counter("idle_timeout"),
		maxDuration: sc.Counter("max_downstream_connection_duration"),
		early:       sc.Counter("early_data_received_count_total"),
		drainClose:  sc.Counter("downstream_cx_drain_close"),

		overloadClose: sc.Counter("downstream_cx_overload_close"),
	}}
	f.stats.http = newHTTPStats(c, ctx)
	if c.OnDemand != nil {
		f.demand, f.stats.demand = ctx.Demand, newDemandStats(sc)
	}
	for i := range c.Clusters {
		f.weights += uint64(c.Clusters[i].Weight)
		f.matches = append(f.matches, balance.NewCriteria(c.Clusters[i].MetadataMatch, false))
	}
	return f, nil
}

// New makes the tcp_proxy of a connection, and counts it: as in Envoy also one
// that a filter before it turns away.
func (f *Factory) New(c *filter.Connection) filter.Filter {
	f.stats.total.Inc()
	if h := f.stats.http; h != nil {
		h.total.Inc()
		h.asTCP.Inc()
		h.active.Inc()
	}
	return &Session{factory: f, conn: c}
}

// Watch says that tcp_proxy itself needs to see nothing.
func (f *Factory) Watch() filter.Watch { return filter.Nothing }

// Release closes the logs and forgets the statistics, if no other filter has
// them too.
func (f *Factory) Release() {
	f.logs.Close()
	f.stats.scope.Release()
	if h := f.stats.http; h != nil {
		h.scope.Release()
	}
}
