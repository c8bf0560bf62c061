package parity

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

// labels are metadata for balancers.
func labels(o, fields obj) obj {
	return o.with(obj{"metadata": obj{"filter_metadata": obj{"envoy.lb": fields}}})
}

// keyed are back ends that are hashed by their names, whatever their ports.
func (r *run) keyed(names ...string) []obj {
	eps := r.banners(names...)
	for i, n := range names {
		labels(eps[i], obj{"hash_key": "host-" + n})
	}
	return eps
}

// clients notes which host each of n clients got, each from its own address.
func (r *run) clients(listener string, n int) {
	r.Helper()
	at := r.bound(listener)
	var got strings.Builder
	for i := range n {
		from := netip.AddrFrom4([4]byte{127, 0, byte(i / 200), byte(i%200 + 1)})
		c := r.dialFrom(netip.AddrPortFrom(from, 0), at).fin()
		data, _, err := peer.ReadToEnd(c, 4e9)
		if err != nil {
			r.note("error %v", err)
		}
		got.Write(data)
	}
	r.note("clients got %s", got.String())
}

// gauges notes what figures of c stand at.
func (r *run) gauges(names ...string) {
	have := r.stats()
	for _, n := range names {
		r.note("%s %d", n, have["cluster.c."+n])
	}
}

func bySourceIP() obj { return tcpProxy("c").set("hash_policy", []obj{{"source_ip": obj{}}}) }

// hashing is a scenario in which fifty clients are hashed.
func hashing(name string, c func(eps []obj) obj, figures ...string) scenario {
	return scenario{"hash_" + name, func(r *run) {
		r.start(static([]obj{listener("l", chain(bySourceIP()))}, []obj{c(r.keyed("a", "b", "c", "d"))}))
		r.clients("l", 50)
		r.gauges(figures...)
	}}
}

func weigh(eps []obj, weights ...int) []obj {
	for i, w := range weights {
		eps[i].with(obj{"load_balancing_weight": w})
	}
	return eps
}

// typedPolicy is a load_balancing_policy of one.
func typedPolicy(kind string, more obj) obj {
	return obj{"policies": []obj{{"typed_extension_config": obj{"name": "p", "typed_config": obj{
		"@type": "type.googleapis.com/envoy.extensions.load_balancing_policies." + kind}.with(more)}}}}
}

// placed are localities, in the order of zones; weight 0 is none.
func placed(c obj, zones []string, weights []int, eps ...[]obj) obj {
	var ls []obj
	for i, z := range zones {
		l := obj{"locality": obj{"zone": z}, "lb_endpoints": eps[i]}
		if weights != nil && weights[i] > 0 {
			l["load_balancing_weight"] = weights[i]
		}
		ls = append(ls, l)
	}
	c["load_assignment"].(obj)["endpoints"] = ls
	return c
}

// clustersText is what /clusters says.
func (r *run) clustersText() string {
	r.Helper()
	body, _, err := r.proxy.get("/clusters")
	if err != nil {
		r.Fatal(err)
	}
	return body
}

// awaitWeights waits until no host of c has a weight but 1.
func (r *run) awaitWeights() {
	r.Helper()
	for deadline := time.Now().Add(4 * time.Second); strings.Contains(r.clustersText(), "::weight::9"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.note("weights stay")
			return
		}
	}
}

const ringFigure, maglevFigure = "ring_hash_lb.", "maglev_lb."

