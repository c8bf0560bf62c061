package resource

import (
	"errors"
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	connectionlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	directresponsev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/direct_response/v3"
	localratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/local_ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/runtime"
)

// limitFilters are those that turn clients away by number, and the one that
// answers them.
func limitFilters() map[string]networkFilter {
	return map[string]networkFilter{
		"envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit": {decode: func(w *walker, path string, m proto.Message) api.Filter {
			return api.Filter{ConnectionLimit: w.connectionLimit(path, m.(*connectionlimitv3.ConnectionLimit))}
		}},
		"envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit": {decode: func(w *walker, path string, m proto.Message) api.Filter {
			return api.Filter{LocalRateLimit: w.localRateLimit(path, m.(*localratelimitv3.LocalRateLimit))}
		}},
		"envoy.extensions.filters.network.direct_response.v3.Config": {terminal: true, decode: func(w *walker, path string, m proto.Message) api.Filter {
			return api.Filter{DirectResponse: w.directResponse(path, m.(*directresponsev3.Config))}
		}},
	}
}

func limitPolicies() policies {
	return policies{
		"envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit": policy{}.
			fields(built, "stat_prefix", "max_connections", "delay").
			fields(inside, "runtime_enabled"),
		"envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit": policy{}.
			fields(built, "stat_prefix", "share_key").
			fields(inside, "token_bucket", "runtime_enabled"),
		"envoy.type.v3.TokenBucket": policy{}.
			fields(built, "max_tokens", "tokens_per_fill", "fill_interval"),
		"envoy.config.core.v3.RuntimeFeatureFlag": policy{}.fields(built, "default_value", "runtime_key"),
		"envoy.extensions.filters.network.direct_response.v3.Config": policy{}.
			fields(inside, "response"),
		"envoy.config.core.v3.DataSource": policy{}.
			fields(built, "filename", "inline_bytes", "inline_string", "environment_variable").
			// A file is read once, as by Envoy where nothing watches.
			fields(noted, "watched_directory"),
	}
}

func (w *walker) connectionLimit(path string, p *connectionlimitv3.ConnectionLimit) *api.ConnectionLimit {
	w.message(path, p.ProtoReflect())
	if p.GetMaxConnections() == nil {
		w.fail(path, errors.New("Field 'max_connections' is missing"))
	}
	return &api.ConnectionLimit{
		StatPrefix:     p.GetStatPrefix(),
		MaxConnections: p.GetMaxConnections().GetValue(),
		Delay:          w.duration(path+".delay", p.GetDelay(), 0).Truncate(time.Millisecond),
		Enabled:        flag(p.GetRuntimeEnabled()),
	}
}

// leastFill is Envoy's bound for fill_interval.
const leastFill = 50 * time.Millisecond

func (w *walker) localRateLimit(path string, p *localratelimitv3.LocalRateLimit) *api.LocalRateLimit {
	w.message(path, p.ProtoReflect())
	return &api.LocalRateLimit{
		StatPrefix: p.GetStatPrefix(),
		Bucket:     w.tokenBucket(path, p.GetTokenBucket()),
		ShareKey:   p.GetShareKey(),
		Enabled:    flag(p.GetRuntimeEnabled()),
	}
}

func (w *walker) tokenBucket(path string, b *typev3.TokenBucket) api.TokenBucket {
	fill := w.duration(path+".token_bucket.fill_interval", b.GetFillInterval(), leastFill).Truncate(time.Millisecond)
	if fill < leastFill {
		w.fail(path+".token_bucket.fill_interval", fmt.Errorf("local rate limit token bucket fill timer must be >= 50ms (%v)", fill))
	}
	return api.TokenBucket{MaxTokens: b.GetMaxTokens(), TokensPerFill: uint32Or(b.GetTokensPerFill(), 1), FillInterval: fill}
}

func (w *walker) directResponse(path string, p *directresponsev3.Config) *api.DirectResponse {
	w.message(path, p.ProtoReflect())
	if p.GetResponse() == nil {
		return &api.DirectResponse{}
	}
	body, err := dataSource(p.GetResponse())
	if err != nil {
		w.fail(path+".response", err)
	}
	return &api.DirectResponse{Body: body}
}

func flag(f *corev3.RuntimeFeatureFlag) runtime.Flag {
	return runtime.Flag{Key: f.GetRuntimeKey(), Off: f.GetDefaultValue() != nil && !f.GetDefaultValue().GetValue()}
}
