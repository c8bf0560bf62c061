package parity

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_dynamic_forward_proxy/v3"

	"github.com/sluice-proxy/sluice/test/nameserver"
	"github.com/sluice-proxy/sluice/test/peer"
	"github.com/sluice-proxy/sluice/test/pki"
)

const (
	ofCache  = `dns_cache\.names\..*`
	ofNamed  = `cluster\.c\.(membership_(total|healthy|change)|max_host_weight|update_.*|upstream_cx_(total|none_healthy|connect_fail|overflow|destroy.*))`
	nameLog  = "%RESPONSE_FLAGS% %UPSTREAM_HOST% %UPSTREAM_HOST_NAME% %UPSTREAM_CLUSTER% %DOWNSTREAM_LOCAL_CLOSE_REASON% %CONNECTION_TERMINATION_DETAILS% %BYTES_RECEIVED% %FILTER_STATE(envoy.upstream.dynamic_port:PLAIN)% %FILTER_STATE(envoy.stream.upstream_address:PLAIN)%\n"
	dfpType  = "type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig"
	dynHost  = "envoy.upstream.dynamic_host"
	dynPort  = "envoy.upstream.dynamic_port"
	nameless = "no TLS, no name"
	unlikely = 1 // a port that nobody listens on
)

// names is a cache of names that s knows.
func names(s *nameserver.Server, more obj) obj {
	return obj{"name": "names", "dns_lookup_family": "V4_ONLY", "typed_dns_resolver_config": askedAt(s)}.with(more)
}

// forwarded is a cluster of the hosts that connections name.
func forwarded(name string, config obj) obj {
	return obj{"name": name, "connect_timeout": "5s", "lb_policy": "CLUSTER_PROVIDED",
		"cluster_type": obj{"name": "envoy.clusters.dynamic_forward_proxy", "typed_config": obj{"@type": dfpType}.with(config)}}
}

func forwardedBy(cache obj) obj { return forwarded("c", obj{"dns_cache_config": cache}) }

// sniForward is the filter that waits for names; port 0 leaves that out.
func sniForward(cache obj, port uint16, more obj) obj {
	c := obj{"dns_cache_config": cache}
	if port > 0 {
		c["port_value"] = port
	}
	return network("sni_dynamic_forward_proxy", "FilterConfig", c.with(more))
}

// forward starts a proxy to the names of clients; its log is called tcp.
func (r *run) forward(cluster obj, filters ...obj) (log string) {
	log = r.logFile("tcp")
	p := tcpProxy("c").set("access_log", []obj{logTo(log, nameLog)})
	r.start(static([]obj{behindInspector(chain(append(filters, p)...))}, []obj{cluster}))
	return log
}

// asking connects and asks for a name.
func (r *run) asking(name string) *client { return r.dial("l").as(name).send(clientHello(name)) }

// untilCache waits for a figure of the cache to be at least n.
func (r *run) untilCache(figure string, n int64) {
	r.Helper()
	for deadline := time.Now().Add(6 * time.Second); r.stats()["dns_cache.names."+figure] < n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.note("%s does not reach %d", figure, n)
			return
		}
	}
}

// named starts a back end; its port has a name too.
func (r *run) named(addr, banner string) netip.AddrPort {
	a := r.on(addr, banner, 0)
	r.callPort(a.Port())
	return a
}

func (r *run) callPort(port uint16) { r.names = append(r.names, decimal(port), "<port>") }

func decimal(port uint16) string { return strconv.Itoa(int(port)) }