var hashes = []scenario{
	hashing("ring", func(eps []obj) obj { return cluster("c", eps...).with(obj{"lb_policy": "RING_HASH"}) },
		ringFigure+"size", ringFigure+"min_hashes_per_host", ringFigure+"max_hashes_per_host"),
	hashing("ring_by_weight", func(eps []obj) obj {
		return cluster("c", weigh(eps, 1, 5, 2, 2)...).with(obj{"lb_policy": "RING_HASH", "ring_hash_lb_config": obj{"minimum_ring_size": 50, "maximum_ring_size": 77, "hash_function": "MURMUR_HASH_2"}})
	}, ringFigure+"size", ringFigure+"min_hashes_per_host", ringFigure+"max_hashes_per_host"),
	hashing("ring_typed", func(eps []obj) obj {
		return cluster("c", eps...).with(obj{"load_balancing_policy": typedPolicy("ring_hash.v3.RingHash", obj{"minimum_ring_size": 9})})
	}, ringFigure+"size"),
	hashing("maglev", func(eps []obj) obj { return cluster("c", eps...).with(obj{"lb_policy": "MAGLEV"}) },
		maglevFigure+"min_entries_per_host", maglevFigure+"max_entries_per_host"),
	hashing("maglev_by_weight", func(eps []obj) obj {
		return cluster("c", weigh(eps, 1, 5, 2, 2)...).with(obj{"lb_policy": "MAGLEV", "maglev_lb_config": obj{"table_size": 127}})
	}, maglevFigure+"min_entries_per_host", maglevFigure+"max_entries_per_host"),
	hashing("with_a_sick_host", func(eps []obj) obj {
		eps[1].with(obj{"health_status": "UNHEALTHY"})
		eps[2].with(obj{"health_status": "DEGRADED"})
		return cluster("c", eps...).with(obj{"lb_policy": "MAGLEV"})
	}, maglevFigure+"max_entries_per_host"),
	hashing("localities_by_weight", func(eps []obj) obj {
		return placed(cluster("c").with(obj{"lb_policy": "RING_HASH", "common_lb_config": obj{"locality_weighted_lb_config": obj{}}}),
			[]string{"z", "y"}, []int{1, 3}, eps[:2], eps[2:])
	}, ringFigure+"min_hashes_per_host"),
	hashing("in_panic", func(eps []obj) obj {
		for _, e := range eps[:3] {
			e.with(obj{"health_status": "UNHEALTHY"})
		}
		return cluster("c", eps...).with(obj{"lb_policy": "RING_HASH"})
	}, "lb_healthy_panic"),
	{"hash_bounded_load", func(r *run) {
		c := cluster("c", r.keyed("a", "b", "c", "d")...).with(obj{"lb_policy": "RING_HASH",
			"common_lb_config": obj{"consistent_hashing_lb_config": obj{"hash_balance_factor": 100}}})
		r.start(static([]obj{listener("l", chain(bySourceIP()))}, []obj{c}))
		at, got := r.bound("l"), ""
		for range 16 { // one client, whose connections all stay
			name := make([]byte, 1)
			c := r.dialAt(at)
			if _, err := c.Read(name); err != nil {
				r.note("read: %v", err)
			}
			got += string(name)
		}
		r.note("one client got %s", got)
	}},
	{"hash_by_filter_state", func(r *run) {
		set := func(factory, text string) obj {
			return obj{"name": "envoy.filters.network.set_filter_state", "typed_config": obj{
				"@type": "type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config",
				"on_new_connection": []obj{{"object_key": "k", "factory_key": factory,
					"format_string": obj{"text_format_source": obj{"inline_string": text}}}}}}
		}
		hashed := tcpProxy("c").set("hash_policy", []obj{{"filter_state": obj{"key": "k"}}})
		c := cluster("c", r.keyed("a", "b", "c", "d")...).with(obj{"lb_policy": "MAGLEV"})
		r.start(static([]obj{listener("one", chain(set("envoy.hashable_string", "x"), hashed)), listener("two", chain(set("envoy.hashable_string", "user"), hashed)),
			listener("no", chain(set("envoy.string", "x"), hashed))}, []obj{c}))
		r.note("one %v", r.shares("one", 10))
		r.note("two %v", r.shares("two", 10))
		r.note("what is not hashable reaches all: %t", len(r.shares("no", 80)) == 4)
	}},
	{"hash_without_a_policy_reaches_all", func(r *run) {
		c := cluster("c", r.keyed("a", "b", "c", "d")...).with(obj{"lb_policy": "RING_HASH"})
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.note("all: %t", len(r.shares("l", 80)) == 4)
	}},
}

// fleet are four hosts of two versions and two stages, one without either.
func (r *run) fleet() []obj {
	eps := r.banners("a", "b", "c", "d")
	labels(eps[0], obj{"v": "1", "s": "prod"})
	labels(eps[1], obj{"v": "1", "s": "dev"})
	labels(eps[2], obj{"v": []string{"2", "3"}, "s": "prod"})
	return eps
}

