package parity

const ofAggregates = `cluster\.[^.]+\.(upstream_cx_(total|none_healthy)|lb_healthy_panic)`

// aggregateOf is a cluster that has the hosts of others.
func aggregateOf(name string, members ...string) obj {
	return obj{"name": name, "lb_policy": "CLUSTER_PROVIDED", "cluster_type": obj{"name": "envoy.clusters.aggregate", "typed_config": obj{
		"@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig", "clusters": members}}}
}

func unwell(e obj) obj { return e.with(obj{"health_status": "UNHEALTHY"}) }

// gathered sends connections to an aggregate, agg, of these clusters.
func gathered(name string, clusters func(r *run) []obj, members ...string) scenario {
	return scenario{name, func(r *run) {
		log := r.logFile("tcp")
		p := tcpProxy("agg").set("access_log", []obj{logTo(log, "%RESPONSE_FLAGS% %UPSTREAM_CLUSTER%\n")})
		r.start(static([]obj{listener("l", chain(p))}, append(clusters(r), aggregateOf("agg", members...))))
		got := r.shares("l", 10)
		r.note("%v", got)
		r.moved(ofAggregates)
	}}
}

// gathering: aggregate clusters.
var gathering = []scenario{
	gathered("aggregate_takes_the_first", func(r *run) []obj {
		e := r.banners("a", "b")
		return []obj{cluster("a", e[0]), cluster("b", e[1])}
	}, "a", "b"),
	gathered("aggregate_fails_over", func(r *run) []obj {
		e := r.banners("a", "b")
		return []obj{cluster("a", unwell(e[0])), cluster("b", e[1])}
	}, "a", "b"),
	gathered("aggregate_order_is_the_lists", func(r *run) []obj {
		e := r.banners("a", "b")
		return []obj{cluster("a", e[0]), cluster("b", e[1])}
	}, "b", "a"),
	gathered("aggregate_passes_over_the_empty_and_the_missing", func(r *run) []obj {
		return []obj{cluster("a"), cluster("b", r.banners("b")...)}
	}, "a", "missing", "b"),
	gathered("aggregate_lower_priority_of_the_first_comes_before_the_second", func(r *run) []obj {
		e := r.banners("a", "b", "c")
		c := cluster("a")
		c["load_assignment"].(obj)["endpoints"] = []obj{{"lb_endpoints": []obj{unwell(e[0])}}, {"priority": 1, "lb_endpoints": e[1:2]}}
		return []obj{c, cluster("b", e[2])}
	}, "a", "b"),
	gathered("aggregate_of_the_unhealthy_panics", func(r *run) []obj {
		return []obj{cluster("a", unwell(r.banners("a")[0]))}
	}, "a"),
	gathered("aggregate_of_nobody", func(*run) []obj { return nil }, "missing"),
	gathered("aggregate_of_an_aggregate_has_nobody", func(r *run) []obj {
		return []obj{cluster("a", r.banners("a")...), aggregateOf("inner", "a")}
	}, "inner"),
}