// forwarding: clusters whose hosts are the names that connections bring.
var forwarding = []scenario{
	{"forward_proxy_by_server_name", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.1")}, TTL: 60})
		a := r.named("127.0.1.1", "a")
		r.on("127.0.1.2", "b", a.Port())
		s.Put("two.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.2")}, TTL: 60})
		log := r.forward(forwardedBy(names(s, nil)), sniForward(names(s, nil), a.Port(), nil))
		r.note("%d hosts at the start", r.stats()["cluster.c.membership_total"])
		r.asking("one.test").expect("a").leave()
		r.asking("one.test").expect("a").leave()
		r.asking("two.test").expect("b").leave()
		r.hosts(2)
		r.logged(log, 3)
		r.moved(ofCache, ofNamed, ofTCPNoBytes)
		r.note("questions: %d", s.Asked("one.test"))
	}},
	{"forward_proxy_without_a_name", func(r *run) {
		s := r.nameserver()
		log := r.forward(forwardedBy(names(s, nil)), sniForward(names(s, nil), unlikely, nil))
		r.dial("l").send(nameless).end()
		r.logged(log, 1)
		r.moved(ofCache, ofNamed, ofTCPNoBytes)
	}},
	{"forward_proxy_name_that_is_unknown", func(r *run) {
		s := r.nameserver()
		log := r.forward(forwardedBy(names(s, nil)), sniForward(names(s, nil), unlikely, nil))
		r.asking("none.test").end()
		r.asking("none.test").end()
		r.hosts(0)
		r.logged(log, 2)
		r.moved(ofCache, ofNamed, ofTCPNoBytes)
	}},
	{"forward_proxy_name_that_comes_to_be_known", func(r *run) {
		s := r.nameserver()
		a := r.named("127.0.1.11", "a")
		cache := names(s, obj{"dns_refresh_rate": "1s"})
		r.forward(forwardedBy(cache), sniForward(cache, a.Port(), nil))
		r.asking("one.test").end()
		s.Set("one.test", "127.0.1.11")
		r.untilCache("host_address_changed", 1)
		r.asking("one.test").expect("a").leave()
		r.moved(`dns_cache\.names\.(host_.*|num_hosts|dns_query_failure)`, ofNamed)
	}},
	{"forward_proxy_resolution_fails", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Code: 2})
		a := r.named("127.0.1.21", "a")
		cache := names(s, obj{"dns_min_refresh_rate": "1s", "dns_failure_refresh_rate": obj{"base_interval": "0.3s", "max_interval": "0.3s"}})
		log := r.forward(forwardedBy(cache), sniForward(cache, a.Port(), nil))
		r.asking("one.test").end()
		r.untilCache("dns_query_failure", 2)
		s.Set("one.test", "127.0.1.21")
		r.untilCache("dns_query_success", 1)
		r.asking("one.test").expect("a").leave()
		r.logged(log, 2)
		r.moved(`dns_cache\.names\.(host_.*|num_hosts|dns_query_(success|timeout))`, ofNamed)
	}},
	{"forward_proxy_failure_is_not_asked_again", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Code: 2})
		a := r.named("127.0.1.31", "a")
		cache := names(s, obj{"disable_dns_refresh_on_failure": true, "dns_failure_refresh_rate": obj{"base_interval": "0.1s", "max_interval": "0.1s"}})
		r.forward(forwardedBy(cache), sniForward(cache, a.Port(), nil))
		r.asking("one.test").end()
		time.Sleep(breath)
		r.note("questions: %d", r.stats()["dns_cache.names.dns_query_attempt"])
		s.Set("one.test", "127.0.1.31")
		r.asking("one.test").expect("a").leave()
		r.moved(ofCache, ofNamed)
	}},
	{"forward_proxy_bytes_wait_for_the_name", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.41")}, Delay: 600 * time.Millisecond, TTL: 60})
		a := r.serveOn("127.0.1.41:0", "a", peer.Echo)
		r.callPort(a.Port())
		log := r.forward(forwardedBy(names(s, nil)), sniForward(names(s, nil), a.Port(), nil))
		hello := clientHello("one.test")
		one, two := r.dial("l").as("one").send(hello+" and more"), r.dial("l").as("two").send(hello)
		r.note("pending: %d of 1024 left", r.untilPending(2))
		r.untilCache("dns_query_success", 1)
		one.leave()
		two.leave()
		r.logged(log, 2)
		r.moved(ofCache, ofNamed)
	}},
	{"forward_proxy_client_leaves_while_the_name_is_resolved", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.51")}, Delay: 700 * time.Millisecond, TTL: 60})
		a := r.named("127.0.1.51", "a")
		log := r.forward(forwardedBy(names(s, nil)), sniForward(names(s, nil), a.Port(), nil))
		c := r.asking("one.test")
		r.untilPending(1)
		c.fin()
		r.untilCache("dns_query_success", 1)
		r.mark()
		c.end()
		r.logged(log, 1)
		r.moved(ofCache, ofNamed)
	}},
	{"forward_proxy_answer_does_not_come", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Silent: true})
		cache := names(s, obj{"dns_query_timeout": "0.5s"})
		log := r.forward(forwardedBy(cache), sniForward(cache, unlikely, nil))
		r.asking("one.test").end()
		r.logged(log, 1)
		r.moved(ofCache, ofNamed, ofTCPNoBytes)
	}},
	{"forward_proxy_too_many_names", func(r *run) {
		s := r.nameserver()
		a := r.named("127.0.1.61", "a")
		s.Set("one.test", "127.0.1.61")
		s.Set("two.test", "127.0.1.61")
		cache := names(s, obj{"max_hosts": 1})
		log := r.forward(forwardedBy(cache), sniForward(cache, a.Port(), nil))
		r.asking("one.test").expect("a").leave()
		r.asking("two.test").end()
		r.asking("one.test").expect("a").leave()
		r.logged(log, 3)
		r.moved(ofCache, ofNamed, ofTCPNoBytes)
	}},
	{"forward_proxy_nobody_may_wait", func(r *run) {
		s := r.nameserver()
		cache := names(s, obj{"dns_cache_circuit_breaker": obj{"max_pending_requests": 0}})
		log := r.forward(forwardedBy(cache), sniForward(cache, unlikely, nil))
		r.note("open %d, remaining %d", r.stats()["dns_cache.names.circuit_breakers.rq_pending_open"], r.stats()["dns_cache.names.circuit_breakers.rq_pending_remaining"])
		r.asking("one.test").end()
		r.logged(log, 1)
		r.moved(ofCache, ofNamed, ofTCPNoBytes)
	}},
	{"forward_proxy_one_may_wait", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.71")}, Delay: 700 * time.Millisecond, TTL: 60})
		a := r.named("127.0.1.71", "a")
		cache := names(s, obj{"dns_cache_circuit_breaker": obj{"max_pending_requests": 1}})
		log := r.forward(forwardedBy(cache), sniForward(cache, a.Port(), nil))
		one := r.asking("one.test")
		r.untilCache("circuit_breakers.rq_pending_open", 1)
		r.asking("one.test").as("another").end()
		one.expect("a").leave()
		r.logged(log, 2)
		r.moved(ofCache, ofNamed, ofTCPNoBytes)
	}},
	{"forward_proxy_names_that_nobody_wants_go", func(r *run) {
		s := r.nameserver()
		s.Set("one.test", "127.0.1.81")
		a := r.named("127.0.1.81", "a")
		cache := names(s, obj{"host_ttl": "0.5s", "dns_min_refresh_rate": "1s"})
		r.forward(forwardedBy(cache), sniForward(cache, a.Port(), nil))
		old := r.asking("one.test").expect("a")
		r.hosts(1)
		r.untilCache("host_removed", 1)
		r.hosts(0)
		r.asking("one.test").expect("a").leave()
		old.leave()
		r.moved(`dns_cache\.names\.(host_(added|address_changed)|dns_query_failure)`, `cluster\.c\.(membership_change|upstream_cx_total)`)
	}},
	{"forward_proxy_name_moves", func(r *run) {
		s := r.nameserver()
		s.Set("one.test", "127.0.1.91")
		a := r.named("127.0.1.91", "a")
		r.on("127.0.1.92", "b", a.Port())
		cache := names(s, obj{"dns_min_refresh_rate": "1s"})
		log := r.forward(forwardedBy(cache), sniForward(cache, a.Port(), nil))
		old := r.asking("one.test").as("old").expect("a")
		s.Set("one.test", "127.0.1.92")
		r.untilCache("host_address_changed", 2)
		r.asking("one.test").as("new").expect("b").leave()
		r.hosts(1)
		old.leave()
		r.logged(log, 2)
		r.moved(`dns_cache\.names\.(host_.*|num_hosts)`, ofNamed)
		r.figuresOfHost()
	}},
	{"forward_proxy_name_that_is_gone_keeps_its_address", func(r *run) {
		s := r.nameserver()
		s.Set("one.test", "127.0.1.101")
		a := r.named("127.0.1.101", "a")
		cache := names(s, obj{"dns_min_refresh_rate": "1s", "dns_refresh_rate": "1s"})
		r.forward(forwardedBy(cache), sniForward(cache, a.Port(), nil))
		r.asking("one.test").expect("a").leave()
		s.Remove("one.test")
		r.untilCache("dns_query_success", 2)
		r.asking("one.test").expect("a").leave()
		r.moved(`dns_cache\.names\.(host_.*|num_hosts|dns_query_failure)`, ofNamed)
	}},
	{"forward_proxy_names_known_before", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.111")}, TTL: 60})
		a := r.named("127.0.1.111", "a")
		cache := names(s, obj{"preresolve_hostnames": []obj{{"address": "one.test", "port_value": a.Port()}, {"address": "one.test", "port_value": 7}}})
		r.forward(forwardedBy(cache), sniForward(cache, a.Port(), nil))
		r.untilCache("host_address_changed", 2)
		r.hosts(2)
		r.asking("one.test").expect("a").leave()
		r.note("questions: %d", r.stats()["dns_cache.names.dns_query_attempt"])
	}},
	{"forward_proxy_several_addresses", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.121"), netip.MustParseAddr("127.0.1.122")}, TTL: 60})
		b := r.named("127.0.1.122", "b")
		r.call(netip.AddrPortFrom(netip.MustParseAddr("127.0.1.121"), b.Port()), "nobody")
		log := r.forward(forwardedBy(names(s, nil)), sniForward(names(s, nil), b.Port(), nil))
		r.asking("one.test").expect("b").leave()
		r.hosts(1)
		r.logged(log, 1)
		r.moved(ofCache, ofNamed)
	}},
	{"forward_proxy_nobody_listens", func(r *run) {
		s := r.nameserver()
		s.Set("one.test", "127.0.1.131")
		port := freePort(r.TB, "127.0.1.131").Port()
		r.call(netip.AddrPortFrom(netip.MustParseAddr("127.0.1.131"), port), "nobody")
		r.callPort(port)
		log := r.forward(forwardedBy(names(s, nil)), sniForward(names(s, nil), port, nil))
		r.asking("one.test").end()
		r.logged(log, 1)
		r.moved(ofCache, ofNamed, ofTCPNoBytes)
	}},
	{"forward_proxy_family_all", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.141"), netip.MustParseAddr("::1")}, TTL: 60})
		a := r.on("[::1]", "six", 0)
		r.callPort(a.Port())
		r.on("127.0.1.141", "four", a.Port())
		cache := names(s, obj{"dns_lookup_family": "AUTO"})
		r.forward(forwardedBy(cache), sniForward(cache, a.Port(), nil))
		r.asking("one.test").expect("six").leave()
		r.hosts(1)
	}},
	{"forward_proxy_by_filter_state", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.151")}, TTL: 60})
		a := r.named("127.0.1.151", "a")
		state := setState("on_new_connection", stateValue(dynHost, "one.test", nil), stateValue(dynPort, "%FILTER_STATE(nothing:PLAIN)%", nil))
		log := r.forward(forwardedBy(names(s, nil)), state, sniForward(names(s, nil), a.Port(), obj{"save_upstream_address": true}))
		r.asking("other.test").expect("a").leave()
		r.dial("l").send(nameless).expect("a").leave()
		r.logged(log, 2)
		r.moved(ofCache, ofNamed)
	}},
	{"forward_proxy_port_by_filter_state", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.161")}, TTL: 60})
		a := r.named("127.0.1.161", "a")
		state := setState("on_new_connection", stateValue(dynPort, decimal(a.Port()), nil))
		log := r.forward(forwardedBy(names(s, nil)), state, sniForward(names(s, nil), unlikely, nil))
		r.asking("one.test").expect("a").leave()
		r.hosts(1)
		r.logged(log, 1)
	}},
	{"forward_proxy_host_brings_its_port", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.171")}, TTL: 60})
		a := r.named("127.0.1.171", "a")
		state := setState("on_new_connection", stateValue(dynHost, "one.test:"+decimal(a.Port()), nil))
		log := r.forward(forwardedBy(names(s, nil)), state, sniForward(names(s, nil), unlikely, nil))
		r.dial("l").send(nameless).expect("a").leave()
		r.hosts(1)
		r.logged(log, 1)
	}},
	{"forward_proxy_host_is_an_address", func(r *run) {
		s := r.nameserver()
		a := r.named("127.0.1.181", "a")
		state := setState("on_new_connection", stateValue(dynHost, "127.0.1.181", nil))
		log := r.forward(forwardedBy(names(s, nil)), state, sniForward(names(s, nil), a.Port(), nil))
		r.dial("l").send(nameless).expect("a").leave()
		r.dial("l").send(nameless).expect("a").leave()
		r.hosts(1)
		r.logged(log, 2)
		r.moved(ofCache, ofNamed)
	}},
	{"forward_proxy_host_is_an_address_of_six", func(r *run) {
		s := r.nameserver()
		a := r.on("[::1]", "a", 0)
		r.callPort(a.Port())
		state := setState("on_new_connection", stateValue(dynHost, "[::1]", nil))
		cache := names(s, obj{"dns_lookup_family": "ALL"})
		log := r.forward(forwardedBy(cache), state, sniForward(cache, a.Port(), nil))
		r.dial("l").send(nameless).expect("a").leave()
		r.logged(log, 1)
	}},
	{"forward_proxy_cluster_alone", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.191")}, TTL: 60})
		a := r.named("127.0.1.191", "a")
		state := setState("on_new_connection", stateValue(dynPort, decimal(a.Port()), nil))
		log := r.forward(forwardedBy(names(s, nil)), state)
		r.asking("one.test").end()
		r.untilCache("host_address_changed", 1)
		r.asking("one.test").expect("a").leave()
		r.hosts(1)
		r.logged(log, 2)
		r.moved(ofCache, ofNamed, ofTCPNoBytes)
	}},
	{"forward_proxy_cluster_alone_and_no_port", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.201")}, TTL: 60})
		r.forward(forwardedBy(names(s, nil)))
		r.asking("one.test").end()
		r.untilCache("host_address_changed", 1)
		r.hosts(1)
	}},
	{"forward_proxy_cluster_alone_of_an_unknown_name", func(r *run) {
		s := r.nameserver()
		log := r.forward(forwardedBy(names(s, nil)))
		r.asking("one.test").end()
		r.untilCache("dns_query_success", 1)
		r.asking("one.test").end()
		r.logged(log, 2)
		r.moved(ofCache, ofNamed)
	}},
	{"forward_proxy_addresses_that_are_denied", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.211"), netip.MustParseAddr("127.0.2.211")}, TTL: 60})
		s.Put("two.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.212")}, TTL: 60})
		a := r.named("127.0.2.211", "a")
		cache := names(s, obj{"resolved_address_filter": obj{"ranges": ranges("127.0.1.0/24")}})
		log := r.forward(forwardedBy(cache), sniForward(cache, a.Port(), nil))
		r.asking("one.test").expect("a").leave()
		r.asking("two.test").end()
		r.logged(log, 2)
		r.moved(ofCache, ofNamed)
	}},
	{"forward_proxy_addresses_that_are_allowed", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.221"), netip.MustParseAddr("127.0.2.221")}, TTL: 60})
		a := r.named("127.0.2.221", "a")
		cache := names(s, obj{"resolved_address_filter": obj{"ranges": ranges("127.0.2.0/24"), "invert_match": true}})
		r.forward(forwardedBy(cache), sniForward(cache, a.Port(), nil))
		r.asking("one.test").expect("a").leave()
		r.moved(ofCache, ofNamed)
	}},
	{"forward_proxy_of_sub_clusters_has_none", func(r *run) {
		s := r.nameserver()
		s.Set("one.test", "127.0.1.231")
		log := r.forward(forwarded("c", obj{"sub_clusters_config": obj{"lb_policy": "ROUND_ROBIN"}}), sniForward(names(s, nil), unlikely, nil))
		r.asking("one.test").end()
		r.logged(log, 1)
		r.moved(ofCache, ofNamed)
	}},
	{"forward_proxy_filter_before_another_cluster", func(r *run) {
		s := r.nameserver()
		s.Set("one.test", "127.0.1.241")
		log := r.forward(cluster("c", r.banners("static")...), sniForward(names(s, nil), unlikely, nil))
		r.asking("one.test").expect("static").leave()
		r.logged(log, 1)
		r.moved(`dns_cache\.names\.(host_added|dns_query_attempt)`)
	}},
	{"forward_proxy_two_clusters_share_names", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.251")}, TTL: 60})
		a := r.named("127.0.1.251", "a")
		cache := names(s, nil)
		l := func(name, c string) obj {
			return listener(name, chain(sniForward(cache, a.Port(), nil), tcpProxy(c))).with(obj{"listener_filters": []obj{tlsInspector(nil)}})
		}
		r.start(static([]obj{l("l", "c"), l("m", "d")}, []obj{forwardedBy(cache), forwarded("d", obj{"dns_cache_config": cache})}))
		r.asking("one.test").expect("a").leave()
		r.dial("m").as("m").send(clientHello("one.test")).expect("a").leave()
		r.moved(ofCache, `cluster\.[cd]\.(membership_.*|upstream_cx_total)`)
	}},
	{"forward_proxy_resolver_of_the_bootstrap", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.5")}, TTL: 60})
		a := r.named("127.0.1.5", "a")
		cache := names(s, nil)
		delete(cache, "typed_dns_resolver_config")
		l := behindInspector(chain(sniForward(cache, a.Port(), nil), tcpProxy("c")))
		r.start(static([]obj{l}, []obj{forwardedBy(cache)}).with(obj{"typed_dns_resolver_config": askedAt(s)}))
		r.asking("one.test").expect("a").leave()
	}},
	{"forward_proxy_in_an_aggregate", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.6")}, TTL: 60})
		a := r.named("127.0.1.6", "a")
		cache := names(s, nil)
		l := behindInspector(chain(sniForward(cache, a.Port(), nil), tcpProxy("agg")))
		r.start(static([]obj{l}, []obj{forwardedBy(cache), cluster("d", r.banners("d")...), aggregateOf("agg", "c", "d")}))
		r.dial("l").as("nameless").send(nameless).expect("d").leave()
		r.asking("one.test").end() // at port 80: an aggregate hands on no filter state
		r.dial("l").as("nameless").send(nameless).end()
		r.until("membership_total", 2)
		r.hosts(2)
		r.moved(`cluster\.(agg|c|d)\.(membership_total|upstream_cx_(total|none_healthy))`)
	}},
}

