package parity

import (
	"fmt"
	"strings"

	"github.com/sluice-proxy/sluice/test/peer"
)

// banners starts a back end per name, whose banner is its name.
func (r *run) banners(names ...string) []obj {
	var eps []obj
	for _, n := range names {
		eps = append(eps, endpoint(r.serve(n, peer.Banner(n))))
	}
	return eps
}

// shares dials n times and counts the banners, which have one letter.
func (r *run) shares(listener string, n int) map[string]int {
	got := map[string]int{}
	at := r.bound(listener)
	for range n {
		c := r.dialAt(at).fin()
		data, _, err := peer.ReadToEnd(c, 4e9)
		if err != nil {
			r.note("error %v", err)
		}
		got[string(data)]++
	}
	return got
}

// about notes that every host got its share of n, give or take slack.
func (r *run) about(got map[string]int, n int, slack float64, want map[string]float64) {
	for name, share := range want {
		off := float64(got[name])/float64(n) - share
		if off < -slack || off > slack {
			r.note("%s got %d of %d", name, got[name], n)
		}
	}
	var strangers []string
	for name := range got {
		if _, ok := want[name]; !ok {
			strangers = append(strangers, name)
		}
	}
	r.note("shares as wanted but for the above; others: %s", strings.Join(strangers, " "))
}

// choices: which host is picked.
var choices = []scenario{
	{"round_robin_equal", func(r *run) {
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", r.banners("a", "b", "c")...)}))
		r.note("%v", r.shares("l", 30))
		r.movedByConnections()
	}},
	{"round_robin_weighted", func(r *run) {
		eps := r.banners("a", "b")
		eps[0].with(obj{"load_balancing_weight": 3})
		eps[1].with(obj{"load_balancing_weight": 1})
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", eps...)}))
		r.note("%v", r.shares("l", 40))
		r.moved(`cluster\.c\.(upstream_cx_total|max_host_weight)`)
	}},
	{"least_request_avoids_the_busy", func(r *run) {
		c := cluster("c", r.banners("a", "b")...).with(obj{"lb_policy": "LEAST_REQUEST", "least_request_lb_config": obj{"choice_count": 10}})
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		busy := r.dial("l")
		name := make([]byte, 1)
		if _, err := busy.Read(name); err != nil {
			r.note("first: %v", err)
		}
		n := r.shares("l", 40)[string(name)]
		r.note("the busy host gets few: %t", n <= 4)
		busy.fin().end()
		r.moved(`cluster\.c\.upstream_cx_total`)
	}},
	{"random_reaches_all", func(r *run) {
		c := cluster("c", r.banners("a", "b")...).with(obj{"lb_policy": "RANDOM"})
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.about(r.shares("l", 200), 200, .2, map[string]float64{"a": .5, "b": .5})
		r.moved(`cluster\.c\.upstream_cx_total`)
	}},
	{"health_status_rules_hosts_out", func(r *run) {
		eps := r.banners("h", "u", "x", "n", "t", "d")
		for i, s := range []string{"HEALTHY", "UNKNOWN", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"} {
			eps[i].with(obj{"health_status": s})
		}
		c := cluster("c", eps...).with(noPanic())
		// With this factor two of six healthy hosts are enough.
		c["load_assignment"].(obj).with(obj{"policy": obj{"overprovisioning_factor": 300}})
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.note("%v", r.shares("l", 40))
		r.moved(`cluster\.c\.upstream_cx_total`)
		for name, v := range r.stats() {
			if strings.HasPrefix(name, "cluster.c.membership_") {
				r.record = append(r.record, fmt.Sprintf("%s %d", name, v))
			}
		}
		r.sortLast(5)
	}},
	{"panic_ignores_health", func(r *run) {
		eps := r.banners("h", "x", "n")
		eps[1].with(obj{"health_status": "UNHEALTHY"})
		eps[2].with(obj{"health_status": "DRAINING"})
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", eps...)}))
		r.note("%v", r.shares("l", 30))
		r.moved(`cluster\.c\.(upstream_cx_total|lb_healthy_panic)`)
	}},
	{"lower_priority_takes_over", func(r *run) {
		eps := r.banners("a", "b")
		eps[0].with(obj{"health_status": "UNHEALTHY"})
		c := cluster("c")
		c["load_assignment"].(obj)["endpoints"] = []obj{
			{"priority": 0, "lb_endpoints": eps[:1]}, {"priority": 1, "lb_endpoints": eps[1:]}}
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.note("%v", r.shares("l", 20))
		r.moved(`cluster\.c\.(upstream_cx_total|lb_healthy_panic)`)
	}},
	{"priorities_share_by_overprovisioning", func(r *run) {
		eps := r.banners("a", "x", "b")
		eps[1].with(obj{"health_status": "UNHEALTHY"})
		c := cluster("c")
		c["load_assignment"].(obj)["endpoints"] = []obj{
			{"priority": 0, "lb_endpoints": eps[:2]}, {"priority": 1, "lb_endpoints": eps[2:]}}
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.about(r.shares("l", 300), 300, .1, map[string]float64{"a": .7, "b": .3})
		r.moved(`cluster\.c\.(upstream_cx_total|lb_healthy_panic)`)
	}},
}

// chains: which filter chain is taken, and what none means.
var chains = []scenario{
	{"chains_by_destination_port", func(r *run) {
		eps := r.banners("exact", "any")
		one, two := freePort(r, "127.0.0.1"), freePort(r, "127.0.0.1")
		l := listener("l",
			chain(tcpProxy("exact")).with(onPort(int(one.Port()))),
			chain(tcpProxy("any"))).with(obj{
			"address": address(one), "additional_addresses": []obj{{"address": address(two)}},
			"default_filter_chain": chain(tcpProxy("nosuch"))})
		r.start(static([]obj{l}, []obj{cluster("exact", eps[0]), cluster("any", eps[1])}))
		r.dialAt(one).as("to the port of a chain").fin().end()
		r.dialAt(two).as("to another port").fin().end()
		r.movedByConnections()
	}},
	{"default_filter_chain", func(r *run) {
		l := listener("l", chain(tcpProxy("nosuch")).with(onPort(1))).with(obj{"default_filter_chain": chain(tcpProxy("c"))})
		r.start(static([]obj{l}, []obj{cluster("c", r.banners("default")...)}))
		r.dial("l").fin().end()
		r.movedByConnections()
	}},
	{"no_chain_matches", func(r *run) {
		l := listener("l", chain(tcpProxy("c")).with(onPort(1)))
		r.start(static([]obj{l}, []obj{cluster("c", r.banners("a")...)}))
		r.silentAndTalking("l")
		r.movedByConnections()
	}},
	{"empty_filter_list", func(r *run) {
		r.start(static([]obj{listener("l", chain())}, nil))
		r.silentAndTalking("l")
		r.movedByConnections()
	}},
	{"additional_address_serves_too", func(r *run) {
		l := proxyTo("l", "c").with(obj{"additional_addresses": []obj{{"address": address(freePort(r, "::1"))}}})
		r.start(static([]obj{l}, []obj{cluster("c", r.banners("a")...)}))
		r.bound("l")
		bound, err := r.proxy.listening()
		if err != nil {
			r.Fatal(err)
		}
		for _, ap := range bound["l"] {
			r.dialAt(ap).fin().end()
		}
		r.movedByConnections()
	}},
}

func onPort(p int) obj { return obj{"filter_chain_match": obj{"destination_port": p}} }