// subset is a scenario of one cluster with subsets, and what is asked of it.
func subset(name string, config, match obj) scenario {
	return scenario{"subset_" + name, func(r *run) {
		c := cluster("c", r.fleet()...).with(obj{"lb_subset_config": config})
		p := tcpProxy("c")
		if match != nil {
			p.set("metadata_match", obj{"filter_metadata": obj{"envoy.lb": match}})
		}
		r.start(static([]obj{listener("l", chain(p))}, []obj{c}))
		r.note("%v", r.shares("l", 12))
		r.moved(`cluster\.c\.(lb_subsets_(selected|fallback|fallback_panic)|upstream_cx_(total|none_healthy))`)
		r.gauges("lb_subsets_active", "lb_subsets_created", "lb_subsets_single_host_per_subset_duplicate")
	}}
}

func keys(ks ...string) obj { return obj{"keys": ks} }

var subsets = []scenario{
	subset("by_one_key", obj{"subset_selectors": []obj{keys("v")}}, obj{"v": "1"}),
	subset("by_two_keys", obj{"subset_selectors": []obj{keys("v"), keys("v", "s")}}, obj{"v": "1", "s": "dev"}),
	subset("not_there", obj{"subset_selectors": []obj{keys("v")}}, obj{"v": "9"}),
	subset("not_asked_for", obj{"subset_selectors": []obj{keys("v")}}, nil),
	subset("falls_back_to_any", obj{"fallback_policy": "ANY_ENDPOINT", "subset_selectors": []obj{keys("v")}}, obj{"v": "9"}),
	subset("falls_back_to_the_default", obj{"fallback_policy": "DEFAULT_SUBSET", "default_subset": obj{"s": "prod"}, "subset_selectors": []obj{keys("v")}}, nil),
	subset("panics", obj{"fallback_policy": "DEFAULT_SUBSET", "default_subset": obj{"s": "none"}, "panic_mode_any": true, "subset_selectors": []obj{keys("v")}}, obj{"v": "9"}),
	subset("falls_back_by_selector", obj{"fallback_policy": "ANY_ENDPOINT", "subset_selectors": []obj{keys("v").with(obj{"fallback_policy": "NO_FALLBACK"})}}, obj{"v": "9"}),
	subset("falls_back_to_fewer_keys", obj{"subset_selectors": []obj{keys("v", "s").with(obj{"fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": []string{"v"}}), keys("v")}}, obj{"v": "1", "s": "none"}),
	subset("of_single_hosts", obj{"subset_selectors": []obj{keys("v").with(obj{"single_host_per_subset": true})}}, obj{"v": "1"}),
	subset("by_a_value_of_a_list", obj{"list_as_any": true, "subset_selectors": []obj{keys("v")}}, obj{"v": "3"}),
	subset("by_a_list", obj{"subset_selectors": []obj{keys("v")}}, obj{"v": []string{"2", "3"}}),
	subset("by_a_list_of_fallbacks", obj{"metadata_fallback_policy": "FALLBACK_LIST", "subset_selectors": []obj{keys("v")}}, obj{"fallback_list": []obj{{"v": "9"}, {"v": "1"}}}),
	{"subset_of_a_weighted_cluster", func(r *run) {
		c := cluster("c", r.fleet()...).with(obj{"lb_subset_config": obj{"subset_selectors": []obj{keys("v", "s")}}})
		of := func(m obj) obj { return obj{"filter_metadata": obj{"envoy.lb": m}} }
		p := tcpProxy("c").set("metadata_match", of(obj{"v": "1", "s": "prod"})).set("weighted_clusters", obj{"clusters": []obj{{"name": "c", "weight": 1, "metadata_match": of(obj{"s": "dev"})}}})
		delete(p["typed_config"].(obj), "cluster")
		r.start(static([]obj{listener("l", chain(p))}, []obj{c}))
		r.note("%v", r.shares("l", 5))
	}},
}

// home is a bootstrap of a proxy in zone z, one of several in the cluster me.
func home(bootstrap obj, zones ...string) obj {
	bootstrap["node"].(obj)["locality"] = obj{"zone": "z"}
	bootstrap["cluster_manager"] = obj{"local_cluster_name": "me"}
	var eps [][]obj
	for i := range zones {
		eps = append(eps, []obj{endpoint(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(i+1)))})
	}
	resources := bootstrap["static_resources"].(obj)
	resources["clusters"] = append(resources["clusters"].([]obj), placed(cluster("me"), zones, nil, eps...))
	return bootstrap
}

const ofZones = `cluster\.c\.lb_(zone_.*|local_cluster_not_ok|healthy_panic)`