// encrypted starts a back end over TLS, which says what server name it was asked for,
// and returns the transport socket for it.
func (r *run) encrypted(addr string, more obj) (netip.AddrPort, obj) {
	r.Helper()
	ca := pki.New(r.TB, "ca")
	cert := ca.Issue([]string{"one.test"}).TLS(r.TB)
	at := r.serveOn(addr+":0", "secure", func(_ context.Context, c *net.TCPConn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
		if err := s.Handshake(); err == nil {
			fmt.Fprintf(s, "asked for %q", s.ConnectionState().ServerName)
			_, _ = io.Copy(io.Discard, s)
		}
	})
	r.callPort(at.Port())
	return at, obj{"transport_socket": obj{"name": "envoy.transport_sockets.tls", "typed_config": obj{
		"@type":              "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
		"common_tls_context": obj{"validation_context": obj{"trusted_ca": obj{"inline_string": string(ca.PEM)}}}}.with(more)}}
}

// forwardingSecurely is forwarding to hosts that speak TLS.
var forwardingSecurely = func() (out []scenario) {
	for name, more := range map[string]obj{
		"":                    nil,
		"_by_a_name":          {"sni": "one.test", "auto_sni_san_validation": true},
		"_by_the_hosts_name":  {"auto_host_sni": true},
		"_by_what_it_says":    {"sni": "fixed.test"},
		"_by_a_name_too_many": {"sni": "other.test", "auto_sni_san_validation": true},
	} {
		out = append(out, scenario{"forward_proxy_over_tls" + name, func(r *run) {
			s := r.nameserver()
			s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.7")}, TTL: 60})
			a, socket := r.encrypted("127.0.1.7", more)
			log := r.forward(forwardedBy(names(s, nil)).with(socket), sniForward(names(s, nil), a.Port(), nil))
			c := r.asking("one.test")
			if name != "_by_a_name_too_many" {
				c.expect("asked for ").fin()
			}
			c.end()
			r.logged(log, 1)
			r.moved(`cluster\.c\.(ssl\.(handshake|fail_.*|connection_error)|upstream_cx_(total|connect_fail))`)
		}})
	}
	slices.SortFunc(out, func(a, b scenario) int { return strings.Compare(a.name, b.name) })
	return append(out, scenario{"forward_proxy_over_tls_without_a_port", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.1.8")}, TTL: 60})
		_, socket := r.encrypted("127.0.1.8", nil)
		r.forward(forwardedBy(names(s, nil)).with(socket))
		r.asking("one.test").end()
		r.untilCache("host_address_changed", 1)
		r.hosts(1)
	}})
}()

