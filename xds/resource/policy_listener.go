package resource

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func listenerPolicies() policies {
	return policies{
		"envoy.config.listener.v3.Listener": policy{}.
			fields(built, "name", "stat_prefix", "metadata", "tcp_backlog_size", "enable_reuse_port",
				"access_log", "listener_filters_timeout", "continue_on_listener_filters_timeout",
				"per_connection_buffer_limit_bytes").
			// Decoded one by one, as only here an address may be a pipe (bind.go).
			fields(built, "address", "additional_addresses", "socket_options", "transparent", "freebind",
				"tcp_fast_open_queue_length", "tcp_keepalive", "bind_to_port").
			fields(built, "traffic_direction", "drain_type", "reuse_port", "max_connections_to_accept_per_socket_event",
				"ignore_global_conn_limit", "bypass_overload_manager").
			fields(inside, "connection_balance_config", "deprecated_v1").
			// Decoded chain by chain, as some matches are ignored (listener.go), and
			// the matcher extension by extension (matcher.go).
			fields(built, "filter_chains", "default_filter_chain", "filter_chain_matcher").
			// Who is accepted where, and what is done with it.
			fields(refused, "fcds_config", "udp_listener_config", "api_listener",
				"internal_listener").
			// The listener filters are decided one by one by their type
			// (listenerfilters.go).
			fields(built, "use_original_dst", "listener_filters").
			// Figures, logs, timing. What asks for MPTCP gets TCP.
			fields(noted, "stats_matcher", "per_connection_buffer_high_watermark_timeout",
				"enable_mptcp"),
		"envoy.config.listener.v3.AdditionalAddress": policy{}.
			fields(built, "address", "socket_options", "tcp_keepalive"),
		"envoy.config.listener.v3.Listener.DeprecatedV1": policy{}.
			fields(built, "bind_to_port"),
		"envoy.config.listener.v3.Listener.ConnectionBalanceConfig": policy{}.
			fields(built, "exact_balance").
			// Which worker serves whom.
			fields(noted, "extend_balance", "cpu_locality_balance"),
		"envoy.config.listener.v3.FilterChain": policy{}.
			// The network filters are decided one by one by their type (filters.go).
			fields(built, "name", "metadata", "filters").
			fields(inside, "filter_chain_match").
			onlyIf(isFalse, "use_proxy_proto").
			// The sockets are decided by their type (tls.go).
			fields(built, "transport_socket", "transport_socket_connect_timeout"),
		"envoy.config.listener.v3.FilterChainMatch": policy{}.
			fields(built, "destination_port", "source_type", "source_ports").
			fields(inside, "prefix_ranges", "direct_source_prefix_ranges", "source_prefix_ranges").
			judge(func(protoreflect.Value) (decision, string) {
				return refused, "contains unimplemented fields" // Envoy's words, Envoy has not built them either
			}, "address_suffix", "suffix_len").
			// What only an inspector finds.
			fields(built, "transport_protocol", "server_names", "application_protocols"),
		"envoy.config.core.v3.CidrRange": policy{}.
			fields(built, "address_prefix", "prefix_len"),
		"envoy.config.listener.v3.Filter": policy{}.
			fields(built, "name", "typed_config").
			fields(inside, "config_discovery"),
		"envoy.config.listener.v3.ListenerFilter": policy{}.
			fields(built, "name", "typed_config", "filter_disabled").
			fields(inside, "config_discovery"),
		"envoy.extensions.filters.listener.original_dst.v3.OriginalDst":     policy{},
		"envoy.extensions.filters.listener.http_inspector.v3.HttpInspector": policy{},
		"envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector": policy{}.
			fields(built, "enable_ja3_fingerprinting", "enable_ja4_fingerprinting", "close_connection_on_client_hello_parsing_errors",
				"max_client_hello_size",
				// How much is peeked at first; all that is there is, here.
				"initial_read_buffer_size"),
		"envoy.extensions.filters.listener.original_src.v3.OriginalSrc": policy{}.
			fields(built, "mark").
			fields(noted, "bind_port"), // Envoy has not built it either
		"envoy.extensions.filters.listener.local_ratelimit.v3.LocalRateLimit": policy{}.
			fields(built, "stat_prefix").
			fields(inside, "token_bucket", "runtime_enabled"),
		"envoy.extensions.filters.listener.set_filter_state.v3.Config": policy{}.
			fields(inside, "on_accept"),
		"envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol": policy{}.
			fields(built, "rules", "allow_requests_without_proxy_protocol", "pass_through_tlvs", "disallowed_versions", "stat_prefix", "tlv_location"),
		"envoy.extensions.filters.network.echo.v3.Echo": policy{},
		"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.TunnelingConfig": policy{}.
			fields(built, "hostname", "use_post", "post_path", "headers_to_add").
			// For access logs; and what marks requests for tracing.
			fields(noted, "propagate_response_headers", "propagate_response_trailers", "request_id_extension",
				"request_id_header", "request_id_metadata_key").
			// Commands that format strings do not know without them.
			fields(refused, "formatters"),
		"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.OnDemand": policy{}.
			fields(inside, "odcds_config").
			fields(built, "timeout").
			// Envoy does not read it either.
			fields(noted, "resources_locator"),
		"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy": policy{}.
			fields(built, "stat_prefix", "cluster", "weighted_clusters", "idle_timeout", "max_connect_attempts", "backoff_options", "access_log",
				"access_log_flush_interval", "flush_access_log_on_connected", "access_log_options", "max_downstream_connection_duration",
				"max_downstream_connection_duration_jitter_percentage", "upstream_connect_mode", "max_early_data_bytes", "check_drain_close",
				// What the first two feed, subsets and hashing balancers, is refused
				// where it is asked for: on the cluster.
				"metadata_match", "hash_policy", "proxy_protocol_tlvs", "proxy_protocol_tlv_merge_policy").
			fields(inside, "tunneling_config", "on_demand").
			// Envoy has not built these either.
			fields(noted, "downstream_idle_timeout", "upstream_idle_timeout"),
	}
}

