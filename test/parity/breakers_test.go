package parity

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

// perHost has a limit for each host, beside what else the breakers say.
func perHost(n int, thresholds ...obj) obj {
	b := obj{"per_host_thresholds": []obj{{"max_connections": n}}}
	if len(thresholds) > 0 {
		b["thresholds"] = thresholds
	}
	return obj{"circuit_breakers": b}
}

const (
	ofWaiting  = `cluster\.(a|agg|c)\.(upstream_cx_(total|active|overflow|connect_attempts_exceeded)|upstream_rq_(total|active|cancelled|pending_(total|active|overflow|failure_eject)))`
	anyBreaker = `cluster\.c\.circuit_breakers\..+`
)

// waiting waits until n connections of a cluster have no upstream yet.
func (r *run) waiting(cluster string, n int) {
	r.Helper()
	r.stand("cluster."+cluster+".upstream_rq_pending_active", int64(n))
	r.moved(ofWaiting)
}

// stand waits for a figure to be n.
func (r *run) stand(figure string, n int64) {
	r.Helper()
	for deadline := time.Now().Add(5 * time.Second); r.stats()[figure] != n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.note("%s does not come to %d", figure, n)
			return
		}
	}
}

// breakers: limits of each host, and what is shown of limits.
var breakers = []scenario{
	{"per_host_limit_has_others_wait", func(r *run) {
		log := r.logFile("tcp")
		p := tcpProxy("c").set("access_log", []obj{logTo(log, "%RESPONSE_FLAGS% %UPSTREAM_HOST%\n")})
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo))).with(perHost(1))}))
		one := r.dial("l").as("first").send("1").expect("1")
		two := r.dial("l").as("second").send("2")
		r.waiting("c", 1)
		r.moved(anyBreaker)
		one.leave()
		two.expect("2")
		r.waiting("c", 0)
		two.leave()
		r.logged(log, 2)
		r.movedByConnections()
	}},
	{"per_host_limit_is_taken_in_turn", func(r *run) {
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo))).with(perHost(1))}))
		one := r.dial("l").as("first").send("1").expect("1")
		two := r.dial("l").as("second").send("2")
		r.waiting("c", 1)
		three := r.dial("l").as("third").send("3")
		r.waiting("c", 2)
		one.leave()
		two.expect("2")
		r.waiting("c", 1)
		two.leave()
		three.expect("3").leave()
		r.movedByConnections()
	}},
	{"per_host_limit_waiting_is_limited", func(r *run) {
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo))).with(perHost(1, obj{"max_pending_requests": 1}))}))
		one := r.dial("l").as("first").send("1").expect("1")
		two := r.dial("l").as("second").send("2")
		r.waiting("c", 1)
		r.moved(anyBreaker)
		r.dial("l").as("third").end()
		r.waiting("c", 1)
		one.leave()
		two.expect("2").leave()
		r.movedByConnections()
	}},
	{"per_host_limit_client_leaves_while_it_waits", func(r *run) {
		addr, seen := r.recorder(peer.Echo)
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(addr)).with(perHost(1))}))
		one := r.dial("l").as("first").send("1").expect("1")
		two := r.dial("l").as("second").send("2")
		r.waiting("c", 1)
		two.Close()
		time.Sleep(breath)
		r.moved(`cluster\.c\.upstream_rq_(pending_active|cancelled)`, `listener\.l\.downstream_cx_active`)
		one.leave()
		r.saw(seen)
		r.saw(seen)
		r.moved(ofListener, ofWaiting)
	}},
	{"per_host_limit_waiting_ends_by_age", func(r *run) {
		log := r.logFile("tcp")
		p := tcpProxy("c").set("max_downstream_connection_duration", "1s").set("access_log", []obj{logTo(log, "%RESPONSE_FLAGS% %UPSTREAM_HOST% %UPSTREAM_TRANSPORT_FAILURE_REASON% %DOWNSTREAM_LOCAL_CLOSE_REASON%\n")})
		r.start(static([]obj{proxyTo("m", "c"), listener("l", chain(p))}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo))).with(perHost(1))}))
		one := r.dial("m").as("first").send("1").expect("1")
		r.dial("l").as("second").end()
		r.waiting("c", 0)
		one.leave()
		r.logged(log, 1)
		r.movedByConnections()
	}},
	{"per_host_limit_waiting_for_a_connect_that_fails", func(r *run) {
		log := r.logFile("tcp")
		p := tcpProxy("c").set("access_log", []obj{logTo(log, "%RESPONSE_FLAGS% %UPSTREAM_HOST% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n")})
		h := r.hole()
		r.call(h.Addr(), "hole")
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(h.Addr())).with(perHost(1)).with(obj{"connect_timeout": "1s"})}))
		one := r.dial("l").as("first")
		begun := r.since
		r.stand("cluster.c.upstream_rq_pending_active", 1)
		two := r.dial("l").as("second")
		r.waiting("c", 2)
		r.since = begun
		one.end()
		two.end()
		r.logged(log, 2)
		r.movedByConnections()
	}},
	{"per_host_limit_of_a_host_with_proxy_headers", func(r *run) {
		c := cluster("c", endpoint(r.serve("server", peer.ResponseThen("hi", peer.Stall)))).with(perHost(1)).with(obj{"transport_socket": obj{"name": "p", "typed_config": obj{
			"@type": "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport", "config": obj{},
			"transport_socket": obj{"name": "raw", "typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}}}})
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.dial("l").as("first").expect("hi")
		r.dial("l").as("second").expect("hi")
		r.moved(ofWaiting)
	}},
	{"track_remaining", func(r *run) {
		th := obj{"max_connections": 2, "max_pending_requests": 3, "max_requests": 4, "max_retries": 5, "track_remaining": true}
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo))).with(obj{"circuit_breakers": obj{"thresholds": []obj{th}}})}))
		r.breakersShown()
		one := r.dial("l").as("first").send("1").expect("1")
		two := r.dial("l").as("second").send("2").expect("2")
		r.breakersShown()
		r.dial("l").as("third").end()
		one.leave()
		two.leave()
		r.stand("cluster.c.upstream_cx_active", 0)
		r.breakersShown()
	}},
	{"track_remaining_of_both_priorities", func(r *run) {
		th := obj{"max_connections": 2, "max_connection_pools": 7, "track_remaining": true}
		high := obj{"priority": "HIGH", "max_connections": 0, "max_pending_requests": 0, "max_requests": 0, "max_retries": 0, "max_connection_pools": 0, "track_remaining": true}
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo))).with(obj{"circuit_breakers": obj{"thresholds": []obj{th, high}}})}))
		r.breakersShown()
		one := r.dial("l").as("first").send("1").expect("1")
		r.breakersShown()
		one.leave()
		r.breakers("c")
	}},
	{"breakers_at_none", func(r *run) {
		none := obj{"max_connections": 0, "max_pending_requests": 0, "max_requests": 0, "max_retries": 0, "max_connection_pools": 0}
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo))).with(obj{"circuit_breakers": obj{"thresholds": []obj{none, obj{"priority": "HIGH"}.with(none)}}})}))
		r.breakersShown()
		r.breakers("c")
	}},
	{"retry_budget_by_default", func(r *run) {
		th := obj{"track_remaining": true, "retry_budget": obj{}}
		high := obj{"priority": "HIGH", "track_remaining": true, "retry_budget": obj{"min_retry_concurrency": 0}}
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo))).with(obj{"circuit_breakers": obj{"thresholds": []obj{th, high}}})}))
		r.breakersShown()
		r.breakers("c")
	}},
	{"pending_overflow_is_logged", func(r *run) {
		log := r.logFile("tcp")
		p := tcpProxy("c").set("access_log", []obj{logTo(log, "%RESPONSE_FLAGS% %UPSTREAM_HOST% %UPSTREAM_TRANSPORT_FAILURE_REASON% %DOWNSTREAM_LOCAL_CLOSE_REASON%\n")}).set("max_connect_attempts", 3)
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(r.hole().Addr())).with(threshold("max_pending_requests", 0))}))
		r.dial("l").end()
		r.logged(log, 1)
		r.figuresOf("c")
		r.moved(ofClusterNoBytes)
	}},
	{"connection_overflow_comes_before_the_choice", func(r *run) {
		log := r.logFile("tcp")
		p := tcpProxy("c").set("access_log", []obj{logTo(log, "%RESPONSE_FLAGS% %UPSTREAM_HOST% %DOWNSTREAM_LOCAL_CLOSE_REASON%\n")}).set("max_connect_attempts", 3)
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c").with(threshold("max_connections", 0))}))
		r.dial("l").end()
		r.logged(log, 1)
		r.moved(ofClusterNoBytes)
	}},
	{"reject_per_host_limit_of_requests", func(r *run) {
		r.rejects(static([]obj{proxyTo("l", "c")}, []obj{cluster("c").with(obj{"circuit_breakers": obj{"per_host_thresholds": []obj{{"max_connections": 1, "max_requests": 1}}}})}), "Unsupported field in per_host_thresholds")
	}},
	{"per_host_limit_of_the_other_priority", func(r *run) {
		c := cluster("c", endpoint(r.serve("server", peer.Echo))).with(obj{"circuit_breakers": obj{"per_host_thresholds": []obj{{"priority": "HIGH", "max_connections": 1}}}})
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		one := r.dial("l").as("first").send("1").expect("1")
		two := r.dial("l").as("second").send("2").expect("2")
		one.leave()
		two.leave()
		r.movedByConnections()
		r.breakers("c")
	}},
}