// untilPending waits until n connections wait for names, and tells how many may yet.
func (r *run) untilPending(n int64) int64 {
	r.Helper()
	for deadline := time.Now().Add(4 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left := r.stats()["dns_cache.names.circuit_breakers.rq_pending_remaining"]
		if left == 1024-n || time.Now().After(deadline) {
			return left
		}
	}
}

// figuresOfHost notes what /clusters counts of c's only host.
func (r *run) figuresOfHost() {
	r.Helper()
	body, _, err := r.proxy.get("/clusters")
	if err != nil {
		r.Fatal(err)
	}
	for line := range strings.Lines(body) {
		line, ofC := strings.CutPrefix(strings.TrimSpace(line), "c::")
		if slices.ContainsFunc([]string{"::cx_total::", "::cx_active::", "::rq_total::", "::health_flags::"}, func(s string) bool { return ofC && strings.Contains(line, s) }) {
			r.note("%s", line)
		}
	}
}

// forwardRejections: configurations that Envoy refuses.
var forwardRejections = func() (out []scenario) {
	cache := func(more obj) obj { return obj{"name": "names"}.with(more) }
	for name, one := range map[string]struct {
		words   string
		cluster obj
		filter  obj
	}{
		"different_settings":       {"config specified DNS cache 'names' with different settings", forwardedBy(cache(nil)), sniForward(cache(obj{"max_hosts": 5}), 1, nil)},
		"default_said_or_not":      {"config specified DNS cache 'names' with different settings", forwardedBy(cache(nil)), sniForward(cache(obj{"dns_refresh_rate": "60s"}), 1, nil)},
		"balancer":                 {"cluster provided LB not specified but cluster 'c' provided one", forwardedBy(cache(nil)).with(obj{"lb_policy": "ROUND_ROBIN"}), nil},
		"insecure":                 {"dynamic_forward_proxy cluster must have auto_sni and auto_san_validation true unless allow_insecure_cluster_options is set.", forwardedBy(cache(nil)).with(obj{"upstream_http_protocol_options": obj{"auto_sni": true}}), nil},
		"insecure_by_typed":        {"dynamic_forward_proxy cluster must have auto_sni and auto_san_validation true unless allow_insecure_cluster_options is set.", forwardedBy(cache(nil)).with(typedHTTP(nil)), nil},
		"no_name":                  {"value length must be at least 1 characters", forwardedBy(obj{}), nil},
		"no_cache":                 {"", forwarded("c", obj{}), nil},
		"filter_without_cache":     {"value is required", nil, network("sni_dynamic_forward_proxy", "FilterConfig", obj{})},
		"filter_port":              {"value must be inside range (0, 65535]", nil, sniForward(cache(nil), 0, obj{"port_value": 70000})},
		"refresh_rate":             {"value must be greater than or equal to 1ms", forwardedBy(cache(obj{"dns_refresh_rate": "0s"})), nil},
		"min_refresh_rate":         {"value must be greater than or equal to 1s", forwardedBy(cache(obj{"dns_min_refresh_rate": "0.5s"})), nil},
		"max_hosts":                {"value must be greater than 0", forwardedBy(cache(obj{"max_hosts": 0})), nil},
		"host_ttl":                 {"value must be greater than 0s", forwardedBy(cache(obj{"host_ttl": "0s"})), nil},
		"more_known_than_fit":      {"DNS Cache [names] configured with preresolve_hostnames=2 larger than max_hosts=1", forwardedBy(cache(obj{"max_hosts": 1, "preresolve_hostnames": []obj{{"address": "a", "port_value": 1}, {"address": "b", "port_value": 1}}})), nil},
		"failure_rates":            {"", forwardedBy(cache(obj{"dns_failure_refresh_rate": obj{"base_interval": "2s", "max_interval": "1s"}})), nil},
		"sub_clusters_lb":          {"unsupported lb_policy 'CLUSTER_PROVIDED' in sub_cluster_config", forwarded("c", obj{"sub_clusters_config": obj{"lb_policy": "CLUSTER_PROVIDED"}}), nil},
		"filter_last":              {"Error: non-terminal filter named envoy.filters.network.sni_dynamic_forward_proxy of type envoy.filters.network.sni_dynamic_forward_proxy is the last filter in a network filter chain.", nil, sniForward(cache(nil), 1, nil)},
		"denied_range":             {"invalid ip/mask combo 'foo/8' (format is <ip>/<# mask bits>)", forwardedBy(cache(obj{"resolved_address_filter": obj{"ranges": []obj{{"address_prefix": "foo", "prefix_len": 8}}}})), nil},
		"with_a_load_assignment":   {"", forwardedBy(cache(nil)).with(obj{"load_assignment": assignment("c")}), nil},
		"insecure_that_is_allowed": {"", forwarded("c", obj{"dns_cache_config": cache(nil), "allow_insecure_cluster_options": true}).with(typedHTTP(nil)), nil},
	} {
		out = append(out, scenario{"reject_forward_" + name, func(r *run) {
			c, filters := one.cluster, []obj{tcpProxy("c")}
			if c == nil {
				c = cluster("c")
			}
			switch {
			case one.filter == nil:
			case name == "filter_last":
				filters = []obj{one.filter}
			default:
				filters = []obj{one.filter, tcpProxy("c")}
			}
			r.rejects(static([]obj{listener("l", chain(filters...))}, []obj{c}), one.words)
		}})
	}
	slices.SortFunc(out, func(a, b scenario) int { return strings.Compare(a.name, b.name) })
	return out
}()

