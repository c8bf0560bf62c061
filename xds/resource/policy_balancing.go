package resource

import (
	"maps"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
)

func balancingPolicies() policies {
	t := policies{
		"envoy.config.cluster.v3.Cluster.CommonLbConfig": policy{}.
			// Envoy drains what waits in its pools when hosts change; of TCP's connections
			// none is closed by that.
			fields(built, "healthy_panic_threshold", "ignore_new_hosts_until_first_hc", "locality_weighted_lb_config",
				"close_connections_on_host_set_change").
			fields(inside, "zone_aware_lb_config", "consistent_hashing_lb_config").
			fields(noted, "update_merge_window", "override_host_status"),
		"envoy.config.cluster.v3.Cluster.CommonLbConfig.ZoneAwareLbConfig": policy{}.
			fields(built, "routing_enabled", "min_cluster_size", "fail_traffic_on_panic"),
		"envoy.config.cluster.v3.Cluster.CommonLbConfig.ConsistentHashingLbConfig": policy{}.
			fields(built, "use_hostname_for_hashing", "hash_balance_factor"),
		"envoy.config.cluster.v3.Cluster.LeastRequestLbConfig": policy{}.
			fields(built, "choice_count").
			fields(inside, "active_request_bias", "slow_start_config"),
		"envoy.config.cluster.v3.Cluster.RoundRobinLbConfig": policy{}.fields(inside, "slow_start_config"),
		"envoy.config.cluster.v3.Cluster.RingHashLbConfig": policy{}.
			fields(built, "minimum_ring_size", "maximum_ring_size").
			judge(oneOf(int32(clusterv3.Cluster_RingHashLbConfig_XX_HASH), int32(clusterv3.Cluster_RingHashLbConfig_MURMUR_HASH_2)), "hash_function"),
		"envoy.config.cluster.v3.Cluster.MaglevLbConfig": policy{}.fields(built, "table_size"),
		"envoy.config.cluster.v3.Cluster.SlowStartConfig": policy{}.
			fields(built, "slow_start_window", "min_weight_percent").
			fields(inside, "aggression"),
		"envoy.config.core.v3.RuntimeDouble": policy{}.
			fields(built, "default_value").
			fields(noted, "runtime_key"),
		"envoy.config.cluster.v3.Cluster.LbSubsetConfig": policy{}.
			fields(built, "fallback_policy", "default_subset", "locality_weight_aware", "scale_locality_weight",
				"panic_mode_any", "list_as_any", "metadata_fallback_policy").
			fields(inside, "subset_selectors"),
		"envoy.config.cluster.v3.Cluster.LbSubsetConfig.LbSubsetSelector": policy{}.
			fields(built, "keys", "single_host_per_subset", "fallback_policy", "fallback_keys_subset"),
	}
	maps.Copy(t, typedBalancingPolicies())
	return t
}

// typedBalancingPolicies are for what load_balancing_policy holds. A list of
// policies is built: policyList reads it.
func typedBalancingPolicies() policies {
	const common = policyPackage + "common.v3."
	return policies{
		policyPackage + "round_robin.v3.RoundRobin": policy{}.fields(inside, "slow_start_config", "locality_lb_config"),
		policyPackage + "least_request.v3.LeastRequest": policy{}.
			fields(built, "choice_count", "selection_method").
			fields(inside, "active_request_bias", "slow_start_config", "locality_lb_config").
			fields(noted, "enable_full_scan"), // Envoy ignores it too
		policyPackage + "random.v3.Random": policy{}.fields(inside, "locality_lb_config"),
		policyPackage + "ring_hash.v3.RingHash": policy{}.
			fields(built, "hash_function", "minimum_ring_size", "maximum_ring_size", "use_hostname_for_hashing",
				"hash_balance_factor", "locality_weighted_lb_config").
			fields(inside, "consistent_hashing_lb_config"),
		policyPackage + "maglev.v3.Maglev": policy{}.
			fields(built, "table_size", "locality_weighted_lb_config").
			fields(inside, "consistent_hashing_lb_config"),
		policyPackage + "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin": policy{}.
			fields(inside, "slow_start_config").
			// How loads are reported: over TCP there are no reports.
			fields(noted, "enable_oob_load_report", "oob_reporting_period", "blackout_period", "weight_expiration_period",
				"weight_update_period", "error_utilization_penalty", "metric_names_for_computing_utilization", "oob_reporting_config"),
		policyPackage + "wrr_locality.v3.WrrLocality":         policy{}.fields(built, "endpoint_picking_policy"),
		policyPackage + "cluster_provided.v3.ClusterProvided": policy{},
		policyPackage + "subset.v3.Subset": policy{}.
			fields(built, "fallback_policy", "default_subset", "allow_redundant_keys", "locality_weight_aware",
				"scale_locality_weight", "panic_mode_any", "list_as_any", "metadata_fallback_policy", "subset_lb_policy").
			fields(inside, "subset_selectors"),
		policyPackage + "subset.v3.Subset.LbSubsetSelector": policy{}.
			fields(built, "keys", "single_host_per_subset", "fallback_policy", "fallback_keys_subset"),
		policyPackage + "override_host.v3.OverrideHost": policy{}.
			fields(built, "selected_host_key", "fallback_policy").
			fields(inside, "override_host_sources"),
		policyPackage + "override_host.v3.OverrideHost.OverrideHostSource": policy{}.
			fields(built, "metadata").
			fields(noted, "header"), // TCP has none
		common + "LocalityLbConfig": policy{}.
			fields(built, "locality_weighted_lb_config").
			fields(inside, "zone_aware_lb_config"),
		common + "LocalityLbConfig.ZoneAwareLbConfig": policy{}.
			fields(built, "routing_enabled", "min_cluster_size", "fail_traffic_on_panic", "force_locality_direct_routing",
				"force_local_zone", "locality_basis"),
		common + "SlowStartConfig": policy{}.
			fields(built, "slow_start_window", "min_weight_percent").
			fields(inside, "aggression"),
		common + "ConsistentHashingLbConfig": policy{}.
			fields(built, "use_hostname_for_hashing", "hash_balance_factor", "hash_policy"),
	}
}
