package resource

func healthPolicies() policies {
	return policies{
		"envoy.config.core.v3.HealthCheck": policy{}.
			fields(built, "name", "timeout", "interval", "initial_jitter", "interval_jitter", "interval_jitter_percent",
				"unhealthy_threshold", "healthy_threshold", "reuse_connection", "no_traffic_interval", "no_traffic_healthy_interval",
				"unhealthy_interval", "unhealthy_edge_interval", "healthy_edge_interval", "event_log_path", "event_logger",
				"always_log_health_check_failures", "always_log_health_check_success").
			// Noted or refused by the decoder, in parts (healthcheck.go).
			fields(built, "http_health_check", "tcp_health_check", "grpc_health_check", "custom_health_check").
			fields(built, "tls_options", "transport_socket_match_criteria").
			// Envoy itself builds neither.
			fields(noted, "alt_port", "event_service"),
		"envoy.config.cluster.v3.OutlierDetection": policy{}.
			fields(built, "consecutive_5xx", "interval", "base_ejection_time", "max_ejection_percent", "enforcing_consecutive_5xx",
				"enforcing_success_rate", "success_rate_minimum_hosts", "success_rate_request_volume", "success_rate_stdev_factor",
				"consecutive_gateway_failure", "enforcing_consecutive_gateway_failure", "split_external_local_origin_errors",
				"consecutive_local_origin_failure", "enforcing_consecutive_local_origin_failure", "enforcing_local_origin_success_rate",
				"failure_percentage_threshold", "enforcing_failure_percentage", "enforcing_failure_percentage_local_origin",
				"failure_percentage_minimum_hosts", "failure_percentage_request_volume", "max_ejection_time", "max_ejection_time_jitter",
				"successful_active_health_check_uneject_host", "always_eject_one_host").
			// Noted by the decoder: they look at HTTP responses.
			fields(built, "monitors", "detect_degraded_hosts"),
	}
}