// breakersShown notes the figures of c's breakers.
func (r *run) breakersShown() {
	r.Helper()
	var out []string
	for name, v := range r.stats() {
		if p, ok := strings.CutPrefix(name, "cluster.c.circuit_breakers."); ok {
			out = append(out, fmt.Sprint(p, " ", v))
		}
	}
	sortedNotes(r, out)
}

// breakers notes what /clusters says of a cluster's limits.
func (r *run) breakers(cluster string) {
	r.Helper()
	body, _, err := r.proxy.get("/clusters")
	if err != nil {
		r.Fatal(err)
	}
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, cluster+"::") && strings.Contains(line, "_priority::") {
			r.note("%s", strings.TrimSpace(line))
		}
	}
}

func sortedNotes(r *run, out []string) {
	r.Helper()
	slices.Sort(out)
	for _, l := range out {
		r.note("%s", l)
	}
}

// figuresOf notes what /clusters counts of a cluster's hosts, once it is as recorded.
func (r *run) figuresOf(cluster string) {
	r.Helper()
	out := r.countedOf(cluster)
	next := r.expect[min(len(r.record), len(r.expect)):]
	for deadline := time.Now().Add(3 * time.Second); len(next) > 0 && !slices.Equal(out, next[:min(len(out), len(next))]) && time.Now().Before(deadline); out = r.countedOf(cluster) {
		time.Sleep(10 * time.Millisecond)
	}
	for _, l := range out {
		r.note("%s", l)
	}
}

