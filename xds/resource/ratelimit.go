package resource

import (
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/ratelimit/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/expression"
)

// rateLimitTimeout is Envoy's default of this filter.
const rateLimitTimeout = 20 * time.Millisecond

func rateLimitFilters() map[string]networkFilter {
	return map[string]networkFilter{
		"envoy.extensions.filters.network.ratelimit.v3.RateLimit": {decode: func(w *walker, path string, m proto.Message) api.Filter {
			return api.Filter{RateLimit: w.rateLimit(path, m.(*ratelimitv3.RateLimit))}
		}},
	}
}

func rateLimitPolicies() policies {
	return policies{
		"envoy.extensions.filters.network.ratelimit.v3.RateLimit": policy{}.
			fields(built, "stat_prefix", "domain", "timeout", "failure_mode_deny").
			fields(inside, "descriptors", "rate_limit_service"),
		// Of a descriptor Envoy sends the entries only.
		"envoy.extensions.common.ratelimit.v3.RateLimitDescriptor": policy{}.
			fields(inside, "entries").
			fields(built, "limit", "hits_addend", "is_negative_hits"),
		"envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.Entry": policy{}.
			fields(built, "key", "value"),
		"envoy.config.ratelimit.v3.RateLimitServiceConfig": policy{}.
			fields(built, "grpc_service").
			judge(func(v protoreflect.Value) (decision, string) {
				if v.Enum() == protoreflect.EnumNumber(corev3.ApiVersion_V2) {
					return refused, "V2 xDS transport protocol version is deprecated"
				}
				return built, ""
			}, "transport_api_version"),
	}
}

func (w *walker) rateLimit(path string, p *ratelimitv3.RateLimit) *api.RateLimit {
	w.message(path, p.ProtoReflect())
	out := &api.RateLimit{
		StatPrefix: p.GetStatPrefix(), Domain: p.GetDomain(), FailureModeDeny: p.GetFailureModeDeny(),
		Service: w.grpcService(path+".rate_limit_service.grpc_service", p.GetRateLimitService().GetGrpcService(), 0),
		Timeout: w.duration(path+".timeout", p.GetTimeout(), rateLimitTimeout),
	}
	if out.Timeout == 0 {
		out.Timeout = never // no timeout, in Envoy
	}
	for i, d := range p.GetDescriptors() {
		var entries api.RateLimitDescriptor
		for k, e := range d.GetEntries() {
			f, err := parseFormat(e.GetValue(), expression.Options{})
			if err != nil {
				w.fail(fmt.Sprintf("%s.descriptors[%d].entries[%d].value", path, i, k), err)
			}
			entries = append(entries, api.RateLimitEntry{Key: e.GetKey(), Value: f})
		}
		out.Descriptors = append(out.Descriptors, entries)
	}
	return out
}
