package resource

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func clusterPolicies() policies {
	return policies{
		"envoy.config.cluster.v3.Cluster": policy{}.
			// load_assignment and eds_cluster_config count for one type each (cluster.go).
			fields(built, "name", "alt_stat_name", "connect_timeout", "per_connection_buffer_limit_bytes",
				"load_assignment", "eds_cluster_config", "metadata", "load_balancing_policy").
			fields(inside, "circuit_breakers", "common_lb_config", "least_request_lb_config",
				"round_robin_lb_config", "ring_hash_lb_config", "maglev_lb_config", "lb_subset_config").
			judge(oneOf(int32(clusterv3.Cluster_STATIC), int32(clusterv3.Cluster_EDS), int32(clusterv3.Cluster_STRICT_DNS),
				int32(clusterv3.Cluster_LOGICAL_DNS), int32(clusterv3.Cluster_ORIGINAL_DST)), "type").
			fields(built, "cleanup_interval").
			fields(inside, "original_dst_lb_config").
			judge(clusterType, "cluster_type").
			// Each counts for clusters that find their hosts by DNS (dns.go).
			fields(built, "dns_refresh_rate", "dns_jitter", "dns_failure_refresh_rate", "respect_dns_ttl",
				"dns_lookup_family", "dns_resolvers", "use_tcp_for_dns_lookups", "dns_resolution_config",
				"typed_dns_resolver_config", "wait_for_warm_on_init").
			judge(oneOf(int32(clusterv3.Cluster_ROUND_ROBIN), int32(clusterv3.Cluster_LEAST_REQUEST),
				int32(clusterv3.Cluster_RANDOM), int32(clusterv3.Cluster_RING_HASH), int32(clusterv3.Cluster_MAGLEV),
				int32(clusterv3.Cluster_CLUSTER_PROVIDED), int32(clusterv3.Cluster_LOAD_BALANCING_POLICY_CONFIG)), "lb_policy").
			judge(upstreamFilter, "filters").
			// Decided by their type (tls.go).
			fields(built, "transport_socket", "transport_socket_matches").
			// Which host, from which address, how.
			fields(inside, "upstream_bind_config", "upstream_connection_options").
			fields(refused, "transport_socket_matcher").
			judge(genericPool, "upstream_config").
			// HTTP, figures, timing, and the parameters of policies that are refused.
			// What is noted of these changes nothing in who may connect, and where to:
			// without it a connection to a bad host fails, as it does until a check has
			// found out.
			fields(inside, "health_checks", "outlier_detection").
			fields(built, "close_connections_on_host_health_failure", "ignore_health_on_host_removal").
			// HTTP's options count for tunnels (http2.go).
			fields(built, "max_requests_per_connection", "typed_extension_protocol_options").
			fields(built, "common_http_protocol_options").
			fields(inside, "http2_protocol_options").
			// Load goes where the bootstrap says in Envoy too, and only what is HTTP
			// brings a host's own metrics.
			fields(built, "lrs_server", "lrs_report_endpoint_metrics").
			fields(noted, "stats_matcher", "per_connection_buffer_high_watermark_timeout",
				"upstream_http_protocol_options", "http_protocol_options",
				"protocol_selection",
				"track_timeout_budgets", "track_cluster_stats", "preconnect_policy",
				"connection_pool_per_downstream_connection", "queuing_policies"),
		// Whether it is HTTP/2 that is spoken, and how.
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": policy{}.
			fields(built, "common_http_protocol_options").
			fields(inside, "explicit_http_config", "use_downstream_protocol_config", "auto_config").
			// There is no header that a name could come from, and no connection that is
			// not validated as its transport socket says.
			fields(noted, "upstream_http_protocol_options", "http_filters", "header_validation_config", "outlier_detection", "request_mirror_policies", "hash_policy", "retry_policy"),
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig": policy{}.
			fields(noted, "http_protocol_options").fields(inside, "http2_protocol_options").fields(refused, "http3_protocol_options"),
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig": policy{}.
			fields(noted, "http_protocol_options", "http3_protocol_options").fields(inside, "http2_protocol_options"),
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.AutoHttpConfig": policy{}.
			fields(noted, "http_protocol_options", "http3_protocol_options", "alternate_protocols_cache_options").fields(inside, "http2_protocol_options"),
		"envoy.config.core.v3.Http2ProtocolOptions": policy{}.
			fields(built, "max_concurrent_streams", "initial_stream_window_size", "initial_connection_window_size",
				"max_outbound_control_frames", "max_consecutive_inbound_frames_with_empty_payload", "max_inbound_priority_frames_per_stream",
				"max_inbound_window_update_frames_per_data_frame_sent").
			fields(inside, "connection_keepalive").
			// What tunnels have no use for, or what is the library's affair.
			fields(noted, "hpack_table_size", "allow_connect", "allow_metadata", "max_outbound_frames", "stream_error_on_invalid_http_messaging",
				"override_stream_error_on_invalid_http_message", "custom_settings_parameters", "use_oghttp2_codec", "max_metadata_size",
				"enable_huffman_encoding", "max_header_field_size_kb", "disallow_obs_text", "stream_reset_burst", "stream_reset_rate"),
		"envoy.config.core.v3.KeepaliveSettings": policy{}.
			fields(built, "interval", "timeout").
			fields(noted, "interval_jitter", "connection_idle_interval"),
		"envoy.config.cluster.v3.Cluster.OriginalDstLbConfig": policy{}.
			fields(built, "upstream_port_override", "metadata_key").
			// Only HTTP has headers.
			fields(noted, "use_http_header", "http_header_name"),
		"envoy.config.cluster.v3.CircuitBreakers": policy{}.
			fields(inside, "thresholds").
			// Only max_connections is allowed in it (breakers.go).
			fields(built, "per_host_thresholds"),
		"envoy.config.cluster.v3.CircuitBreakers.Thresholds": policy{}.
			fields(built, "max_connections", "max_pending_requests", "max_requests", "max_retries").
			// TCP has one priority, no retries of requests and no pools that are counted:
			// the rest is shown.
			fields(built, "priority", "track_remaining", "retry_budget", "max_connection_pools"),
		"envoy.config.cluster.v3.Cluster.EdsClusterConfig": policy{}.
			fields(built, "service_name").
			fields(inside, "eds_config"),
	}
}

// oneOf builds the given values of an enum and refuses the others.
func oneOf(ok ...int32) func(protoreflect.Value) (decision, string) {
	return func(v protoreflect.Value) (decision, string) {
		for _, n := range ok {
			if v.Enum() == protoreflect.EnumNumber(n) {
				return built, ""
			}
		}
		return refused, ""
	}
}

// genericPool lets pass what Envoy uses anyway.
func genericPool(v protoreflect.Value) (decision, string) {
	c, _ := v.Message().Interface().(*corev3.TypedExtensionConfig)
	if innerURL(c.GetTypedConfig()) == "envoy.extensions.upstreams.tcp.generic.v3.GenericConnectionPoolProto" {
		return built, ""
	}
	return refused, ""
}

func upstreamFilter(v protoreflect.Value) (decision, string) {
	f, _ := v.Message().Interface().(*clusterv3.Filter)
	if noEffect(innerURL(f.GetTypedConfig())) {
		return noted, ""
	}
	return refused, unregistered(f.GetName(), f.GetTypedConfig())
}