func (r *run) countedOf(cluster string) []string {
	r.Helper()
	body, _, err := r.proxy.get("/clusters")
	if err != nil {
		r.Fatal(err)
	}
	of := map[string][]string{}
	for line := range strings.Lines(body) {
		p := strings.Split(strings.TrimSpace(line), "::")
		if len(p) == 4 && p[0] == cluster && (strings.HasPrefix(p[2], "cx_") || strings.HasPrefix(p[2], "rq_")) && p[3] != "0" {
			of[p[1]] = append(of[p[1]], p[2]+" "+p[3])
		}
	}
	var out []string
	for host, figures := range of {
		out = append(out, r.rename(host)+": "+strings.Join(figures, ", "))
	}
	slices.Sort(out)
	return out
}

// counted is a story of what /clusters says of a host after one connection.
func counted(name string, config func(r *run) obj, p obj, more obj, act func(r *run)) scenario {
	return scenario{"figures_of_a_host_" + name, func(r *run) {
		r.start(static([]obj{listener("l", chain(p))}, []obj{config(r).with(more)}))
		act(r)
		time.Sleep(breath)
		r.figuresOf("c")
		r.moved(ofClusterNoBytes, `cluster\.c\.upstream_rq_cancelled`)
	}}
}

func toA(h peer.Handler) func(*run) obj {
	return func(r *run) obj { return cluster("c", endpoint(r.serve("server", h))) }
}

func toAHole(r *run) obj {
	h := r.hole()
	r.call(h.Addr(), "hole")
	return cluster("c", endpoint(h.Addr()))
}

