package parity

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/test/nameserver"
	"github.com/sluice-proxy/sluice/test/peer"
)

const (
	ofUpdates = `cluster\.c\.(update_(attempt|success|failure|empty|no_rebuild)|membership_(total|healthy|change))`
	caresType = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
	dnsType   = "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster"
)

func askedAt(s *nameserver.Server) obj {
	return obj{"name": "envoy.network.dns_resolver.cares", "typed_config": obj{"@type": caresType,
		"resolvers": []obj{address(s.Addr)}, "query_timeout_seconds": 1, "query_tries": 1, "dns_resolver_options": obj{"no_default_search_domain": true}}}
}

func byName(name string, port uint16) obj {
	return obj{"endpoint": obj{"address": obj{"socket_address": obj{"address": name, "port_value": port}}}}
}

// resolved is a cluster of names, which are looked up every half second.
func resolved(s *nameserver.Server, kind string, endpoints ...obj) obj {
	return cluster("c", endpoints...).with(obj{"type": kind, "dns_lookup_family": "V4_ONLY", "dns_refresh_rate": "0.5s",
		"dns_failure_refresh_rate": obj{"base_interval": "0.05s", "max_interval": "0.05s"}, "typed_dns_resolver_config": askedAt(s)})
}

// hosts notes the hosts of c with their names and weights, in order of address,
// when there are as many as wanted.
func (r *run) hosts(want int) {
	r.Helper()
	var found []string
	for deadline := time.Now().Add(4 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		body, _, err := r.proxy.get("/clusters")
		if err != nil {
			r.Fatal(err)
		}
		found = nil
		for line := range strings.Lines(body) {
			line, ofC := strings.CutPrefix(strings.TrimSpace(line), "c::")
			at := strings.LastIndex(line, "::")
			if !ofC || at < 0 {
				continue
			}
			host, field, _ := cutLast(line[:at], "::")
			if slices.Contains([]string{"hostname", "weight", "region", "priority"}, field) {
				found = append(found, host+" "+field+" "+line[at+2:])
			}
		}
		if len(found) == 4*want {
			break
		}
	}
	slices.Sort(found)
	for _, l := range found {
		r.note("%s", l)
	}
	r.note("%d hosts", len(found)/4)
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if at := strings.LastIndex(s, sep); at >= 0 {
		return s[:at], s[at+len(sep):], true
	}
	return s, "", false
}

// until waits for a figure of c to be at least n.
func (r *run) until(figure string, n int64) {
	r.Helper()
	for deadline := time.Now().Add(6 * time.Second); r.stats()["cluster.c."+figure] < n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.note("%s does not reach %d", figure, n)
			return
		}
	}
}

// nameserver starts one with names at the addresses that it is given.
func (r *run) nameserver() *nameserver.Server { return nameserver.Start(r.TB, "127.0.0.1:0") }

// on starts a server that says its name at the address, on a port that is given, or one
// that is free at every address.
func (r *run) on(addr, banner string, port uint16) netip.AddrPort {
	if port == 0 {
		port = freePort(r.TB, "").Port()
	}
	return r.serveOn(fmt.Sprintf("%s:%d", addr, port), banner, peer.Banner(banner))
}

