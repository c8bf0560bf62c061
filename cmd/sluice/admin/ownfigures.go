package admin

import (
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/api/stats"
)

// ownFigures are those of the admin server's own connections and requests: Envoy has
// them for a listener and a connection manager that are called admin.
type ownFigures struct {
	listeners [2]listenerFigures // as a whole, and of its one thread

	destroyed                            *stats.Counter // of the listener
	length                               *stats.Histogram
	total, http1, destroy, local, remote *stats.Counter
	busy, busyLocal, busyRemote          *stats.Counter
	active, http1Active, rqActive        *stats.Gauge
	rx, tx, rqTotal, rqHTTP1             *stats.Counter
	completed, completedByListener       *stats.Counter
	classes, classesByListener           [5]*stats.Counter
	reset                                *stats.Counter // requests whose client is gone
	accepts                              *stats.Histogram
	took, connected                      *stats.Histogram
}

type listenerFigures struct {
	total  *stats.Counter
	active *stats.Gauge
}

// Of what follows nothing happens to this server: there is no TLS, no HTTP/2, no
// filter, no limit that counts.
var (
	unmovedOfListener = []string{"downstream_cx_overflow", "downstream_cx_overload_reject", "downstream_cx_transport_socket_connect_timeout",
		"downstream_global_cx_overflow", "downstream_listener_filter_error", "downstream_listener_filter_remote_close", "downstream_pre_cx_timeout", "no_filter_chain_match"}
	unmovedOfHTTP = []string{"downstream_cx_delayed_close_timeout", "downstream_cx_drain_close", "downstream_cx_http1_soft_drain", "downstream_cx_http2_total", "downstream_cx_http3_total",
		"downstream_cx_max_duration_reached", "downstream_cx_max_requests_reached", "downstream_cx_overload_disable_keepalive", "downstream_cx_ssl_total",
		"downstream_cx_upgrades_total", "downstream_flow_control_paused_reading_total", "downstream_flow_control_resumed_reading_total",
		"downstream_rq_failed_path_normalization", "downstream_rq_http2_total", "downstream_rq_http3_total", "downstream_rq_max_duration_reached",
		"downstream_rq_non_relative_path", "downstream_rq_overload_close", "downstream_rq_redirected_with_normalized_path",
		"downstream_rq_rejected_via_ip_detection", "downstream_rq_too_many_premature_resets", "downstream_rq_tx_reset", "downstream_rq_ws_on_non_ws_route", "rs_too_large"}
	// of HTTP/1, which drops no headers, whatever their names are
	unmovedOfHTTP1 = []string{"dropped_headers_with_underscores", "metadata_not_supported_error", "requests_rejected_with_underscores_in_headers", "response_flood"}
	unmovedGauges  = []string{"downstream_cx_http2_active", "downstream_cx_http3_active", "downstream_cx_ssl_active", "downstream_cx_upgrades_active"}
)