var hostFigures = []scenario{
	counted("that_is_silent", toAHole, tcpProxy("c"), obj{"connect_timeout": "0.5s"}, func(r *run) { r.dial("l").end() }),
	counted("while_connecting", toAHole, tcpProxy("c"), nil, func(r *run) { r.dial("l"); r.stand("cluster.c.upstream_rq_pending_active", 1) }),
	counted("given_up_for_age", toAHole, tcpProxy("c").set("max_downstream_connection_duration", "0.5s"), nil, func(r *run) { r.dial("l").end() }),
	counted("whose_connection_idles", toA(peer.Echo), tcpProxy("c").set("idle_timeout", "0.5s"), nil, func(r *run) { r.dial("l").send("1").expect("1").end() }),
	counted("that_resets", toA(peer.ResetAfter("hi", 1, breath)), tcpProxy("c"), nil, func(r *run) { r.dial("l").send("1").expect("hi").end() }),
	counted("that_closes", toA(peer.CloseAfter("hi", 1, 0)), tcpProxy("c"), nil, func(r *run) { r.dial("l").send("1").end() }),
	counted("whose_client_resets", toA(peer.Echo), tcpProxy("c"), nil, func(r *run) { r.dial("l").send("1").expect("1").reset(); r.stand("cluster.c.upstream_cx_active", 0) }),
}

// gatheredLimits: an aggregate's own breakers and figures, and its members'.
var gatheredLimits = []scenario{
	{"aggregate_with_no_connections_allowed", func(r *run) {
		log := r.logFile("tcp")
		p := tcpProxy("agg").set("access_log", []obj{logTo(log, "%RESPONSE_FLAGS% %UPSTREAM_CLUSTER%\n")})
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("a", r.banners("a")...), aggregateOf("agg", "a").with(threshold("max_connections", 0))}))
		r.dial("l").end()
		r.logged(log, 1)
		r.moved(ofClusterNoBytes)
	}},
	{"aggregate_with_one_connection_allowed", func(r *run) {
		r.start(static([]obj{proxyTo("l", "agg")}, []obj{cluster("a", endpoint(r.serve("server", peer.Echo))), aggregateOf("agg", "a").with(threshold("max_connections", 1))}))
		r.dial("l").as("first").send("1").expect("1")
		r.dial("l").as("second").send("2").expect("2")
		r.moved(ofClusterNoBytes, `cluster\.[^.]+\.circuit_breakers.+`)
	}},
	{"aggregate_whose_member_is_full", func(r *run) {
		r.start(static([]obj{proxyTo("l", "agg")}, []obj{cluster("a", endpoint(r.serve("server", peer.Echo))).with(threshold("max_connections", 1)), aggregateOf("agg", "a")}))
		one := r.dial("l").as("first").send("1").expect("1")
		two := r.dial("l").as("second").send("2")
		r.waiting("a", 1)
		r.moved(`cluster\.[^.]+\.circuit_breakers.+`)
		one.leave()
		two.expect("2")
		r.moved(ofClusterNoBytes)
	}},
	{"aggregate_whose_member_lets_none", func(r *run) {
		r.start(static([]obj{proxyTo("l", "agg")}, []obj{cluster("a", endpoint(r.serve("server", peer.Echo))).with(threshold("max_connections", 0)), aggregateOf("agg", "a")}))
		r.dial("l").as("first").send("1").expect("1")
		r.moved(ofClusterNoBytes, `cluster\.[^.]+\.circuit_breakers.+`)
	}},
	{"aggregate_whose_member_has_enough_pending", func(r *run) {
		log := r.logFile("tcp")
		p := tcpProxy("agg").set("access_log", []obj{logTo(log, "%RESPONSE_FLAGS% %UPSTREAM_CLUSTER%\n")})
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("a", endpoint(r.hole().Addr())).with(threshold("max_pending_requests", 1)).with(obj{"connect_timeout": "2s"}), aggregateOf("agg", "a")}))
		r.dial("l").as("first")
		r.stand("cluster.a.upstream_rq_pending_active", 1)
		r.dial("l").as("second").end()
		r.logged(log, 1)
		r.moved(ofClusterNoBytes, `cluster\.[^.]+\.circuit_breakers.+`)
	}},
	{"aggregate_whose_member_refuses", func(r *run) {
		log := r.logFile("tcp")
		p := tcpProxy("agg").set("max_connect_attempts", 2).set("access_log", []obj{logTo(log, "%RESPONSE_FLAGS% %UPSTREAM_CLUSTER% %UPSTREAM_HOST% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n")})
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("a", endpoint(r.nobody("dead"))), aggregateOf("agg", "a")}))
		r.dial("l").end()
		r.logged(log, 1)
		r.figuresOf("a")
		r.figuresOf("agg")
		r.moved(ofClusterNoBytes)
	}},
	{"aggregate_timeout_is_the_members", func(r *run) {
		r.start(static([]obj{proxyTo("l", "agg")}, []obj{cluster("a", endpoint(r.hole().Addr())).with(obj{"connect_timeout": "1s"}), aggregateOf("agg", "a").with(obj{"connect_timeout": "0.3s"})}))
		r.dial("l").end()
		r.moved(ofClusterNoBytes)
	}},
}

