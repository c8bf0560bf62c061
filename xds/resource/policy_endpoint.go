package resource

func endpointPolicies() policies {
	return policies{
		"envoy.config.endpoint.v3.ClusterLoadAssignment": policy{}.
			fields(built, "cluster_name").
			fields(inside, "endpoints", "policy").
			fields(noted, "named_endpoints"), // Envoy reads none of them either
		"envoy.config.endpoint.v3.ClusterLoadAssignment.Policy": policy{}.
			fields(built, "overprovisioning_factor", "drop_overloads", "weighted_priority_health", "endpoint_stale_after"),
		"envoy.config.endpoint.v3.LocalityLbEndpoints": policy{}.
			fields(built, "locality", "load_balancing_weight", "priority").
			fields(inside, "lb_endpoints").
			fields(refused, "load_balancer_endpoints", "leds_cluster_locality_config").
			fields(built, "metadata").
			fields(noted, "proximity"),
		"envoy.config.endpoint.v3.LbEndpoint": policy{}.
			fields(built, "health_status", "load_balancing_weight",
				// Subsets and transport_socket_matches, which read it too, are refused.
				"metadata").
			fields(inside, "endpoint").
			fields(noted, "endpoint_name"), // which leaves it without an address
		"envoy.config.endpoint.v3.Endpoint": policy{}.
			// An address may be a pipe here, or a name (assignment.go).
			fields(built, "hostname", "address", "additional_addresses").
			fields(inside, "health_check_config").
			fields(noted, "observability_name"),
		"envoy.config.endpoint.v3.Endpoint.HealthCheckConfig": policy{}.
			fields(built, "port_value", "hostname", "disable_active_health_check").
			fields(inside, "address"),
	}
}
