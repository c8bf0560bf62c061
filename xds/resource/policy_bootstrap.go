package resource

import (
	"google.golang.org/protobuf/proto"
)

// Walk applies the policies to a message that is no resource of its own: the
// bootstrap and what it holds besides static resources. It returns the paths
// of the fields that are accepted without effect, and what is refused.
func Walk(path string, m proto.Message) (unbuilt []string, err error) {
	w := walker{policies: table()}
	w.message(path, m.ProtoReflect())
	return w.unbuilt, w.err()
}

func bootstrapPolicies() policies {
	return policies{
		"envoy.config.bootstrap.v3.Bootstrap": policy{}.
			// stats_config is the admin server's.
			fields(built, "node", "stats_config", "layered_runtime", "stats_server_version_override", "stats_sinks", "stats_flush_interval", "stats_flush_on_admin").
			// Read action by action (xds/bootstrap).
			fields(built, "overload_manager").
			fields(built, "use_tcp_for_dns_lookups", "dns_resolution_config", "typed_dns_resolver_config").
			fields(inside, "static_resources", "dynamic_resources", "cluster_manager", "admin").
			fields(refused, "default_socket_interface").
			// What runs, measures, logs or traces the process; limits of its resources;
			// what only refused fields refer to.
			fields(noted, "node_context_params", "hds_config", "flags_path",
				"deferred_stat_options",
				"stats_eviction_interval", "watchdog", "watchdogs", "tracing",
				"enable_dispatcher_stats", "header_prefix",
				"bootstrap_extensions", "fatal_actions", "config_sources",
				"default_config_source", "certificate_provider_instances", "inline_headers",
				"perf_tracing_file_path", "default_regex_engine", "xds_delegate_extension",
				"xds_config_tracker_extension", "listener_manager", "application_log_config",
				"grpc_async_client_manager_config", "memory_allocator_manager",
				"enable_worker_cpu_affinity"),
		"envoy.config.bootstrap.v3.Bootstrap.StaticResources": policy{}.
			// Each is decoded as the resource that it is.
			fields(built, "listeners", "clusters").
			// Read by the TLS of connections to control planes (xds/transport).
			fields(built, "secrets"),
		"envoy.config.bootstrap.v3.Bootstrap.DynamicResources": policy{}.
			fields(inside, "lds_config", "cds_config", "ads_config").
			fields(refused, "lds_resources_locator", "cds_resources_locator"),
		"envoy.config.bootstrap.v3.ClusterManager": policy{}.
			fields(inside, "upstream_bind_config").
			fields(built, "local_cluster_name").
			fields(inside, "outlier_detection").
			fields(inside, "load_stats_config").
			fields(noted, "enable_deferred_cluster_creation"),
		"envoy.config.bootstrap.v3.ClusterManager.OutlierDetection": policy{}.
			fields(built, "event_log_path").
			fields(noted, "event_service"),
		"envoy.config.bootstrap.v3.Admin": policy{}.
			fields(built, "address", "allow_paths").
			judge(socketOption, "socket_options").
			fields(noted, "access_log", "access_log_path", "profile_path", "ignore_global_conn_limit"),
	}
}