// breakerStories: what updates make of limits, and of the connections that are there.
var breakerStories = []story{
	{"breakers_changed_by_an_update", func(s *stream) {
		c := func(n int) obj { return cluster("c", s.banner("one")).with(threshold("max_connections", n)) }
		s.ready([]obj{c(1)}, proxyTo("l", "c"))
		first := s.serves("l", "one")
		s.serves("l", "FIN")
		s.cds("2", c(2))
		s.serves("l", "one")
		s.serves("l", "one")
		s.serves("l", "FIN")
		first.send("still\n").expect("still\n")
		s.moved(`cluster\.c\.upstream_cx_(active|total)`, anyBreaker)
	}},
	{"per_host_limit_taken_away_by_an_update", func(s *stream) {
		at := s.banner("one")
		s.ready([]obj{cluster("c", at).with(perHost(1))}, proxyTo("l", "c"))
		first := s.serves("l", "one")
		second := s.once("l")
		s.waiting("c", 1)
		s.cds("2", cluster("c", at))
		s.serves("l", "one")
		s.waiting("c", 1)
		first.send("still\n").expect("still\n").leave()
		s.note("second: %s", s.hello(second))
		s.moved(ofWaiting)
	}},
	{"host_set_change_closes_nothing", func(s *stream) { s.changesHosts(obj{"close_connections_on_host_set_change": true}, false) }},
	{"host_set_change_and_a_host_that_goes", func(s *stream) { s.changesHosts(obj{"close_connections_on_host_set_change": true}, true) }},
	{"host_set_change_with_a_full_host", func(s *stream) {
		one := s.banner("one")
		s.open()
		s.cds("1", edsCluster("c").with(perHost(1)).with(obj{"common_lb_config": obj{"close_connections_on_host_set_change": true}}))
		s.eds("1", assignment("c", one))
		s.lds("1", proxyTo("l", "c"))
		s.serves("l", "one")
		s.once("l")
		s.waiting("c", 1)
		s.eds("2", assignment("c", one, s.banner("two").with(obj{"health_status": "UNHEALTHY"})))
		s.stand("cluster.c.membership_total", 2)
		s.once("l")
		s.waiting("c", 2)
	}},
	{"full_host_that_goes", func(s *stream) {
		one := s.banner("one")
		s.open()
		s.cds("1", edsCluster("c").with(perHost(1)))
		s.eds("1", assignment("c", one))
		s.lds("1", proxyTo("l", "c"))
		first := s.serves("l", "one")
		second := s.once("l")
		s.waiting("c", 1)
		s.eds("2", assignment("c"))
		s.stand("cluster.c.membership_total", 0)
		s.waiting("c", 1)
		first.send("still\n").expect("still\n").leave()
		s.note("second: %s", s.hello(second))
		s.moved(ofWaiting)
	}},
}

// changesHosts changes the hosts of a cluster under open connections.
func (s *stream) changesHosts(common obj, goes bool) {
	s.Helper()
	one, two := s.banner("one"), s.banner("two")
	s.open()
	s.cds("1", edsCluster("c").with(obj{"common_lb_config": common}))
	s.eds("1", assignment("c", one))
	s.lds("1", proxyTo("l", "c"))
	c := s.serves("l", "one")
	if goes {
		s.eds("2", assignment("c", two))
	} else {
		s.eds("2", assignment("c", one, two))
	}
	s.serves("l", "two")
	c.send("still\n").expect("still\n").fin().end()
	s.moved(`cluster\.c\.membership_total`)
}

// hashingPolicy is a typed policy that says itself what is hashed.
func hashingPolicy(kind string, hashing obj) obj {
	return obj{"load_balancing_policy": typedPolicy(kind, obj{"consistent_hashing_lb_config": hashing})}
}

var bySource = []obj{{"connection_properties": obj{"source_ip": true}}}

// hashed is a story of thirty clients, and of who hashes them.
func hashed(name, kind string, hashing obj, p func(obj) obj) scenario {
	return scenario{"hash_policy_" + name, func(r *run) {
		c := cluster("c", r.keyed("a", "b", "c", "d")...).with(hashingPolicy(kind, hashing))
		r.start(static([]obj{listener("l", chain(p(tcpProxy("c"))))}, []obj{c}))
		r.clients("l", 30)
	}}
}

func asItIs(p obj) obj { return p }

