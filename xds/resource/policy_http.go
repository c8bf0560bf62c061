package resource

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// httpPolicies: what is refused here costs the chain its service (http.go), not
// the listener. Headers, logs, retries, limits on time and memory are noted.
func httpPolicies() policies {
	return policies{
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager": policy{}.
			fields(built, "stat_prefix", "server_name", "max_request_headers_kb", "request_timeout", "request_headers_timeout",
				"use_remote_address", "skip_xff_append", "generate_request_id", "strip_matching_host_port", "strip_any_host_port",
				"normalize_path", "merge_slashes", "server_header_transformation").
			fields(inside, "route_config", "common_http_protocol_options", "http_protocol_options", "upgrade_configs").
			judge(oneOf(int32(hcmv3.HttpConnectionManager_AUTO), int32(hcmv3.HttpConnectionManager_HTTP1), int32(hcmv3.HttpConnectionManager_HTTP2)), "codec_type").
			judge(oneOf(int32(hcmv3.HttpConnectionManager_IMPLEMENTATION_SPECIFIC_DEFAULT), int32(hcmv3.HttpConnectionManager_KEEP_UNCHANGED)),
				"path_with_escaped_slashes_action").
			// The HTTP filters are decided one by one by their type (http.go).
			fields(built, "http_filters").
			// Which route is taken, or what is done to a request before.
			fields(refused, "rds", "scoped_routes", "early_header_mutation_extensions", "path_normalization_options").
			// access_log is written where the chain is served as TCP.
			fields(noted, "access_log", "access_log_flush_interval", "flush_access_log_on_new_request", "access_log_options",
				"add_user_agent", "tracing", "http1_safe_max_connection_duration", "http2_protocol_options", "http3_protocol_options",
				"scheme_header_transformation", "stream_idle_timeout", "stream_flush_timeout", "drain_timeout", "drain_timeout_jitter",
				"delayed_close_timeout", "xff_num_trusted_hops", "original_ip_detection_extensions", "internal_address_config", "via",
				"preserve_external_request_id", "always_set_request_id_in_response", "forward_client_cert_details",
				"set_current_client_cert_details", "forward_client_cert_matcher", "proxy_100_continue",
				"represent_ipv4_remote_address_as_ipv4_mapped_ipv6", "request_id_extension", "local_reply_config",
				"stream_error_on_invalid_http_message", "strip_trailing_host_dot", "proxy_status_config", "typed_header_validation_config",
				"append_x_forwarded_port", "append_local_overload", "add_proxy_protocol_connection_state", "forward_proto_config",
				"record_route_resolution_stats"),
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig": policy{}.
			fields(built, "upgrade_type", "enabled").
			fields(refused, "filters"),
		"envoy.config.core.v3.HttpProtocolOptions": policy{}.
			fields(built, "idle_timeout").
			fields(noted, "max_connection_duration", "max_connection_duration_jitter", "max_headers_count", "max_response_headers_kb",
				"max_stream_duration", "headers_with_underscores_action", "max_requests_per_connection"),
		"envoy.config.core.v3.Http1ProtocolOptions": policy{}.
			fields(built, "accept_http_10").
			fields(noted, "allow_absolute_url", "default_host_for_http_10", "header_key_format", "enable_trailers", "allow_chunked_length",
				"override_stream_error_on_invalid_http_message", "send_fully_qualified_url", "use_balsa_parser", "allow_custom_methods",
				"ignore_http_11_upgrade"),
		"envoy.config.route.v3.RouteConfiguration": policy{}.
			fields(built, "name", "max_direct_response_body_size_bytes", "ignore_port_in_host_matching").
			fields(inside, "virtual_hosts").
			fields(inside, "request_headers_to_add", "response_headers_to_add").
			fields(built, "request_headers_to_remove", "response_headers_to_remove").
			fields(refused, "vhds", "request_mirror_policies", "vhost_header", "ignore_path_parameters_in_path_matching", "route_specifiers").
			judge(perFilter, "typed_per_filter_config").
			// A route that uses a plugin is refused where it does.
			fields(noted, "internal_only_headers", "most_specific_header_mutations_wins", "validate_clusters", "cluster_specifier_plugins", "metadata"),
		"envoy.config.route.v3.VirtualHost": policy{}.
			fields(built, "name", "domains").
			fields(inside, "routes", "request_headers_to_add", "response_headers_to_add").
			fields(built, "request_headers_to_remove", "response_headers_to_remove").
			judge(oneOf(int32(routev3.VirtualHost_NONE)), "require_tls").
			judge(perFilter, "typed_per_filter_config").
			fields(refused, "matcher", "cors", "request_mirror_policies", "route_specifiers").
			fields(noted, "virtual_clusters", "rate_limits", "include_request_attempt_count", "include_attempt_count_in_response", "retry_policy",
				"retry_policy_typed_config", "hedge_policy", "include_is_timeout_retry_header", "per_request_buffer_limit_bytes",
				"request_body_buffer_limit", "metadata"),
		"envoy.config.route.v3.Route": policy{}.
			fields(built, "name").
			fields(inside, "match", "route", "redirect", "direct_response", "request_headers_to_add", "response_headers_to_add").
			fields(built, "request_headers_to_remove", "response_headers_to_remove").
			judge(perFilter, "typed_per_filter_config").
			fields(refused, "filter_action", "non_forwarding_action", "route_specifiers").
			fields(noted, "metadata", "decorator", "tracing", "per_request_buffer_limit_bytes", "stat_prefix", "request_body_buffer_limit"),
		"envoy.config.route.v3.RouteMatch": policy{}.
			fields(built, "prefix", "path", "safe_regex", "path_separated_prefix", "case_sensitive").
			fields(inside, "headers", "query_parameters", "grpc").
			judge(everyRequest, "runtime_fraction").
			fields(refused, "connect_matcher", "path_match_policy", "cookies", "tls_context", "dynamic_metadata", "filter_state"),
		"envoy.config.route.v3.RouteMatch.GrpcRouteMatchOptions": policy{},
		"envoy.config.route.v3.HeaderMatcher": policy{}.
			fields(built, "name", "exact_match", "safe_regex_match", "range_match", "present_match", "prefix_match", "suffix_match",
				"contains_match", "string_match", "invert_match", "treat_missing_header_as_empty"),
		"envoy.config.route.v3.QueryParameterMatcher": policy{}.
			fields(built, "name", "string_match", "present_match"),
		"envoy.config.route.v3.RouteAction": policy{}.
			fields(built, "cluster", "cluster_not_found_response_code", "prefix_rewrite", "regex_rewrite", "host_rewrite_literal",
				"auto_host_rewrite", "timeout").
			fields(inside, "weighted_clusters", "upgrade_configs").
			fields(refused, "cluster_header", "cluster_specifier_plugin", "inline_cluster_specifier_plugin", "path_rewrite_policy", "path_rewrite",
				"host_rewrite_header", "host_rewrite_path_regex", "host_rewrite", "request_mirror_policies", "cors", "internal_redirect_policy",
				"internal_redirect_action", "max_internal_redirects").
			// What metadata_match and hash_policy feed is refused on the cluster.
			fields(noted, "metadata_match", "hash_policy", "append_x_forwarded_host", "idle_timeout", "flush_timeout", "early_data_policy",
				"retry_policy", "retry_policy_typed_config", "priority", "rate_limits", "include_vh_rate_limits", "max_grpc_timeout",
				"grpc_timeout_offset", "hedge_policy", "max_stream_duration"),
		"envoy.config.route.v3.RouteAction.UpgradeConfig": policy{}.
			fields(built, "upgrade_type", "enabled").
			fields(noted, "connect_config"), // CONNECT is not admitted
		"envoy.config.route.v3.WeightedCluster": policy{}.
			fields(inside, "clusters").
			fields(refused, "header_name", "use_hash_policy").
			fields(noted, "total_weight", "runtime_key_prefix"),
		"envoy.config.route.v3.WeightedCluster.ClusterWeight": policy{}.
			fields(built, "name", "weight").
			judge(perFilter, "typed_per_filter_config").
			fields(refused, "cluster_header", "host_rewrite_literal").
			fields(noted, "metadata_match", "request_headers_to_add", "request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove"),
		"envoy.config.route.v3.RedirectAction": policy{}.
			fields(built, "https_redirect", "scheme_redirect", "host_redirect", "port_redirect", "path_redirect", "prefix_rewrite", "regex_rewrite",
				"response_code", "strip_query").
			fields(refused, "path_rewrite"),
		"envoy.config.route.v3.DirectResponseAction": policy{}.
			fields(built, "status", "body").
			fields(refused, "body_format"),
		"envoy.config.core.v3.HeaderValueOption": policy{}.
			judge(literal, "header").
			fields(built, "append", "append_action", "keep_empty_value"),
		"envoy.extensions.filters.http.router.v3.Router": policy{}.
			fields(built, "suppress_envoy_headers").
			judge(upstreamCodec, "upstream_http_filters").
			fields(noted, "dynamic_stats", "start_child_span", "upstream_log", "upstream_log_options", "strict_check_headers",
				"respect_expected_rq_timeout", "suppress_grpc_request_failure_code_stats", "reject_connect_request_early_data"),
		"envoy.extensions.filters.http.health_check.v3.HealthCheck": policy{}.
			onlyIf(isFalse, "pass_through_mode").
			fields(inside, "headers").
			fields(refused, "cluster_min_healthy_percentages").
			fields(noted, "cache_time"),
		"envoy.extensions.filters.http.cors.v3.Cors": policy{}, // the policies of routes count
		"envoy.extensions.filters.http.fault.v3.HTTPFault": policy{}.
			fields(refused, "delay", "abort", "response_rate_limit").
			fields(noted, "upstream_cluster", "headers", "downstream_nodes", "max_active_faults", "delay_percent_runtime", "abort_percent_runtime",
				"delay_duration_runtime", "abort_http_status_runtime", "max_active_faults_runtime", "response_rate_limit_percent_runtime",
				"abort_grpc_status_runtime", "disable_downstream_cluster_stats", "filter_metadata"),
		// Without rules it lets all pass.
		"envoy.extensions.filters.http.rbac.v3.RBAC": policy{}.
			fields(refused, "rules", "matcher").
			fields(noted, "rules_stat_prefix", "shadow_rules", "shadow_matcher", "shadow_rules_stat_prefix", "track_per_rule_stats"),
	}
}