func newOwnFigures(store *stats.Store) *ownFigures {
	tag := stats.Tag{Name: "envoy.http_conn_manager_prefix", Value: "admin"}
	ls, main, hls, h := store.Scope("listener", "admin"), store.Scope("listener", "admin", "main_thread"), store.Scope("listener", "admin", "http", tag), store.Scope("http", tag)
	ls.Show(stats.NewBlank(unmovedOfListener, []string{"downstream_pre_cx_active"}, nil))
	h.Show(stats.NewBlank(unmovedOfHTTP, unmovedGauges, nil))
	store.Scope("http1").Show(stats.NewBlank(unmovedOfHTTP1, nil, nil))
	f := &ownFigures{
		destroyed: ls.Counter("downstream_cx_destroy"), length: ls.Histogram("downstream_cx_length_ms"),
		total: h.Counter("downstream_cx_total"), http1: h.Counter("downstream_cx_http1_total"),
		destroy: h.Counter("downstream_cx_destroy"), local: h.Counter("downstream_cx_destroy_local"), remote: h.Counter("downstream_cx_destroy_remote"),
		busy: h.Counter("downstream_cx_destroy_active_rq"), busyLocal: h.Counter("downstream_cx_destroy_local_active_rq"), busyRemote: h.Counter("downstream_cx_destroy_remote_active_rq"),
		active: h.Gauge("downstream_cx_active"), http1Active: h.Gauge("downstream_cx_http1_active"), rqActive: h.Gauge("downstream_rq_active"),
		rx: h.Counter("downstream_cx_rx_bytes_total"), tx: h.Counter("downstream_cx_tx_bytes_total"),
		rqTotal: h.Counter("downstream_rq_total"), rqHTTP1: h.Counter("downstream_rq_http1_total"),
		completed: h.Counter("downstream_rq_completed"), completedByListener: hls.Counter("downstream_rq_completed"),
		reset: h.Counter("downstream_rq_rx_reset"), accepts: ls.Histogram("connections_accepted_per_socket_event"),
		took: h.Histogram("downstream_rq_time"), connected: h.Histogram("downstream_cx_length_ms"),
	}
	for i, sc := range []*stats.Scope{ls, main} {
		f.listeners[i] = listenerFigures{sc.Counter("downstream_cx_total"), sc.Gauge("downstream_cx_active")}
	}
	for i := range f.classes {
		name := "downstream_rq_" + strconv.Itoa(i+1) + "xx"
		f.classes[i], f.classesByListener[i] = h.Counter(name), hls.Counter(name)
	}
	return f
}

// request counts one in; what it returns counts it out, with the code of its answer.
// Nil counts nothing.
func (f *ownFigures) request(r *http.Request) func(code int) {
	if f == nil {
		return func(int) {}
	}
	began := time.Now()
	conn, _ := r.Context().Value(ownConnKey{}).(*ownConn)
	f.rqTotal.Inc()
	f.rqHTTP1.Inc()
	f.rqActive.Inc()
	if conn != nil {
		conn.requests.Add(1)
	}
	return func(code int) {
		if conn != nil {
			conn.requests.Add(-1)
		}
		f.rqActive.Dec()
		f.completed.Inc()
		f.completedByListener.Inc()
		if i := code/100 - 1; i >= 0 && i < len(f.classes) {
			f.classes[i].Inc()
			f.classesByListener[i].Inc()
		}
		f.took.RecordTime(time.Since(began))
	}
}

// ownListener counts the connections that come in.
type ownListener struct {
	net.Listener
	figures *ownFigures
}

// Accept counts one in.
func (l ownListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	f := l.figures
	for _, of := range f.listeners {
		of.total.Inc()
		of.active.Inc()
	}
	f.accepts.Record(1)
	f.total.Inc()
	f.http1.Inc()
	f.active.Inc()
	f.http1Active.Inc()
	return &ownConn{Conn: c, figures: f, began: time.Now()}, nil
}

type ownConnKey struct{}

// ownConn counts its bytes, and itself out.
type ownConn struct {
	net.Conn
	figures  *ownFigures
	began    time.Time
	requests atomic.Int64 // that are answered now
	ended    atomic.Bool  // by the client
	closed   sync.Once
}

// Read notes that the client has ended it.
func (c *ownConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.figures.rx.Add(uint64(n))
	if timeout, ok := err.(net.Error); err != nil && !(ok && timeout.Timeout()) {
		c.ended.Store(true)
	}
	return n, err
}

// Write counts what it wrote.
func (c *ownConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.figures.tx.Add(uint64(n))
	return n, err
}

// Close counts the connection out, once.
func (c *ownConn) Close() error {
	remote, busy := c.ended.Load(), c.requests.Load() > 0
	c.closed.Do(func() {
		f := c.figures
		for _, of := range f.listeners {
			of.active.Dec()
		}
		f.active.Dec()
		f.http1Active.Dec()
		f.destroyed.Inc()
		f.destroy.Inc()
		by, busyBy := f.local, f.busyLocal
		if remote {
			by, busyBy = f.remote, f.busyRemote
		}
		by.Inc()
		if busy {
			f.busy.Inc()
			busyBy.Inc()
			if remote {
				f.reset.Inc()
			}
		}
		took := time.Since(c.began)
		f.length.RecordTime(took)
		f.connected.RecordTime(took)
	})
	return c.Conn.Close()
}
