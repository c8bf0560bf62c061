package httpserver

import (
	"sync/atomic"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/filter"
)

// Unserved closes the connections of a chain that cannot be served, counts them
// and says why, once.
type Unserved struct {
	config *api.UnservedHTTP
	ctx    filter.Context
	scope  *stats.Scope
	closed *stats.Counter
	told   atomic.Bool
}

// NewUnserved makes the factory of one chain.
func NewUnserved(c *api.UnservedHTTP, ctx filter.Context) *Unserved {
	sc := ctx.Stats.Scope("http", prefixTag(c.StatPrefix))
	return &Unserved{config: c, ctx: ctx, scope: sc, closed: sc.Counter("downstream_cx_unserved")}
}

// New makes the filter of a connection.
func (u *Unserved) New(c *filter.Connection) filter.Filter { return &refusal{factory: u, conn: c} }

// Watch says that nothing is read.
func (*Unserved) Watch() filter.Watch { return filter.Nothing }

// Release forgets the figure.
func (u *Unserved) Release() { u.scope.Release() }

// Inherit keeps what was said once from being said again.
func (u *Unserved) Inherit(old filter.Factory) {
	if o, ok := old.(*Unserved); ok {
		u.told.Store(o.told.Load())
	}
}

type refusal struct {
	filter.Base
	factory *Unserved
	conn    *filter.Connection
}

// NewConnection closes the connection.
func (r *refusal) NewConnection() filter.Status {
	u := r.factory
	u.closed.Inc()
	if !u.told.Swap(true) {
		u.ctx.Log.Warn("connection closed: what its HTTP chain asks for is not built; this is said once",
			"listener", r.conn.Info.Listener.Name, "chain", r.conn.Info.ChainName(), "stat_prefix", u.config.StatPrefix, "why", u.config.Why)
	}
	r.conn.Info.Explain().LocalClose = "http_chain_not_served"
	r.Close()
	return filter.Closed
}

// Resume has nothing to do.
func (*refusal) Resume() {}

// Close ends the connection in order.
func (r *refusal) Close() {
	r.conn.CloseSocket()
	r.conn.End()
}

// Kill ends it by RST.
func (r *refusal) Kill() {
	r.conn.ResetSocket()
	r.conn.End()
}

// Flush has nothing to do.
func (*refusal) Flush() {}

// Discarded has nothing to do either.
func (*refusal) Discarded(uint64) {}