func isFalse(v protoreflect.Value) bool { return !boolOf(v) }

func boolOf(v protoreflect.Value) bool {
	switch b := v.Interface().(type) {
	case bool:
		return b
	case protoreflect.Message:
		w, ok := b.Interface().(*wrapperspb.BoolValue)
		return ok && w.GetValue()
	}
	return false
}

// unregistered is Envoy's word for a type that is not linked, or no extension's, else
// empty.
func unregistered(name string, a *anypb.Any) string {
	url := innerURL(a)
	if mt, _ := find(url); mt != nil && !strings.HasPrefix(url, "google.protobuf.") {
		return ""
	}
	return "Didn't find a registered implementation for '" + short(name) + "' with type URL: '" + short(url) + "'"
}

// Socket options by level and name, as Linux numbers them on amd64 and arm64.
const (
	solSocket  = 1
	ipProtoTCP = 6
)

// socketOption lets pass what tunes a socket. The rest may bind it to a device
// or a table of routes, or sign its segments (TCP_MD5SIG, TCP_AO).
func socketOption(v protoreflect.Value) (decision, string) {
	o, _ := v.Message().Interface().(*corev3.SocketOption)
	switch o.GetLevel() {
	case solSocket:
		switch o.GetName() {
		case 2, 7, 8, 9, 12, 13, 15, 46: // REUSEADDR SNDBUF RCVBUF KEEPALIVE PRIORITY LINGER REUSEPORT BUSY_POLL
			return noted, ""
		}
	case ipProtoTCP:
		switch o.GetName() {
		case 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 18, 23, 25, 30: // NODELAY … USER_TIMEOUT FASTOPEN NOTSENT_LOWAT FASTOPEN_CONNECT
			return noted, ""
		}
	}
	return refused, ""
}