var places = []scenario{
	{"locality_by_weight", func(r *run) {
		eps := r.banners("a", "b", "c")
		c := placed(cluster("c").with(obj{"common_lb_config": obj{"locality_weighted_lb_config": obj{}}}), []string{"y", "z"}, []int{3, 1}, eps[:1], eps[1:])
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.about(r.shares("l", 40), 40, .05, map[string]float64{"a": .75, "b": .125, "c": .125})
	}},
	{"locality_weights_without_the_policy", func(r *run) {
		eps := r.banners("a", "b")
		c := placed(cluster("c"), []string{"y", "z"}, []int{3, 1}, eps[:1], eps[1:])
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.note("%v", r.shares("l", 20))
	}},
	{"zone_is_near_enough", func(r *run) {
		eps := r.banners("a", "b", "c", "d")
		c := placed(cluster("c").with(obj{"common_lb_config": obj{"zone_aware_lb_config": obj{"min_cluster_size": 4}}}), []string{"y", "z"}, nil, eps[:2], eps[2:])
		r.start(home(static([]obj{proxyTo("l", "c")}, []obj{c}), "y", "z"))
		r.note("%v", r.shares("l", 20))
		r.moved(ofZones)
		r.gauges("lb_recalculate_zone_structures")
	}},
	{"zone_of_a_small_cluster", func(r *run) {
		eps := r.banners("a", "b")
		c := placed(cluster("c"), []string{"y", "z"}, nil, eps[:1], eps[1:])
		r.start(home(static([]obj{proxyTo("l", "c")}, []obj{c}), "y", "z"))
		r.note("%v", r.shares("l", 20))
		r.gauges("lb_zone_cluster_too_small", "lb_recalculate_zone_structures")
	}},
	{"zone_of_a_local_cluster_elsewhere", func(r *run) {
		eps := r.banners("a", "b")
		c := placed(cluster("c").with(obj{"common_lb_config": obj{"zone_aware_lb_config": obj{"min_cluster_size": 1}}}), []string{"y", "z"}, nil, eps[:1], eps[1:])
		r.start(home(static([]obj{proxyTo("l", "c")}, []obj{c}), "x", "y"))
		r.note("%v", r.shares("l", 20))
		r.gauges("lb_local_cluster_not_ok")
	}},
	{"panic_that_fails", func(r *run) {
		eps := r.banners("a", "b", "c")
		eps[0].with(obj{"health_status": "UNHEALTHY"})
		eps[1].with(obj{"health_status": "UNHEALTHY"})
		c := cluster("c", eps...).with(obj{"common_lb_config": obj{"zone_aware_lb_config": obj{"fail_traffic_on_panic": true}}})
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.note("%v", r.shares("l", 5))
		r.moved(`cluster\.c\.(lb_healthy_panic|upstream_cx_(none_healthy|total))`)
	}},
	{"degraded_hosts_help_out", func(r *run) {
		eps := r.banners("a", "d", "x")
		eps[1].with(obj{"health_status": "DEGRADED"})
		eps[2].with(obj{"health_status": "UNHEALTHY"})
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", eps...)}))
		r.about(r.shares("l", 300), 300, .1, map[string]float64{"a": .5, "d": .5})
		r.gauges("membership_degraded", "membership_healthy", "lb_healthy_panic")
	}},
	{"health_of_a_priority_by_weight", func(r *run) {
		eps := weigh(r.banners("a", "x", "b"), 9, 1)
		eps[1].with(obj{"health_status": "UNHEALTHY"})
		c := cluster("c")
		c["load_assignment"].(obj).with(obj{"policy": obj{"weighted_priority_health": true}, "endpoints": []obj{
			{"lb_endpoints": eps[:2]}, {"priority": 1, "lb_endpoints": eps[2:]}}})
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.note("%v", r.shares("l", 20))
	}},
	{"drop_overloads_drops_no_tcp", func(r *run) {
		c := cluster("c", r.banners("a")...)
		c["load_assignment"].(obj).with(obj{"policy": obj{"drop_overloads": []obj{{"category": "x", "drop_percentage": obj{"numerator": 100}}}}})
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.note("%v", r.shares("l", 5))
	}},
	{"full_scan_finds_the_idle", func(r *run) {
		c := cluster("c", r.banners("a", "b", "c")...).with(obj{"load_balancing_policy": typedPolicy("least_request.v3.LeastRequest", obj{"selection_method": "FULL_SCAN"})})
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		at, seen := r.bound("l"), map[string]int{}
		for range 12 {
			name := make([]byte, 1)
			c := r.dialAt(at)
			if _, err := c.Read(name); err != nil {
				r.note("read: %v", err)
			}
			seen[string(name)]++
		}
		r.note("%v", seen)
	}},
	{"client_side_weights_are_equal_for_tcp", func(r *run) {
		c := cluster("c", weigh(r.banners("a", "b"), 9, 1)...).with(obj{"load_balancing_policy": typedPolicy("client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin", obj{"weight_update_period": "0.1s"})})
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.awaitWeights()
		r.note("%v", r.shares("l", 20))
	}},
	{"clusters_show_where_hosts_are", func(r *run) {
		eps := r.banners("a", "b")
		labels(eps[0].with(obj{"load_balancing_weight": 7}), obj{"canary": true})
		eps[1].with(obj{"health_status": "DEGRADED"})
		c := cluster("c")
		c["load_assignment"].(obj)["endpoints"] = []obj{
			{"locality": obj{"region": "r", "zone": "z", "sub_zone": "s"}, "lb_endpoints": eps[:1]},
			{"priority": 1, "lb_endpoints": eps[1:]}}
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.note("%v", r.shares("l", 3))
		for _, l := range strings.Split(r.clustersText(), "\n") {
			for _, k := range []string{"weight", "region", "zone", "sub_zone", "canary", "priority", "health_flags"} {
				if parts := strings.Split(l, "::"); len(parts) == 4 && parts[2] == k {
					r.note("%s %s", k, parts[3])
				}
			}
		}
	}},
}

