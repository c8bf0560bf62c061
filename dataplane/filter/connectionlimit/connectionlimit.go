// Package connectionlimit is envoy.filters.network.connection_limit: a filter
// chain takes so many connections at a time, and closes those beyond.
package connectionlimit

import (
	"strings"
	"sync/atomic"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/loop"
)

// reason is Envoy's local close reason.
const reason = "over_connection_limit"

// Factory is the limit of one filter chain, for all workers.
type Factory struct {
	config  *api.ConnectionLimit
	runtime *runtime.Runtime
	// open counts those beyond the limit too, for as long as they are delayed.
	open    *atomic.Int64
	scope   *stats.Scope
	limited *stats.Counter
	active  *stats.Gauge
}

// New makes the limit of one chain.
func New(c *api.ConnectionLimit, ctx filter.Context) *Factory {
	// The tag is the prefix up to its first dot.
	head, tail, _ := strings.Cut(c.StatPrefix, ".")
	sc := ctx.Stats.Scope("connection_limit", stats.Tag{Name: "envoy.connection_limit_prefix", Value: head}, tail)
	return &Factory{config: c, runtime: ctx.Runtime, open: new(atomic.Int64), scope: sc, limited: sc.Counter("limited_connections"), active: sc.Gauge("active_connections")}
}

// Inherit goes on counting: the connections of the version before are still open.
func (f *Factory) Inherit(old filter.Factory) {
	if o, ok := old.(*Factory); ok {
		f.open = o.open
	}
}

// New makes the filter of a connection.
func (f *Factory) New(c *filter.Connection) filter.Filter { return &session{factory: f, conn: c} }

// Watch says that the limit decides before any byte.
func (*Factory) Watch() filter.Watch { return filter.Nothing }

// Release forgets the statistics.
func (f *Factory) Release() { f.scope.Release() }

type session struct {
	filter.Base
	factory *Factory
	conn    *filter.Connection
	counted bool
	delay   loop.Timer
}

// NewConnection counts the connection, and closes it if there are too many.
func (s *session) NewConnection() filter.Status {
	f := s.factory
	if !f.runtime.On(f.config.Enabled) {
		return filter.Continue
	}
	s.counted = true
	f.active.Inc()
	if uint64(f.open.Add(1)) <= f.config.MaxConnections {
		return filter.Continue
	}
	f.limited.Inc()
	if f.config.Delay > 0 {
		s.delay.F = s.refuse
		s.conn.Core.Worker.After(&s.delay, f.config.Delay)
		return filter.Stop
	}
	s.refuse()
	return filter.Closed
}

func (s *session) refuse() { s.conn.Refuse(reason) }

// Ended counts the connection out.
func (s *session) Ended() {
	if s.counted {
		s.conn.Core.Worker.Stop(&s.delay)
		s.factory.open.Add(-1)
		s.factory.active.Dec()
	}
}
