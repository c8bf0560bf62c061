package resource

import (
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/sluice-proxy/sluice/api"
)

// Envoy's defaults of config_source.proto.
const (
	defaultRequestTimeout = 1e9 // REST, ns
	defaultMaxTokens      = 100
	defaultFillRate       = 10 // per second
)

// sourcePolicies are shared by the bootstrap and by clusters.
func sourcePolicies() policies {
	v3 := oneOf(int32(corev3.ApiVersion_AUTO), int32(corev3.ApiVersion_V3))
	return policies{
		"envoy.config.core.v3.ConfigSource": policy{}.
			fields(built, "ads", "self", "initial_fetch_timeout", "path").
			fields(inside, "path_config_source", "api_config_source").
			fields(refused, "authorities").
			judge(v3, "resource_api_version"),
		"envoy.config.core.v3.PathConfigSource": policy{}.
			fields(built, "path").
			fields(inside, "watched_directory").
			fields(noted, "poll_interval"),
		"envoy.config.core.v3.WatchedDirectory": policy{}.fields(built, "path", "watch_modify"),
		"envoy.config.core.v3.ApiConfigSource": policy{}.
			fields(built, "set_node_on_first_message_only", "cluster_names", "refresh_delay", "request_timeout").
			fields(inside, "grpc_services", "rate_limit_settings").
			judge(oneOf(int32(corev3.ApiConfigSource_GRPC), int32(corev3.ApiConfigSource_DELTA_GRPC), int32(corev3.ApiConfigSource_REST)), "api_type").
			judge(v3, "transport_api_version").
			fields(noted, "config_validators"),
		"envoy.config.core.v3.RateLimitSettings": policy{}.fields(built, "max_tokens", "fill_rate"),
		"envoy.config.core.v3.GrpcService": policy{}.
			// xds/transport reads google_grpc and refuses what it cannot do.
			fields(built, "initial_metadata", "google_grpc").
			fields(inside, "envoy_grpc").
			fields(noted, "timeout", "retry_policy"),
		"envoy.config.core.v3.GrpcService.EnvoyGrpc": policy{}.
			fields(built, "cluster_name", "authority").
			fields(noted, "retry_policy", "max_receive_message_length", "skip_envoy_headers"),
	}
}

// Source reads a ConfigSource whose fields were walked. It does not look whether
// the cluster or the file are there. With google_grpc Cluster is empty.
func Source(path string, p *corev3.ConfigSource) (api.ConfigSource, error) {
	var s api.ConfigSource
	var err error
	if s.InitialFetchTimeout, err = Duration(path+".initial_fetch_timeout", p.GetInitialFetchTimeout(), api.DefaultInitialFetchTimeout); err != nil {
		return s, err
	}
	switch p.GetConfigSourceSpecifier().(type) {
	case *corev3.ConfigSource_Ads:
		s.Kind = api.FromADS
	case *corev3.ConfigSource_Self:
		s.Kind = api.FromSelf
	case *corev3.ConfigSource_Path:
		s.Kind, s.Path = api.FromPath, p.GetPath()
	case *corev3.ConfigSource_PathConfigSource:
		s.Kind = api.FromPath
		s.Path, s.Directory = p.GetPathConfigSource().GetPath(), p.GetPathConfigSource().GetWatchedDirectory().GetPath()
		s.WatchModify = p.GetPathConfigSource().GetWatchedDirectory().GetWatchModify()
	case *corev3.ConfigSource_ApiConfigSource:
		wait := s.InitialFetchTimeout
		s, err = API(path+".api_config_source", p.GetApiConfigSource())
		s.InitialFetchTimeout = wait
		return s, err
	default:
		return s, fmt.Errorf("%s: Missing config source specifier in envoy::config::core::v3::ConfigSource", path)
	}
	return s, nil
}

// API reads an ApiConfigSource, which may be ads_config.
func API(path string, p *corev3.ApiConfigSource) (api.ConfigSource, error) {
	s := api.ConfigSource{Kind: api.FromGRPC, Delta: p.GetApiType() == corev3.ApiConfigSource_DELTA_GRPC, NodeOnce: p.GetSetNodeOnFirstMessageOnly()}
	if l := p.GetRateLimitSettings(); l != nil {
		s.MaxTokens, s.FillRate = uint32Or(l.GetMaxTokens(), defaultMaxTokens), defaultFillRate
		if f := l.GetFillRate(); f != nil {
			s.FillRate = f.GetValue()
		}
	}
	if p.GetApiType() == corev3.ApiConfigSource_REST {
		return s, rest(&s, path, p)
	}
	services := p.GetGrpcServices()
	switch n := len(services); {
	case n == 0 && len(p.GetClusterNames()) == 0:
		return s, fmt.Errorf("%s.grpc_services: API configs must have either a gRPC service or a cluster name defined", path)
	case len(p.GetClusterNames()) > 0:
		return s, fmt.Errorf("%s.cluster_names: envoy.config.core.v3.ApiConfigSource::(AGGREGATED_)(DELTA_)GRPC must not have a cluster name specified (%d)", path, len(p.GetClusterNames()))
	case n > 1:
		return s, fmt.Errorf("%s.grpc_services: envoy.config.core.v3.ApiConfigSource::(AGGREGATED_)(DELTA_)GRPC must have no more than 1 gRPC services specified (%d)", path, n)
	}
	s.Cluster, s.Authority = services[0].GetEnvoyGrpc().GetClusterName(), services[0].GetEnvoyGrpc().GetAuthority()
	for _, h := range services[0].GetInitialMetadata() {
		v := h.GetValue()
		if v == "" {
			v = string(h.GetRawValue())
		}
		s.Metadata = append(s.Metadata, [2]string{h.GetKey(), v})
	}
	return s, nil
}

func rest(s *api.ConfigSource, path string, p *corev3.ApiConfigSource) (err error) {
	s.Kind = api.FromREST
	if n := len(p.GetClusterNames()); n != 1 {
		return fmt.Errorf("%s.cluster_names: envoy.config.core.v3.ApiConfigSource must have a singleton cluster name specified (%d)", path, n)
	}
	s.Cluster = p.GetClusterNames()[0]
	if p.GetRefreshDelay() == nil {
		return fmt.Errorf("%s.refresh_delay: %w", path, errNoDelay)
	}
	if s.RefreshDelay, err = Duration(path+".refresh_delay", p.GetRefreshDelay(), 0); err != nil {
		return err
	}
	s.RequestTimeout, err = Duration(path+".request_timeout", p.GetRequestTimeout(), defaultRequestTimeout)
	return err
}

var errNoDelay = errors.New("refresh_delay is required for REST API configuration sources")
