package parity

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	servicev3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sluice-proxy/sluice/test/peer"
)

const ofRateService = `ratelimit\..*`

// limiter is a rate limit service that answers all alike.
type limiter struct {
	servicev3.UnimplementedRateLimitServiceServer
	code  servicev3.RateLimitResponse_Code
	delay time.Duration
	err   error
	asked atomic.Pointer[servicev3.RateLimitRequest]
}

func (l *limiter) ShouldRateLimit(ctx context.Context, q *servicev3.RateLimitRequest) (*servicev3.RateLimitResponse, error) {
	l.asked.Store(q)
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(l.delay):
	}
	s, err := structpb.NewStruct(map[string]any{"user": "me"})
	if err != nil {
		return nil, err
	}
	return &servicev3.RateLimitResponse{OverallCode: l.code, DynamicMetadata: s}, l.err
}

// limiting starts a rate limit service.
func (r *run) limiting(l *limiter) netip.AddrPort {
	r.Helper()
	return r.grpc(func(s *grpc.Server) { servicev3.RegisterRateLimitServiceServer(s, l) })
}

func askRateService(more obj) obj {
	return network("ratelimit", "RateLimit", obj{"stat_prefix": "p", "domain": "d", "timeout": "1s",
		"descriptors":        []obj{{"entries": []obj{{"key": "k", "value": "from %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}, {"key": "l", "value": "w"}}, "limit": obj{"requests_per_unit": 1, "unit": "SECOND"}}},
		"rate_limit_service": obj{"transport_api_version": "V3", "grpc_service": obj{"envoy_grpc": obj{"cluster_name": "auth"}}}}.with(more))
}

const rateLimitLog = `flags=%RESPONSE_FLAGS% details=%CONNECTION_TERMINATION_DETAILS% down-close=%DOWNSTREAM_LOCAL_CLOSE_REASON% received=%BYTES_RECEIVED% sent=%BYTES_SENT% ` +
	`user=%DYNAMIC_METADATA(envoy.filters.network.ratelimit:user)%` + "\n"

// rated starts a proxy that asks at for each connection.
func (r *run) rated(at netip.AddrPort, more obj, filters ...obj) (log string) {
	r.Helper()
	addr, _ := r.recorder(peer.ResponseThen("banner", peer.Echo))
	log = r.logFile("tcp")
	p := tcpProxy("c").set("access_log", []obj{logTo(log, rateLimitLog)})
	r.start(static([]obj{listener("l", chain(append(append([]obj{}, filters...), askRateService(more), p)...))}, []obj{cluster("c", endpoint(addr)), authCluster(endpoint(at))}))
	return log
}

func rating(name string, l func() *limiter, more obj) scenario {
	return scenario{"ratelimit_" + name, func(r *run) {
		log := r.rated(r.limiting(l()), more)
		r.speak()
		r.logged(log, 1)
		r.moved(ofRateService, ofListener, ofTCP)
	}}
}

func says(c servicev3.RateLimitResponse_Code) func() *limiter {
	return func() *limiter { return &limiter{code: c} }
}

func failsToLimit() *limiter { return &limiter{err: status.Error(codes.Internal, "no")} }

func limitsLate() *limiter { return &limiter{delay: 3 * time.Second} }

// rateLimiting: ratelimit over gRPC.
var rateLimiting = []scenario{
	rating("lets_go", says(servicev3.RateLimitResponse_OK), nil),
	rating("knows_nothing", says(servicev3.RateLimitResponse_UNKNOWN), nil),
	rating("over", says(servicev3.RateLimitResponse_OVER_LIMIT), nil),
	rating("fails", failsToLimit, nil),
	rating("fails_and_none_may", failsToLimit, obj{"failure_mode_deny": true}),
	rating("times_out", limitsLate, nil),
	rating("times_out_by_default", limitsLate, obj{"timeout": nil}),
	rating("times_out_and_none_may", limitsLate, obj{"failure_mode_deny": true}),
	rating("cluster_is_unknown", says(servicev3.RateLimitResponse_OVER_LIMIT), obj{"rate_limit_service": obj{"transport_api_version": "V3", "grpc_service": obj{"envoy_grpc": obj{"cluster_name": "nosuch"}}}}),
	{"ratelimit_silent_client_is_asked_about", func(r *run) {
		r.rated(r.limiting(&limiter{code: servicev3.RateLimitResponse_OVER_LIMIT}), nil)
		r.dial("l").end()
		r.moved(ofRateService, ofListener)
	}},
	{"ratelimit_client_rst_while_asked", func(r *run) {
		r.rated(r.limiting(&limiter{delay: time.Second}), obj{"timeout": "3s"})
		c := r.dial("l").send("hello")
		time.Sleep(breath)
		c.reset()
		r.moved(ofRateService, ofListener)
	}},
	{"ratelimit_question", func(r *run) {
		l := &limiter{code: servicev3.RateLimitResponse_OK}
		r.rated(r.limiting(l), nil, network("set_filter_state", "Config", obj{"on_new_connection": []obj{{"object_key": "envoy.ratelimit.hits_addend",
			"format_string": obj{"text_format_source": obj{"inline_string": "7"}}}}}))
		r.dial("l").expect("banner").leave()
		q := l.asked.Load()
		r.note("domain %q, hits %d", q.GetDomain(), q.GetHitsAddend())
		for _, d := range q.GetDescriptors() {
			for _, e := range d.GetEntries() {
				r.note("%s = %s", e.GetKey(), e.GetValue())
			}
			r.note("limit %v", d.GetLimit() != nil)
		}
	}},
	{"ratelimit_twice", func(r *run) {
		at := r.limiting(&limiter{code: servicev3.RateLimitResponse_OK})
		log := r.rated(at, nil, askRateService(obj{"stat_prefix": "q"}))
		r.speak()
		r.logged(log, 1)
		r.moved(ofRateService)
	}},
}