// perFilter looks at what a route says to HTTP filters: that one is off, or
// nothing that changes anything.
func perFilter(v protoreflect.Value) (decision, string) {
	what, cause := noted, ""
	v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		a, _ := v.Message().Interface().(*anypb.Any)
		m, name, _, err := open(a)
		switch c := m.(type) {
		case *routev3.FilterConfig:
			if c.GetDisabled() || c.GetConfig() == nil {
				return true
			}
		case *faultv3.HTTPFault:
			if c.GetDelay() == nil && c.GetAbort() == nil && c.GetResponseRateLimit() == nil {
				return true
			}
		}
		if err == nil && quiet(name) {
			return true
		}
		what, cause = refused, "not supported yet: "+short(k.String())+" "+short(name)
		return false
	})
	return what, cause
}

// everyRequest lets pass a route that every request may take.
func everyRequest(v protoreflect.Value) (decision, string) {
	f, _ := v.Message().Interface().(*corev3.RuntimeFractionalPercent)
	if p := f.GetDefaultValue(); p.GetNumerator() >= parts(p) {
		return noted, "" // there is no runtime for it
	}
	return refused, ""
}

func parts(p *typev3.FractionalPercent) uint32 {
	switch p.GetDenominator() {
	case typev3.FractionalPercent_TEN_THOUSAND:
		return 10_000
	case typev3.FractionalPercent_MILLION:
		return 1_000_000
	}
	return 100
}

// literal notes a header whose value is to be made up from the request: it is
// not added.
func literal(v protoreflect.Value) (decision, string) {
	h, _ := v.Message().Interface().(*corev3.HeaderValue)
	if isLiteral(h.GetValue()) {
		return built, ""
	}
	return noted, ""
}

func upstreamCodec(v protoreflect.Value) (decision, string) {
	f, _ := v.Message().Interface().(*hcmv3.HttpFilter)
	if innerURL(f.GetTypedConfig()) == "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec" {
		return built, ""
	}
	return refused, ""
}