func typedHTTP(more obj) obj {
	return obj{"typed_extension_protocol_options": obj{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": obj{
		"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": obj{"http_protocol_options": obj{}}}.with(more)}}
}

// forwardStories: what becomes of names and their caches under updates.
var forwardStories = []story{
	{"forward_proxy_cache_of_other_settings", func(s *stream) {
		cache := func(more obj) obj { return obj{"name": "names"}.with(more) }
		s.ready(clusters(forwardedBy(cache(nil))))
		s.lds("2", listener("l", chain(sniForward(cache(obj{"max_hosts": 5}), 1, nil), tcpProxy("c"))))
		s.cds("2", forwardedBy(cache(obj{"max_hosts": 5})))
		s.cds("3", forwardedBy(cache(nil)), forwarded("d", obj{"dns_cache_config": cache(obj{"host_ttl": "1s"})}))
		s.lds("3", listener("l", chain(sniForward(cache(nil), 1, nil), tcpProxy("c"))))
		s.figures()
	}},
	{"forward_proxy_cache_is_free_when_nobody_uses_it", func(s *stream) {
		cache := func(more obj) obj { return obj{"name": "names"}.with(more) }
		s.ready(clusters(forwardedBy(cache(nil))))
		s.cds("2", cluster("other"))
		s.cds("3", forwardedBy(cache(obj{"max_hosts": 5})))
		s.figures()
	}},
}