// fixed hashes an object that all connections have alike.
func fixed(p obj) obj {
	return p.set("hash_policy", []obj{{"filter_state": obj{"key": "no.such.key"}}})
}

var hashPolicies = []scenario{
	hashed("of_a_ring", "ring_hash.v3.RingHash", obj{"hash_policy": bySource}, asItIs),
	hashed("of_maglev", "maglev.v3.Maglev", obj{"hash_policy": bySource}, asItIs),
	hashed("beside_tcp_proxys", "ring_hash.v3.RingHash", obj{"hash_policy": bySource}, fixed),
	{"hash_policy_of_headers_beside_tcp_proxys", func(r *run) {
		c := cluster("c", r.keyed("a", "b", "c", "d")...).with(hashingPolicy("ring_hash.v3.RingHash", obj{"hash_policy": []obj{{"header": obj{"header_name": "x"}}}}))
		r.start(static([]obj{listener("l", chain(bySourceIP()))}, []obj{c}))
		r.note("all: %t", len(r.shares("l", 60)) == 4)
	}},
	{"hash_policy_by_filter_state", func(r *run) {
		set := obj{"name": "envoy.filters.network.set_filter_state", "typed_config": obj{
			"@type":             "type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config",
			"on_new_connection": []obj{{"object_key": "k", "factory_key": "envoy.hashable_string", "format_string": obj{"text_format_source": obj{"inline_string": "same"}}}}}}
		c := cluster("c", r.keyed("a", "b", "c", "d")...).with(hashingPolicy("maglev.v3.Maglev", obj{"hash_policy": []obj{{"filter_state": obj{"key": "k"}}}}))
		r.start(static([]obj{listener("l", chain(set, tcpProxy("c")))}, []obj{c}))
		r.clients("l", 10)
	}},
	{"hash_policy_of_two", func(r *run) {
		set := obj{"name": "envoy.filters.network.set_filter_state", "typed_config": obj{
			"@type":             "type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config",
			"on_new_connection": []obj{{"object_key": "k", "factory_key": "envoy.hashable_string", "format_string": obj{"text_format_source": obj{"inline_string": "same"}}}}}}
		two := []obj{{"filter_state": obj{"key": "k"}}, {"connection_properties": obj{"source_ip": true}}}
		terminal := []obj{{"filter_state": obj{"key": "k"}, "terminal": true}, {"connection_properties": obj{"source_ip": true}}}
		c := cluster("c", r.keyed("a", "b", "c", "d")...).with(hashingPolicy("maglev.v3.Maglev", obj{"hash_policy": two}))
		d := cluster("d", r.keyed("a", "b", "c", "d")...).with(hashingPolicy("maglev.v3.Maglev", obj{"hash_policy": terminal}))
		r.start(static([]obj{listener("l", chain(set, tcpProxy("c"))), listener("m", chain(set, tcpProxy("d")))}, []obj{c, d}))
		r.clients("l", 20)
		r.clients("m", 20)
	}},
	{"hash_bounded_load_typed", func(r *run) {
		c := cluster("c", r.keyed("a", "b", "c", "d")...).with(hashingPolicy("ring_hash.v3.RingHash", obj{"hash_balance_factor": 100, "hash_policy": bySource}))
		r.start(static([]obj{listener("l", chain(tcpProxy("c")))}, []obj{c}))
		got := ""
		for range 16 { // one client, whose connections all stay
			name := make([]byte, 1)
			c := r.dial("l")
			if _, err := c.Read(name); err != nil {
				r.note("read: %v", err)
			}
			got += string(name)
		}
		r.note("one client got %s", got)
	}},
	{"hash_policy_by_names_of_hosts", func(r *run) {
		eps := r.banners("a", "b", "c", "d")
		for i, e := range eps {
			e["endpoint"].(obj)["hostname"] = fmt.Sprint("host-", i)
		}
		r.start(static([]obj{listener("l", chain(tcpProxy("c")))}, []obj{cluster("c", eps...).with(hashingPolicy("ring_hash.v3.RingHash", obj{"use_hostname_for_hashing": true, "hash_policy": bySource}))}))
		r.clients("l", 30)
	}},
	{"hash_policy_names_for_hashing_typed", func(r *run) {
		r.rejects(static([]obj{proxyTo("l", "c")}, []obj{cluster("c").with(hashingPolicy("ring_hash.v3.RingHash", obj{"use_hostname_for_hashing": true}))}), "Cannot use hostname")
	}},
}
