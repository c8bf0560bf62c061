package upstream

import (
	"time"

	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/outlier"
)

// Shared is the accounting of a connection that requests share: one of HTTP/2. It
// is for one goroutine, as its requests are.
type Shared struct {
	Connection // for its Dial
	HTTP2      *HTTP2Stats
	ended      bool
	begun      time.Time
}

// HTTP2Stats are the figures of a cluster's HTTP/2, which Envoy shows from the first
// connection on, and those of every cluster that only HTTP/2 moves.
type HTTP2Stats struct {
	scope, cluster   *stats.Scope
	RxReset, TxReset *stats.Counter
	StreamsActive    *stats.Gauge
	// ListTooLarge to KeepaliveTimeout say why a stream or a connection was ended.
	ListTooLarge, MessagingError, ControlFlood, EmptyFlood, PriorityFlood, WindowFlood, KeepaliveTimeout *stats.Counter
	connections                                                                                          *stats.Counter

	RqRxReset, RqRxResetNoError, RqTxReset                 *stats.Counter
	CloseNotify, ProtocolError, CxIdleTimeout, MaxRequests *stats.Counter
	MaxDuration                                            *stats.Counter
	total, http1Total, rqOverflow                          *stats.Counter
}

// http2 are those of a cluster.
func (u *Cluster) http2() *HTTP2Stats {
	u.http2Once.Do(func() {
		tag := stats.Tag{Name: "envoy.cluster_name", Value: u.statName}
		sc := u.store.Scope("cluster", tag, "http2")
		// Named as Envoy names them; they guard against what costs nothing here, or
		// never moves for a client.
		for _, always := range []string{"cookies_total_bytes_too_large", "dropped_headers_with_underscores", "header_overflow", "headers_cb_no_stream",
			"metadata_empty_frames", "nghttp2_downstream_connections", "oghttp2_downstream_connections", "oghttp2_upstream_connections",
			"outbound_flood", "requests_rejected_with_underscores_in_headers", "stream_refused_errors",
			"tx_flush_timeout", "goaway_sent", "trailers"} {
			sc.Counter(always)
		}
		for _, always := range []string{"deferred_stream_close", "outbound_control_frames_active", "outbound_frames_active", "pending_send_bytes"} {
			sc.Gauge(always)
		}
		all := u.store.Scope("cluster", tag)
		u.http2Stats.Store(&HTTP2Stats{
			scope: sc, cluster: all, RxReset: sc.Counter("rx_reset"), TxReset: sc.Counter("tx_reset"),
			ListTooLarge: sc.Counter("header_list_size_too_large"), MessagingError: sc.Counter("rx_messaging_error"), ControlFlood: sc.Counter("outbound_control_flood"),
			EmptyFlood: sc.Counter("inbound_empty_frames_flood"), PriorityFlood: sc.Counter("inbound_priority_frames_flood"),
			WindowFlood: sc.Counter("inbound_window_update_frames_flood"), KeepaliveTimeout: sc.Counter("keepalive_timeout"),
			MaxDuration:   all.Counter("upstream_cx_max_duration_reached"),
			StreamsActive: sc.Gauge("streams_active"), connections: sc.Counter("nghttp2_upstream_connections"),
			RqRxReset: all.Counter("upstream_rq_rx_reset"), RqRxResetNoError: all.Counter("upstream_rq_rx_reset_no_error"),
			RqTxReset: all.Counter("upstream_rq_tx_reset"), CloseNotify: all.Counter("upstream_cx_close_notify"),
			ProtocolError: all.Counter("upstream_cx_protocol_error"), CxIdleTimeout: all.Counter("upstream_cx_idle_timeout"),
			MaxRequests: all.Counter("upstream_cx_max_requests"), total: all.Counter("upstream_cx_http2_total"),
			http1Total: all.Counter("upstream_cx_http1_total"),
			rqOverflow: all.Counter("upstream_rq_active_overflow"),
		})
	})
	return u.http2Stats.Load()
}

func (s *HTTP2Stats) release() {
	s.scope.Release()
	s.cluster.Release()
}

// Generation is one configuration of a cluster, but for its endpoints: what is open
// under one is not shared under the next.
type Generation struct{ of *resources }

// Generation is that under which the host was chosen.
func (c Choice) Generation() Generation { return Generation{c.view.resources} }

// Sharing is the account of one worker's connections to a host that requests share.
type Sharing struct {
	host *Host
	pool *pool
}

// Sharing begins an account.
func (g Generation) Sharing(h *Host) *Sharing {
	return &Sharing{host: h, pool: &pool{of: g.of, load: h.pools.loadOf(g.of)}}
}

// Open counts a connection as being opened; nil: the limits hold it back, until one of
// the others ends. Without others there is nothing to wait for, and no limit.
func (s *Sharing) Open() *Shared {
	if in, _ := s.pool.enter(s.host, false); !in {
		return nil
	}
	u := s.host.cluster
	return &Shared{Connection: Connection{Host: s.host, pool: s.pool, held: u.holders.Hold()}, HTTP2: u.http2(), begun: time.Now()}
}

// Request begins the account of a request.
func (s *Sharing) Request() Request { return Request{host: s.host, of: s.pool.of} }

// Agreed counts that it was agreed what to speak on it: Envoy makes another connection
// of it then, as far as its figures go.
func (c *Shared) Agreed() { c.Host.cluster.Stats.Total.Inc() }

// Speaks counts that HTTP/2 is spoken on it.
func (c *Shared) Speaks() {
	c.HTTP2.connections.Inc()
	c.HTTP2.total.Inc()
}

// Alone makes it the connection of one client after all, whose request waits: it is
// yet to be counted as connected.
func (c *Shared) Alone() Connection {
	c.ended = true
	c.HTTP2.http1Total.Inc()
	return Connection{Host: c.Host, pool: c.pool, held: c.held, tcp: c.tcp}
}

// Stands counts it as open.
func (c *Shared) Stands() {
	c.established = true
	c.Host.report(outlier.Connected)
	c.Host.cluster.Stats.ConnectMS.RecordTime(time.Since(c.begun))
	c.begun = time.Now()
}

// End counts its end: by remote, or by us. timeout says that it was connect_timeout,
// busy that there were requests on it.
func (c *Shared) End(remote, timeout, busy bool) {
	if c.ended {
		return
	}
	c.ended = true
	s := c.Host.cluster.Stats
	if c.established {
		s.LengthMS.RecordTime(time.Since(c.begun))
	} else {
		s.ConnectFail.Inc()
		c.Host.cxConnectFail.Add(1)
		if timeout {
			s.ConnectTimeout.Inc()
			c.Host.report(outlier.TimedOut)
		} else {
			c.Host.report(outlier.Refused)
		}
	}
	s.Destroy.Inc()
	if remote && !c.local {
		s.DestroyRemote.Inc()
	} else {
		s.DestroyLocal.Inc()
	}
	if busy {
		s.DestroyWithActiveRq.Inc()
		if remote {
			s.DestroyRemoteWithActiveRq.Inc()
		} else {
			s.DestroyLocalWithActiveRq.Inc()
		}
	}
	c.pool.of.giveActive()
	c.Host.cxActive.Add(^uint64(0))
	c.drop()
	c.pool.left()
}