// resolving: clusters whose hosts are found by DNS.
var resolving = []scenario{
	{"strict_dns_all_addresses_of_all_names", func(r *run) {
		s := r.nameserver()
		s.Set("one.test", "127.0.0.11", "127.0.0.12")
		s.Set("two.test", "127.0.0.13")
		a := r.on("127.0.0.11", "a", 0)
		r.on("127.0.0.12", "b", a.Port())
		r.on("127.0.0.13", "c", a.Port())
		c := resolved(s, "STRICT_DNS", byName("one.test", a.Port()).with(obj{"load_balancing_weight": 2}), byName("two.test", a.Port()))
		c["load_assignment"].(obj)["endpoints"].([]obj)[0].with(obj{"locality": obj{"region": "somewhere"}})
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.hosts(3)
		r.note("%v", r.shares("l", 20))
		r.moved(`cluster\.c\.upstream_cx_total`)
	}},
	{"strict_dns_follows_the_name", func(r *run) {
		s := r.nameserver()
		s.Set("one.test", "127.0.0.21")
		a := r.on("127.0.0.21", "a", 0)
		r.on("127.0.0.22", "b", a.Port())
		r.start(static([]obj{proxyTo("l", "c")}, []obj{resolved(s, "STRICT_DNS", byName("one.test", a.Port()))}))
		old := r.dial("l").as("old").expect("a")
		s.Set("one.test", "127.0.0.22")
		r.until("membership_change", 2)
		r.dial("l").as("new").expect("b").fin().end()
		s.Set("one.test", "127.0.0.22", "127.0.0.21")
		r.until("membership_total", 2)
		r.hosts(2)
		r.mark()
		old.fin().end()
		r.moved(`cluster\.c\.(membership_.*|upstream_cx_total|update_failure)`)
	}},
	{"strict_dns_name_that_is_gone_leaves_no_host", func(r *run) {
		s := r.nameserver()
		s.Set("one.test", "127.0.0.31")
		a := r.on("127.0.0.31", "a", 0)
		r.start(static([]obj{proxyTo("l", "c")}, []obj{resolved(s, "STRICT_DNS", byName("one.test", a.Port()))}))
		old := r.dial("l").as("old").expect("a")
		s.Remove("one.test")
		r.until("membership_change", 2)
		r.dial("l").as("new").end()
		r.mark()
		old.fin().end()
		r.moved(`cluster\.c\.(membership_.*|upstream_cx_(total|none_healthy)|update_(failure|empty))`)
	}},
	{"strict_dns_keeps_the_last_on_failure", func(r *run) {
		s := r.nameserver()
		s.Set("one.test", "127.0.0.41")
		a := r.on("127.0.0.41", "a", 0)
		r.start(static([]obj{proxyTo("l", "c")}, []obj{resolved(s, "STRICT_DNS", byName("one.test", a.Port()))}))
		s.Put("one.test", nameserver.Record{Code: 2})
		r.until("update_failure", 2)
		r.dial("l").expect("a").fin().end()
		r.moved(`cluster\.c\.(membership_.*|upstream_cx_total|update_empty)`)
	}},
	{"strict_dns_fails_at_the_start", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Code: 2})
		a := r.on("127.0.0.51", "a", 0)
		r.start(static([]obj{proxyTo("l", "c")}, []obj{resolved(s, "STRICT_DNS", byName("one.test", a.Port()))}))
		r.dial("l").as("first").end()
		s.Set("one.test", "127.0.0.51")
		r.until("membership_total", 1)
		r.dial("l").as("second").expect("a").fin().end()
		r.moved(`cluster\.c\.(membership_.*|upstream_cx_(total|none_healthy)|update_(success|empty))`)
	}},
	{"strict_dns_starts_when_one_name_of_two_is_known", func(r *run) {
		s := r.nameserver()
		s.Set("one.test", "127.0.0.61")
		s.Put("two.test", nameserver.Record{Silent: true})
		a := r.on("127.0.0.61", "a", 0)
		r.start(static([]obj{proxyTo("l", "c")}, []obj{resolved(s, "STRICT_DNS", byName("one.test", a.Port()), byName("two.test", a.Port()))}))
		r.note("at the start: %d of %d answers", r.stats()["cluster.c.update_success"], r.stats()["cluster.c.update_attempt"])
		r.dial("l").expect("a").fin().end()
	}},
	{"strict_dns_without_warming", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Silent: true})
		c := resolved(s, "STRICT_DNS", byName("one.test", 1)).with(obj{"wait_for_warm_on_init": false})
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.dial("l").end()
		r.moved(`cluster\.c\.(membership_.*|upstream_cx_(total|none_healthy))`)
	}},
	{"strict_dns_one_address_of_two_names_is_two_hosts", func(r *run) {
		s := r.nameserver()
		s.Set("one.test", "127.0.0.71", "127.0.0.71")
		s.Set("two.test", "127.0.0.71")
		a := r.on("127.0.0.71", "a", 0)
		r.start(static([]obj{proxyTo("l", "c")}, []obj{resolved(s, "STRICT_DNS", byName("one.test", a.Port()), byName("two.test", a.Port()))}))
		r.until("membership_total", 2)
		r.hosts(2)
	}},
	{"strict_dns_priorities", func(r *run) {
		s := r.nameserver()
		s.Set("one.test")
		s.Set("two.test", "127.0.0.82")
		a := r.on("127.0.0.82", "b", 0)
		c := resolved(s, "STRICT_DNS")
		c["load_assignment"].(obj)["endpoints"] = []obj{
			{"lb_endpoints": []obj{byName("one.test", a.Port())}}, {"priority": 1, "lb_endpoints": []obj{byName("two.test", a.Port())}}}
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.hosts(1)
		r.dial("l").expect("b").fin().end()
	}},
	{"strict_dns_addresses_and_localhost_need_no_server", func(r *run) {
		s := r.nameserver()
		a := r.on("127.0.0.1", "a", 0)
		r.start(static([]obj{proxyTo("l", "c")}, []obj{resolved(s, "STRICT_DNS", byName("127.0.0.1", a.Port()), byName("localhost", a.Port()))}))
		r.until("membership_total", 2)
		r.hosts(2)
		r.dial("l").expect("a").fin().end()
		r.note("questions: %d", s.Asked("localhost"))
	}},
	{"strict_dns_respects_the_ttl", func(r *run) {
		s := r.nameserver()
		s.Put("one.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.91")}, TTL: 1})
		c := resolved(s, "STRICT_DNS", byName("one.test", 1)).with(obj{"respect_dns_ttl": true, "dns_refresh_rate": "600s"})
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.mark()
		r.until("update_success", 2)
		r.note("asked again %s", r.when(time.Now()))
	}},
	{"logical_dns_takes_the_first_address", func(r *run) {
		s := r.nameserver()
		s.Set("one.test", "127.0.0.101", "127.0.0.102")
		a := r.on("127.0.0.101", "a", 0)
		r.on("127.0.0.102", "b", a.Port())
		r.start(static([]obj{proxyTo("l", "c")}, []obj{resolved(s, "LOGICAL_DNS", byName("one.test", a.Port()))}))
		r.hosts(1)
		old := r.dial("l").as("old").expect("a")
		s.Set("one.test", "127.0.0.102")
		r.until("membership_change", 2)
		r.dial("l").as("new").expect("b").fin().end()
		r.mark()
		old.fin().end()
		r.hosts(1)
		r.moved(`cluster\.c\.(membership_.*|upstream_cx_total|update_failure)`)
	}},
	{"logical_dns_keeps_the_last_when_the_name_is_gone", func(r *run) {
		s := r.nameserver()
		s.Set("one.test", "127.0.0.111")
		a := r.on("127.0.0.111", "a", 0)
		r.start(static([]obj{proxyTo("l", "c")}, []obj{resolved(s, "LOGICAL_DNS", byName("one.test", a.Port()))}))
		s.Remove("one.test")
		r.until("update_failure", 2)
		r.dial("l").expect("a").fin().end()
		r.moved(`cluster\.c\.(membership_.*|upstream_cx_total|update_empty)`)
	}},
	{"dns_cluster_by_its_own_type", func(r *run) {
		s := r.nameserver()
		s.Set("one.test", "127.0.0.121", "127.0.0.122")
		a := r.on("127.0.0.121", "a", 0)
		r.on("127.0.0.122", "b", a.Port())
		c := cluster("c", byName("one.test", a.Port())).with(obj{"cluster_type": obj{"name": "envoy.cluster.dns", "typed_config": obj{"@type": dnsType,
			"dns_lookup_family": "V4_PREFERRED", "typed_dns_resolver_config": askedAt(s)}}})
		delete(c, "type")
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.hosts(2)
		r.note("%v", r.shares("l", 10))
		r.moved(ofUpdates)
	}},
	{"dns_family_auto_prefers_six", func(r *run) {
		s := r.nameserver()
		s.Set("one.test", "127.0.0.1", "::1")
		a := r.on("[::1]", "six", 0)
		r.start(static([]obj{proxyTo("l", "c")}, []obj{resolved(s, "STRICT_DNS", byName("one.test", a.Port())).with(obj{"dns_lookup_family": "AUTO"})}))
		r.hosts(1)
		r.dial("l").expect("six").fin().end()
	}},
	{"dns_family_all", func(r *run) {
		s := r.nameserver()
		s.Set("one.test", "127.0.0.1", "::1")
		a := r.on("[::1]", "six", 0)
		r.on("127.0.0.1", "four", a.Port())
		r.start(static([]obj{proxyTo("l", "c")}, []obj{resolved(s, "STRICT_DNS", byName("one.test", a.Port())).with(obj{"dns_lookup_family": "ALL"})}))
		r.hosts(2)
		r.note("%v", r.shares("l", 10))
	}},
	{"dns_resolver_of_the_bootstrap", func(r *run) {
		s := r.nameserver()
		s.Set("one.test", "127.0.0.131")
		a := r.on("127.0.0.131", "a", 0)
		c := resolved(s, "STRICT_DNS", byName("one.test", a.Port()))
		delete(c, "typed_dns_resolver_config")
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}).with(obj{"typed_dns_resolver_config": askedAt(s)}))
		r.dial("l").expect("a").fin().end()
	}},
}
