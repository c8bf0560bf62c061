// Package ratelimit is envoy.filters.network.ratelimit: when a connection comes,
// a gRPC service (envoy.service.ratelimit.v3) is asked whether it is one too
// many. The call runs in a goroutine, off the worker's loop.
//
// It is one of the leaf packages that speak Envoy's gRPC services, and so may
// know Envoy's protos (test/layers).
package ratelimit

import (
	"context"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	servicev3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/grpcservice"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// Envoy's words.
const (
	name        = "envoy.filters.network.ratelimit"
	reasonOver  = "ratelimit_close_over_limit"
	reasonError = "ratelimit_error_failure_mode_connection_close"
)

// Factory is the rate limit of one filter chain. Read-only after New.
type Factory struct {
	config      *api.RateLimit
	descriptors [][]entry
	service     *grpcservice.Service

	scope                                                  *stats.Scope
	total, errors, over, ok, allowedByFailure, connections *stats.Counter
	active                                                 *stats.Gauge
}

type entry struct {
	key   string
	value *stream.Formatter
}

// New makes the rate limit of one chain.
func New(c *api.RateLimit, ctx filter.Context) *Factory {
	sc := ctx.Stats.Scope("ratelimit", stats.Tag{Name: "envoy.ratelimit_prefix", Value: c.StatPrefix})
	f := &Factory{
		config: c, scope: sc, service: grpcservice.New(&c.Service, ctx.Cluster),
		total: sc.Counter("total"), errors: sc.Counter("error"), over: sc.Counter("over_limit"), ok: sc.Counter("ok"),
		allowedByFailure: sc.Counter("failure_mode_allowed"), connections: sc.Counter("cx_closed"), active: sc.Gauge("active"),
	}
	for _, d := range c.Descriptors {
		var entries []entry
		for _, e := range d {
			entries = append(entries, entry{e.Key, stream.NewText(e.Value, false)})
		}
		f.descriptors = append(f.descriptors, entries)
	}
	return f
}

// New makes the filter of a connection.
func (f *Factory) New(c *filter.Connection) filter.Filter { return &session{factory: f, conn: c} }

// Watch says that the service decides before any byte.
func (*Factory) Watch() filter.Watch { return filter.Nothing }

// Release forgets the statistics and closes the connection to the service.
func (f *Factory) Release() {
	f.service.Close()
	f.scope.Release()
}

// ask calls the service.
func (f *Factory) ask(ctx context.Context, r *servicev3.RateLimitRequest) (*servicev3.RateLimitResponse, error) {
	ctx, conn, err := f.service.Connection(ctx)
	if err != nil {
		return nil, err
	}
	return servicev3.NewRateLimitServiceClient(conn).ShouldRateLimit(ctx, r)
}

type session struct {
	filter.Base
	factory *Factory
	conn    *filter.Connection
	cancel  func() // of the call under way, or nil
}

// NewConnection asks the service. The client's bytes stay in its socket.
func (s *session) NewConnection() filter.Status {
	f := s.factory
	f.total.Inc()
	f.active.Inc()
	ctx, cancel := context.WithTimeout(context.Background(), f.config.Timeout)
	s.cancel = cancel
	r := s.request()
	go func() {
		defer cancel()
		a, err := f.ask(ctx, r)
		s.conn.Core.Worker.Post(func() { s.answered(a, err) })
	}()
	return filter.Stop
}

// answered is on the worker again. A call that was given up says nothing.
func (s *session) answered(a *servicev3.RateLimitResponse, err error) {
	if s.cancel == nil {
		return
	}
	s.cancel = nil
	f := s.factory
	f.active.Dec()
	for key, v := range a.GetDynamicMetadata().AsMap() {
		s.conn.Info.SetMetadata(name, key, v)
	}
	switch {
	case err != nil:
		f.errors.Inc()
		if f.config.FailureModeDeny {
			f.connections.Inc()
			s.conn.Refuse(reasonError)
			return
		}
		f.allowedByFailure.Inc()
	case a.GetOverallCode() == servicev3.RateLimitResponse_OVER_LIMIT:
		f.over.Inc()
		f.connections.Inc()
		s.conn.Refuse(reasonOver)
		return
	default:
		f.ok.Inc() // UNKNOWN too, as in Envoy
	}
	s.conn.Resume()
}

// Ended gives a call up.
func (s *session) Ended() {
	if s.cancel != nil {
		s.cancel()
		s.cancel = nil
		s.factory.active.Dec()
	}
}

func (s *session) request() *servicev3.RateLimitRequest {
	r := &servicev3.RateLimitRequest{Domain: s.factory.config.Domain}
	m := stream.Moment{Info: s.conn.Info, Now: time.Now()}
	for _, d := range s.factory.descriptors {
		out := &ratelimitv3.RateLimitDescriptor{}
		for _, e := range d {
			out.Entries = append(out.Entries, &ratelimitv3.RateLimitDescriptor_Entry{Key: e.key, Value: string(e.value.Append(nil, m))})
		}
		r.Descriptors = append(r.Descriptors, out)
	}
	return r
}
