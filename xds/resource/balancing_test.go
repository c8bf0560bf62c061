package resource

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/api"
)

// typed is one typed policy in the words of a test: `maglev.v3.Maglev, table_size: 7`.
func typed(policy string) string {
	return `{typed_extension_config: {name: p, typed_config: {"@type": type.googleapis.com/envoy.extensions.load_balancing_policies.` + policy + `}}}`
}

func policiesOf(list ...string) string {
	return `name: c, load_balancing_policy: {policies: [` + strings.Join(list, ", ") + `]}`
}

const unknownPolicy = `{typed_extension_config: {name: u, typed_config: {"@type": type.googleapis.com/envoy.extensions.load_balancing_policies.pick_first.v3.PickFirst}}}`

func TestBalancingIsDecoded(t *testing.T) {
	for _, tt := range []struct {
		what, in string
		want     func(*api.Balancing)
	}{
		{"ring hash", `name: c, lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 7, maximum_ring_size: 9, hash_function: MURMUR_HASH_2}, common_lb_config: {consistent_hashing_lb_config: {hash_balance_factor: 150}}`, func(b *api.Balancing) {
			b.Policy, b.MinRingSize, b.MaxRingSize, b.Murmur, b.BalanceFactor = api.RingHash, 7, 9, true, 150
		}},
		{"maglev", `name: c, lb_policy: MAGLEV, maglev_lb_config: {table_size: 13}`, func(b *api.Balancing) { b.Policy, b.TableSize = api.Maglev, 13 }},
		{"another policy's settings have no effect", `name: c, lb_policy: RANDOM, maglev_lb_config: {table_size: 12}`, func(b *api.Balancing) { b.Policy = api.Random }},
		{"localities by weight", `name: c, common_lb_config: {locality_weighted_lb_config: {}}`, func(b *api.Balancing) { b.LocalityWeighted = true }},
		{"zones", `name: c, common_lb_config: {zone_aware_lb_config: {routing_enabled: {value: 49.6}, min_cluster_size: 2, fail_traffic_on_panic: true}}`, func(b *api.Balancing) {
			b.Zone = api.ZoneAware{Enabled: 50, MinClusterSize: 2, FailOnPanic: true}
		}},
		{"slow start", `name: c, round_robin_lb_config: {slow_start_config: {slow_start_window: 60s, aggression: {default_value: 2, runtime_key: k}, min_weight_percent: {value: 25}}}`, func(b *api.Balancing) {
			b.SlowStart = api.SlowStart{Window: time.Minute, Aggression: 2, MinWeight: 0.25}
		}},
		{"slow start of another policy", `name: c, lb_policy: LEAST_REQUEST, round_robin_lb_config: {slow_start_config: {slow_start_window: 60s}}`, func(b *api.Balancing) { b.Policy = api.LeastRequest }},
		{"a bias below 0 is 1", `name: c, lb_policy: LEAST_REQUEST, least_request_lb_config: {active_request_bias: {default_value: -2, runtime_key: k}}`, func(b *api.Balancing) { b.Policy = api.LeastRequest }},
		{"subsets", `name: c, lb_subset_config: {fallback_policy: DEFAULT_SUBSET, default_subset: {v: "1"}, panic_mode_any: true, list_as_any: true, scale_locality_weight: true, metadata_fallback_policy: FALLBACK_LIST, subset_selectors: [{keys: [b, a, b], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [a]}, {keys: [s], single_host_per_subset: true}]}`, func(b *api.Balancing) {
			b.Subsets = &api.Subsets{Fallback: api.FallbackDefault, Default: map[string]any{"v": "1"}, PanicModeAny: true, ListAsAny: true, ScaleLocalityWeight: true, FallbackList: true, Selectors: []api.Selector{
				{Keys: []string{"a", "b"}, Fallback: api.FallbackKeys, KeysSubset: []string{"a"}}, {Keys: []string{"s"}, Fallback: api.FallbackUnset, SingleHost: true}}}
		}},
		{"no selectors, no subsets", `name: c, lb_subset_config: {fallback_policy: ANY_ENDPOINT}`, func(*api.Balancing) {}},

		{"typed round robin", policiesOf(typed(`round_robin.v3.RoundRobin, slow_start_config: {slow_start_window: 1s}, locality_lb_config: {zone_aware_lb_config: {min_cluster_size: 3, force_local_zone: {min_size: 4}, locality_basis: HEALTHY_HOSTS_WEIGHT}}`)), func(b *api.Balancing) {
			b.SlowStart.Window, b.Zone = time.Second, api.ZoneAware{Enabled: 100, MinClusterSize: 3, ForceLocal: 4, ByWeight: true}
		}},
		{"the first known one is taken", policiesOf(unknownPolicy, typed(`random.v3.Random, locality_lb_config: {locality_weighted_lb_config: {}}`), typed(`maglev.v3.Maglev, table_size: 4`)), func(b *api.Balancing) {
			b.Policy, b.LocalityWeighted = api.Random, true
		}},
		{"typed beats lb_policy", `lb_policy: MAGLEV, ` + policiesOf(typed(`least_request.v3.LeastRequest, choice_count: 5, selection_method: FULL_SCAN, active_request_bias: {default_value: 0, runtime_key: k}`)), func(b *api.Balancing) {
			b.Policy, b.ChoiceCount, b.FullScan, b.ActiveRequestBias = api.LeastRequest, 5, true, 0
		}},
		{"typed policies of what is hashed", policiesOf(typed(`maglev.v3.Maglev, consistent_hashing_lb_config: {hash_policy: [{header: {header_name: x}}, {filter_state: {key: k}, terminal: true}, {connection_properties: {source_ip: true}}]}`)), func(b *api.Balancing) {
			b.Policy, b.HashPolicy = api.Maglev, []api.HashPolicy{{}, {FilterState: "k", Terminal: true}, {SourceIP: true}}
		}},
		{"typed ring hash", policiesOf(typed(`ring_hash.v3.RingHash, minimum_ring_size: 5, hash_function: MURMUR_HASH_2, consistent_hashing_lb_config: {use_hostname_for_hashing: true, hash_balance_factor: 100}, locality_weighted_lb_config: {}`)), func(b *api.Balancing) {
			b.Policy, b.MinRingSize, b.Murmur, b.HashByName, b.BalanceFactor, b.LocalityWeighted = api.RingHash, 5, true, true, 100, true
		}},
		{"typed maglev in a TypedStruct", `name: c, load_balancing_policy: {policies: [{typed_extension_config: {name: p, typed_config: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/envoy.extensions.load_balancing_policies.maglev.v3.Maglev, value: {table_size: 11}}}}]}`, func(b *api.Balancing) {
			b.Policy, b.TableSize = api.Maglev, 11
		}},
		{"localities by weight, hosts by their load", policiesOf(typed(`wrr_locality.v3.WrrLocality, endpoint_picking_policy: {policies: [` + typed(`client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin`) + `]}`)), func(b *api.Balancing) {
			b.EqualWeights, b.LocalityWeighted = true, true
		}},
		{"typed subsets", policiesOf(typed(`subset.v3.Subset, fallback_policy: ANY_ENDPOINT, allow_redundant_keys: true, subset_selectors: [{keys: [v], fallback_policy: NO_FALLBACK}], subset_lb_policy: {policies: [` + typed(`random.v3.Random`) + `]}`)), func(b *api.Balancing) {
			b.Policy = api.Random
			b.Subsets = &api.Subsets{Fallback: api.FallbackAny, Default: map[string]any{}, AllowRedundantKeys: true, Selectors: []api.Selector{{Keys: []string{"v"}, Fallback: api.FallbackNone}}}
		}},
		{"hosts by metadata", policiesOf(typed(`override_host.v3.OverrideHost, selected_host_key: {key: f, path: [{key: s}]}, override_host_sources: [{header: x}, {metadata: {key: f, path: [{key: a}, {key: b}]}}], fallback_policy: {policies: [` + typed(`random.v3.Random`) + `]}`)), func(b *api.Balancing) {
			b.Policy = api.Random
			b.Override = &api.OverrideHost{Sources: []api.MetadataKey{{Filter: "f", Path: []string{"a", "b"}}}, Selected: &api.MetadataKey{Filter: "f", Path: []string{"s"}}}
		}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			_, c, _, err := Cluster(pack(t, clusterOf(t, tt.in)))
			if err != nil {
				t.Fatal(err)
			}
			want := defaultBalancing()
			tt.want(&want)
			if want.Subsets != nil && want.Subsets.Default == nil {
				want.Subsets.Default = map[string]any{}
			}
			if d := cmp.Diff(want, c.Balancing); d != "" {
				t.Error(d)
			}
		})
	}
}

