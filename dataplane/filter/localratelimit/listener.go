package localratelimit

import (
	"golang.org/x/time/rate"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/filter"
)

// ListenerFactory is envoy.filters.listener.local_ratelimit: every socket takes a
// token, or is closed before its filter chain is looked for.
type ListenerFactory struct {
	enabled runtime.Flag
	runtime *runtime.Runtime
	limiter *rate.Limiter
	scope   *stats.Scope
	limited *stats.Counter
}

// NewListener makes the rate limit of one listener; its bucket is full.
func NewListener(c *api.LocalRateLimit, store *stats.Store, r *runtime.Runtime) *ListenerFactory {
	sc := store.Scope("listener_local_ratelimit", stats.Tag{Name: "envoy.local_listener_ratelimit_prefix", Value: c.StatPrefix})
	return &ListenerFactory{enabled: c.Enabled, runtime: r, limiter: newLimiter(c.Bucket), scope: sc, limited: sc.Counter("rate_limited")}
}

// New makes the filter of a socket, which is one and the same for all.
func (f *ListenerFactory) New(*filter.Socket) filter.ListenerFilter { return (*listener)(f) }

// Release gives the statistics back.
func (f *ListenerFactory) Release() { f.scope.Release() }

type listener ListenerFactory

// Wants says that no bytes are looked at.
func (*listener) Wants() int { return 0 }

// Data is never asked.
func (*listener) Data(*filter.Socket, []byte) filter.Status { return filter.Continue }

// Accepted takes a token, or has the socket closed.
func (f *listener) Accepted(*filter.Socket) filter.Status {
	if !f.runtime.On(f.enabled) || f.limiter.Allow() {
		return filter.Continue
	}
	f.limited.Inc()
	return filter.Closed
}
