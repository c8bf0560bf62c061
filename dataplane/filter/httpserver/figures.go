package httpserver

import (
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/filter"
)

// figures are Envoy's of a connection manager (docs: "HTTP connection manager
// statistics"), as far as what is built can move them, and its router's.
type figures struct {
	scopes []*stats.Scope

	total, destroy, destroyLocal, destroyRemote, drainClose *stats.Counter
	sslTotal                                                *stats.Counter
	sslActive, active, http1Active, http2Active, rqActive   *stats.Gauge
	http1Total, http2Total, rx, tx, upgrades                *stats.Counter
	rqTotal, rqHTTP1, rqHTTP2, completed, noUpgrade         *stats.Counter
	classes                                                 [5]*stats.Counter // 1xx …
	routed, noRoute, noCluster, direct                      *stats.Counter
	length, took                                            *stats.Histogram

	// the listener's of this connection manager
	listenerCompleted *stats.Counter
	listenerClasses   [5]*stats.Counter

	checks *checkFigures // nil without a health_check filter
}

type checkFigures struct{ total, ok, failed *stats.Counter }

func prefixTag(prefix string) stats.Tag {
	return stats.Tag{Name: "envoy.http_conn_manager_prefix", Value: prefix}
}

func newFigures(c *api.HTTP, ctx filter.Context) *figures {
	sc := ctx.Stats.Scope("http", prefixTag(c.StatPrefix))
	ls := ctx.Stats.Scope("listener", stats.Tag{Name: "envoy.listener_address", Value: ctx.Listener}, "http", prefixTag(c.StatPrefix))
	for _, always := range []string{"downstream_cx_protocol_error", "downstream_cx_idle_timeout", "downstream_cx_max_duration_reached",
		"downstream_rq_rx_reset", "downstream_rq_timeout", "downstream_rq_too_large", "rq_redirect"} {
		sc.Counter(always) // named as Envoy names them, and never moved yet
	}
	f := &figures{
		scopes: []*stats.Scope{sc, ls},
		total:  sc.Counter("downstream_cx_total"), destroy: sc.Counter("downstream_cx_destroy"),
		destroyLocal: sc.Counter("downstream_cx_destroy_local"), destroyRemote: sc.Counter("downstream_cx_destroy_remote"),
		drainClose: sc.Counter("downstream_cx_drain_close"),
		sslTotal:   sc.Counter("downstream_cx_ssl_total"), sslActive: sc.Gauge("downstream_cx_ssl_active"),
		active: sc.Gauge("downstream_cx_active"), http1Active: sc.Gauge("downstream_cx_http1_active"),
		http2Active: sc.Gauge("downstream_cx_http2_active"), rqActive: sc.Gauge("downstream_rq_active"),
		http1Total: sc.Counter("downstream_cx_http1_total"), http2Total: sc.Counter("downstream_cx_http2_total"),
		rx: sc.Counter("downstream_cx_rx_bytes_total"), tx: sc.Counter("downstream_cx_tx_bytes_total"),
		upgrades: sc.Counter("downstream_cx_upgrades_total"),
		rqTotal:  sc.Counter("downstream_rq_total"), rqHTTP1: sc.Counter("downstream_rq_http1_total"),
		rqHTTP2: sc.Counter("downstream_rq_http2_total"), completed: sc.Counter("downstream_rq_completed"),
		noUpgrade: sc.Counter("downstream_rq_ws_on_non_ws_route"),
		routed:    sc.Counter("rq_total"), noRoute: sc.Counter("no_route"), noCluster: sc.Counter("no_cluster"),
		direct: sc.Counter("rq_direct_response"),
		length: sc.Histogram("downstream_cx_length_ms"), took: sc.Histogram("downstream_rq_time"),
		listenerCompleted: ls.Counter("downstream_rq_completed"),
	}
	for i := range f.classes {
		name := "downstream_rq_" + strconv.Itoa(i+1) + "xx"
		f.classes[i], f.listenerClasses[i] = sc.Counter(name), ls.Counter(name)
	}
	if len(c.HealthChecks) > 0 {
		hc := ctx.Stats.Scope("http", prefixTag(c.StatPrefix), "health_check")
		f.scopes = append(f.scopes, hc)
		f.checks = &checkFigures{hc.Counter("request_total"), hc.Counter("ok"), hc.Counter("failed")}
	}
	return f
}

func (f *figures) release() {
	for _, sc := range f.scopes {
		sc.Release()
	}
}

// began counts a request in.
func (f *figures) began(r *http.Request, c *conn) {
	f.rqTotal.Inc()
	f.rqActive.Inc()
	if r.ProtoMajor == 2 {
		f.rqHTTP2.Inc()
		if c.codec.CompareAndSwap(0, 2) {
			f.http2Total.Inc()
			f.http2Active.Inc()
		}
		return
	}
	f.rqHTTP1.Inc()
	if c.codec.CompareAndSwap(0, 1) {
		f.http1Total.Inc()
		f.http1Active.Inc()
	}
}

// answered counts it out. A health check that the filter answered counts no
// further.
func (f *figures) answered(code int, began time.Time, check bool) {
	f.rqActive.Dec()
	if check {
		return
	}
	f.took.RecordTime(time.Since(began))
	f.completed.Inc()
	f.listenerCompleted.Inc()
	if i := code/100 - 1; i >= 0 && i < len(f.classes) {
		f.classes[i].Inc()
		f.listenerClasses[i].Inc()
	}
}
