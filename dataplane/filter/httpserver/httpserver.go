// Package httpserver serves chains with an HTTP connection manager whose routes
// are few and simple: probes, scrapes, redirects, what a control plane's agents
// ask. It is net/http's server and httputil's reverse proxy in Envoy's words and
// figures, in goroutines off the worker's loop, and no proxy for much traffic:
// each request has an upstream connection of its own.
package httpserver

import (
	"log/slog"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// Factory is the server of one filter chain. Read-only after New, but for start.
type Factory struct {
	config  *api.HTTP
	ctx     filter.Context
	routes  *table
	figures *figures
	start   sync.Once
	accepts *queue
	server  *http.Server
	proxy   *httputil.ReverseProxy
	checks  [][]headerMatch // of the health_check filters
	untold  sync.Once       // that a cluster asks for TLS

	mu        sync.Mutex
	externals map[string]*stats.Scope // by the cluster's name in statistics
}

// New makes the server of one chain. It runs from the first connection on.
func New(c *api.HTTP, ctx filter.Context) *Factory {
	f := &Factory{config: c, ctx: ctx, routes: newTable(c), figures: newFigures(c, ctx), accepts: newQueue(), externals: map[string]*stats.Scope{}}
	for _, h := range c.HealthChecks {
		f.checks = append(f.checks, newHeaderMatches(h.Headers))
	}
	var protocols http.Protocols
	protocols.SetHTTP1(c.HTTP1)
	protocols.SetUnencryptedHTTP2(c.HTTP2)
	f.server = &http.Server{
		Handler:                      http.HandlerFunc(f.serve),
		DisableGeneralOptionsHandler: true,
		ReadTimeout:                  c.RequestTimeout,
		ReadHeaderTimeout:            c.HeadersTimeout,
		IdleTimeout:                  c.IdleTimeout,
		MaxHeaderBytes:               int(c.MaxHeaderBytes),
		Protocols:                    &protocols,
		ConnContext:                  withConn,
		ErrorLog:                     slog.NewLogLogger(ctx.Log.Handler(), slog.LevelDebug),
	}
	f.proxy = f.newProxy()
	return f
}

// New makes the session of a connection, and counts it: as in Envoy also one that
// a filter before it turns away.
func (f *Factory) New(c *filter.Connection) filter.Filter {
	f.figures.total.Inc()
	f.figures.active.Inc()
	if c.Chain().TLS != nil {
		f.figures.sslTotal.Inc()
		f.figures.sslActive.Inc()
	}
	return &session{factory: f, conn: c}
}

// Watch says that the server itself reads.
func (*Factory) Watch() filter.Watch { return filter.Nothing }

// Release stops the server and forgets the figures.
func (f *Factory) Release() {
	f.accepts.Close()
	// There is no connection left that its end could say something of.
	_ = f.server.Close()
	f.figures.release()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, sc := range f.externals {
		sc.Release()
	}
}

// take gives a connection to the server.
func (f *Factory) take(c *conn) {
	f.start.Do(func() { go f.run() })
	if !f.accepts.put(c) {
		c.kill()
	}
}

// run serves until Release. The error says that the queue is closed.
func (f *Factory) run() { _ = f.server.Serve(f.accepts) }

// pick opens the books for a connection to a host of a cluster that is there.
func pick(c *upstream.Cluster) (*attempt, error) {
	up, err := c.PickAside()
	if err != nil {
		return nil, err
	}
	return &attempt{cluster: c, up: up, began: time.Now()}, nil
}