// balancingRejections: clusters that nobody can balance over.
var balancingRejections = func() (out []scenario) {
	for name, one := range map[string]struct {
		words string
		more  obj
	}{
		"maglev_table_is_no_prime": {"The table size of maglev must be prime number", obj{"lb_policy": "MAGLEV", "maglev_lb_config": obj{"table_size": 100}}},
		"ring_sizes":               {"ring hash: minimum_ring_size (20) > maximum_ring_size (10)", obj{"lb_policy": "RING_HASH", "ring_hash_lb_config": obj{"minimum_ring_size": 20, "maximum_ring_size": 10}}},
		"unknown_policies":         {"cluster: didn't find a registered load balancer factory implementation for cluster: 'c' with names from [p]", obj{"load_balancing_policy": obj{"policies": []obj{{"typed_extension_config": obj{"name": "p", "typed_config": obj{"@type": "type.googleapis.com/google.protobuf.StringValue", "value": "x"}}}}}}},
		"subset_keys":              {"fallback_keys_subset must be a subset of selector keys", obj{"lb_subset_config": obj{"subset_selectors": []obj{keys("a").with(obj{"fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": []string{"b"}})}}}},
		"typed_beside_fields":      {"cluster: load_balancing_policy cannot be combined with lb_subset_config", obj{"lb_subset_config": obj{"subset_selectors": []obj{keys("a")}}, "load_balancing_policy": typedPolicy("random.v3.Random", nil)}},
		"provided_by_nobody":       {"cluster provided LB specified but cluster 'c' did not provide one", obj{"lb_policy": "CLUSTER_PROVIDED"}},
		"names_for_hashing":        {"Cannot use hostname for consistent hashing loadbalancing for cluster of type: 'envoy.cluster.static'", obj{"common_lb_config": obj{"consistent_hashing_lb_config": obj{"use_hostname_for_hashing": true}}}},
		"drops_beyond_all":         {"Cluster drop_overloads config is invalid. drop_ratio=5", obj{"load_assignment": obj{"cluster_name": "c", "policy": obj{"drop_overloads": []obj{{"category": "x", "drop_percentage": obj{"numerator": 500}}}}}}},
	} {
		out = append(out, scenario{"reject_balancing_" + name, func(r *run) {
			r.rejects(static([]obj{proxyTo("l", "c")}, []obj{cluster("c").with(one.more)}), one.words)
		}})
	}
	slices.SortFunc(out, func(a, b scenario) int { return strings.Compare(a.name, b.name) })
	return append(out, scenario{"reject_balancing_no_local_cluster", func(r *run) {
		b := static([]obj{proxyTo("l", "c")}, []obj{cluster("c")})
		r.rejects(b.with(obj{"cluster_manager": obj{"local_cluster_name": "me"}}), "local cluster 'me' must be defined")
	}})
}()
