// Package localratelimit is envoy.filters.network.local_ratelimit: every
// connection takes a token out of a bucket, or is closed.
package localratelimit

import (
	"strings"
	"sync"

	"golang.org/x/time/rate"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// reason is Envoy's local close reason.
const reason = "local_ratelimit_close_over_limit"

// Shared are the buckets that filters share by key. The zero value is empty and
// ready; it is safe for concurrent use.
type Shared struct {
	mu      sync.Mutex
	buckets map[shareKey]*shared
}

// shareKey: filters whose buckets differ do not share, whatever their key says.
type shareKey struct {
	name   string
	bucket api.TokenBucket
}

type shared struct {
	limiter *rate.Limiter
	users   int
}

func newLimiter(b api.TokenBucket) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(float64(b.TokensPerFill)/b.FillInterval.Seconds()), int(b.MaxTokens))
}

func (s *Shared) take(k shareKey) *rate.Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[k]
	if b == nil {
		if s.buckets == nil {
			s.buckets = map[shareKey]*shared{}
		}
		b = &shared{limiter: newLimiter(k.bucket)}
		s.buckets[k] = b
	}
	b.users++
	return b.limiter
}

func (s *Shared) give(k shareKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.buckets[k]; b != nil {
		if b.users--; b.users == 0 {
			delete(s.buckets, k)
		}
	}
}

// Factory is the rate limit of one filter chain, for all workers.
type Factory struct {
	config  *api.LocalRateLimit
	runtime *runtime.Runtime
	limiter *rate.Limiter
	shared  *Shared
	scope   *stats.Scope
	limited *stats.Counter
}

// New makes the rate limit of one chain; its bucket is full, unless it is shared.
func New(c *api.LocalRateLimit, ctx filter.Context, s *Shared) *Factory {
	// The tag is the prefix up to its first dot.
	head, tail, _ := strings.Cut(c.StatPrefix, ".")
	sc := ctx.Stats.Scope("local_rate_limit", stats.Tag{Name: "envoy.local_network_ratelimit_prefix", Value: head}, tail)
	f := &Factory{config: c, runtime: ctx.Runtime, shared: s, scope: sc, limited: sc.Counter("rate_limited")}
	if c.ShareKey != "" {
		f.limiter = s.take(f.key())
	} else {
		f.limiter = newLimiter(c.Bucket)
	}
	return f
}

func (f *Factory) key() shareKey { return shareKey{f.config.ShareKey, f.config.Bucket} }

// Inherit goes on with the bucket as it is: an update does not fill it.
func (f *Factory) Inherit(old filter.Factory) {
	if o, ok := old.(*Factory); ok && f.config.ShareKey == "" {
		f.limiter = o.limiter
	}
}

// New makes the filter of a connection.
func (f *Factory) New(c *filter.Connection) filter.Filter { return &session{factory: f, conn: c} }

// Watch says that the limit decides before any byte.
func (*Factory) Watch() filter.Watch { return filter.Nothing }

// Release forgets the statistics, and a shared bucket with its last user.
func (f *Factory) Release() {
	if f.config.ShareKey != "" {
		f.shared.give(f.key())
	}
	f.scope.Release()
}

type session struct {
	filter.Base
	factory *Factory
	conn    *filter.Connection
}

// NewConnection takes a token, or closes the connection.
func (s *session) NewConnection() filter.Status {
	f := s.factory
	if !f.runtime.On(f.config.Enabled) || f.limiter.Allow() {
		return filter.Continue
	}
	f.limited.Inc()
	// The flag is Envoy's own choice.
	s.conn.Info.Flags.Set(stream.UpstreamRetryLimitExceeded)
	s.conn.Refuse(reason)
	return filter.Closed
}