// The texts are those of Envoy 1.40, seen with --mode validate.
func TestBalancingIsRefusedInEnvoysWords(t *testing.T) {
	rr := typed(`round_robin.v3.RoundRobin`)
	for in, want := range map[string]string{
		`name: c, lb_policy: CLUSTER_PROVIDED`:                                                                  `lb_policy: cluster manager: cluster provided LB specified but cluster 'c' did not provide one. Check cluster documentation.`,
		`name: c, lb_policy: CLUSTER_PROVIDED, lb_subset_config: {}`:                                            `lb_policy: cluster: LB policy CLUSTER_PROVIDED cannot be combined with lb_subset_config`,
		`name: c, lb_policy: LOAD_BALANCING_POLICY_CONFIG`:                                                      `cluster: field load_balancing_policy need to be set`,
		`name: c, lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 5000, maximum_ring_size: 100}`: `ring_hash_lb_config: ring hash: minimum_ring_size (5000) > maximum_ring_size (100)`,
		`name: c, common_lb_config: {consistent_hashing_lb_config: {use_hostname_for_hashing: true}}`:           `common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing: Cannot use hostname for consistent hashing loadbalancing for cluster of type: 'envoy.cluster.static'`,
		`name: c, lb_policy: MAGLEV, maglev_lb_config: {table_size: 100}`:                                       `maglev_lb_config: The table size of maglev must be prime number`,
		`name: c, lb_policy: MAGLEV, load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{load_balancing_weight: 4294967295, endpoint: {address: {socket_address: {address: 1.1.1.1, port_value: 1}}}}, {load_balancing_weight: 1, endpoint: {address: {socket_address: {address: 1.1.1.2, port_value: 1}}}}]}]}`: `load_assignment: The sum of weights of all upstream hosts in a locality exceeds 4294967295`,
		`name: c, lb_subset_config: {subset_selectors: [{keys: [a], fallback_policy: KEYS_SUBSET}]}`:                            `lb_subset_config.subset_selectors[0]: fallback_keys_subset cannot be empty`,
		`name: c, lb_subset_config: {subset_selectors: [{keys: [a], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [b]}]}`: `lb_subset_config.subset_selectors[0]: fallback_keys_subset must be a subset of selector keys`,
		`name: c, lb_subset_config: {subset_selectors: [{keys: [a], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [a]}]}`: `lb_subset_config.subset_selectors[0]: fallback_keys_subset cannot be equal to keys`,
		`name: c, lb_subset_config: {subset_selectors: [{keys: [a], fallback_keys_subset: [a]}]}`:                               `lb_subset_config.subset_selectors[0]: fallback_keys_subset can be set only for KEYS_SUBSET fallback_policy`,
		`name: c, lb_subset_config: {subset_selectors: [{keys: [a]}], locality_weight_aware: true}`:                             `Locality weight aware subset LB requires that a locality_weighted_lb_config be set in c`,
		`lb_subset_config: {subset_selectors: [{keys: [a]}]}, ` + policiesOf(rr):                                                `cluster: load_balancing_policy cannot be combined with lb_subset_config`,
		`common_lb_config: {locality_weighted_lb_config: {}}, ` + policiesOf(rr):                                                `cluster: load_balancing_policy cannot be combined with partial fields (zone_aware_lb_config, locality_weighted_lb_config, consistent_hashing_lb_config) of common_lb_config`,
		`name: c, load_balancing_policy: {}`:                                                                                          `load_balancing_policy: cluster: didn't find a registered load balancer factory implementation for cluster: 'c' with names from []`,
		policiesOf(unknownPolicy, unknownPolicy):                                                                                      `load_balancing_policy: cluster: didn't find a registered load balancer factory implementation for cluster: 'c' with names from [u, u]`,
		policiesOf(typed(`maglev.v3.Maglev, table_size: 100`)):                                                                        `load_balancing_policy.policies[0].typed_extension_config maglev: The table size of maglev must be prime number`,
		policiesOf(typed(`cluster_provided.v3.ClusterProvided`)):                                                                      `lb_policy: cluster manager: cluster provided LB specified but cluster 'c' did not provide one. Check cluster documentation.`,
		policiesOf(typed(`wrr_locality.v3.WrrLocality, endpoint_picking_policy: {policies: [` + rr + `]}`)):                           `load_balancing_policy.policies[0].typed_extension_config wrr_locality: Currently WrrLocalityLoadBalancer only supports ClientSideWeightedRoundRobinLoadBalancer as its endpoint picking policy.`,
		policiesOf(typed(`wrr_locality.v3.WrrLocality, endpoint_picking_policy: {}`)):                                                 `load_balancing_policy.policies[0].typed_extension_config wrr_locality.endpoint_picking_policy: No supported endpoint picking policy.`,
		policiesOf(typed(`subset.v3.Subset, subset_selectors: [{keys: [a]}], subset_lb_policy: {policies: [` + unknownPolicy + `]}`)): `load_balancing_policy.policies[0].typed_extension_config subset.subset_lb_policy: cluster: didn't find a registered load balancer factory implementation for subset lb with names from [u]`,
		policiesOf(typed(`override_host.v3.OverrideHost, override_host_sources: [{}], fallback_policy: {policies: [` + rr + `]}`)):    `load_balancing_policy.policies[0].typed_extension_config override_host.override_host_sources[0]: Empty override source`,
	} {
		if _, c, _, err := Cluster(pack(t, clusterOf(t, in))); err == nil {
			t.Errorf("%s: accepted: %+v", in, c.Balancing)
		} else if err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", in, err, want)
		}
	}
}

func TestDropsAreDecoded(t *testing.T) {
	in := func(d string) string {
		return `cluster_name: s, policy: {weighted_priority_health: true, drop_overloads: [` + d + `]}`
	}
	_, as, _, err := Assignment(pack(t, assignmentOf(t, in(`{category: a, drop_percentage: {numerator: 5, denominator: TEN_THOUSAND}}`))))
	if err != nil || as.Drop != (api.Drop{Category: "a", Share: 0.0005}) || !as.WeightedHealth {
		t.Errorf("%+v %v", as, err)
	}
	_, _, _, err = Assignment(pack(t, assignmentOf(t, in(`{category: a, drop_percentage: {numerator: 500}}`))))
	if want := "policy.drop_overloads: Cluster drop_overloads config is invalid. drop_ratio=5(Numerator 500 / Denominator 100). The valid range is 0~1."; err == nil || err.Error() != want {
		t.Error(err)
	}
}
