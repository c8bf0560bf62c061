package parity

import (
	"net/netip"
	"path/filepath"
)

// onDemandTo is a listener whose tcp_proxy asks ADS for its cluster when a client
// comes. Without a timeout Envoy's minute holds.
func (s *stream) onDemandTo(name, cluster, timeout string) obj {
	s.Helper()
	o := obj{"odcds_config": obj{"ads": obj{}, "resource_api_version": "V3"}}
	if timeout != "" {
		o["timeout"] = timeout
	}
	return listener(name, chain(tcpProxy(cluster).set("on_demand", o).
		set("access_log", []obj{logTo(filepath.Join(s.dir(), name), "%RESPONSE_FLAGS% %UPSTREAM_CLUSTER% %DOWNSTREAM_LOCAL_CLOSE_REASON%\n")})))
}

// onDemandLogged notes what onDemandTo's log says of n connections.
func (s *stream) onDemandLogged(name string, n int) {
	s.Helper()
	s.logged(filepath.Join(s.dir(), name), n)
}

// knock is a client that listener has accepted.
func (s *stream) knock(listener string) *client {
	s.Helper()
	s.note("a client of %s", listener) // parts what is asked before from what is asked now
	n := s.stats()["listener."+listener+".downstream_cx_total"]
	c := s.once(listener)
	if c == nil {
		s.Fatalf("nobody listens at %s", listener)
	}
	s.await("accepted", func() bool { return s.stats()["listener."+listener+".downstream_cx_total"] > n })
	return c
}

// onDemandFigures: what the filter counts, and the subscription.
func (s *stream) onDemandFigures() {
	s.Helper()
	s.moved(`tcp\.[^.]+\.(on_demand_cluster_(attempt|missing|success|timeout)|downstream_cx_(no_route|total))`,
		`cluster_manager\.(odcds\..*(attempt|success|failure|rejected|fetch_timeout)|cluster_(added|modified|removed)|active_clusters|warming_clusters|cds\.update_(success|attempt|rejected))`)
}

// onDemandStories: tcp_proxy has its cluster asked for when a client wants it.
var onDemandStories = []story{
	{"on_demand_cluster_comes_delta_only", func(s *stream) {
		s.ready(nil, s.onDemandTo("l", "c", ""))
		c := s.knock("l")
		s.settle()
		s.cds("2", cluster("c", s.banner("one")))
		s.note("client hears %s", s.hello(c))
		s.serves("l", "one").Close()
		c.Close()
		s.onDemandLogged("l", 2)
		s.onDemandFigures()
	}},
	{"on_demand_cluster_is_there_delta_only", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), s.onDemandTo("l", "c", ""))
		s.serves("l", "one")
		s.onDemandFigures()
	}},
	{"on_demand_cluster_is_missing_delta_only", func(s *stream) {
		s.ready(nil, s.onDemandTo("l", "c", ""))
		c := s.knock("l")
		s.settle()
		s.cds("2", gone("c"))
		s.note("client hears %s", s.hello(c))
		s.onDemandLogged("l", 1)
		s.onDemandFigures()
	}},
	{"on_demand_cluster_comes_in_no_time_delta_only", func(s *stream) {
		s.ready(nil, s.onDemandTo("l", "c", "0.3s"))
		c := s.knock("l")
		s.settle()
		s.note("client hears %s", s.hello(c))
		s.onDemandLogged("l", 1)
		s.onDemandFigures()
		// Once it comes it serves, whoever wanted it.
		s.cds("2", cluster("c", s.banner("one")))
		s.serves("l", "one")
		s.onDemandFigures()
	}},
	{"on_demand_cluster_asked_for_twice_delta_only", func(s *stream) {
		s.ready(nil, s.onDemandTo("l", "c", "0.3s"))
		a := s.knock("l")
		s.settle()
		s.note("client hears %s", s.hello(a))
		b := s.knock("l")
		s.settle()
		s.note("client hears %s", s.hello(b))
		s.onDemandFigures()
	}},
	{"on_demand_cluster_of_two_clients_delta_only", func(s *stream) {
		s.ready(nil, s.onDemandTo("l", "c", ""))
		a, b := s.knock("l"), s.knock("l")
		s.settle()
		s.cds("2", cluster("c", s.banner("one")))
		s.note("clients hear %s, %s", s.hello(a), s.hello(b))
		s.onDemandFigures()
	}},
	{"on_demand_clusters_of_two_listeners_delta_only", func(s *stream) {
		s.ready(nil, s.onDemandTo("l", "c", ""), s.onDemandTo("m", "d", ""))
		a := s.knock("l")
		s.settle()
		b := s.knock("m")
		s.settle()
		s.cds("2", cluster("c", s.banner("one")))
		s.note("client of l hears %s", s.hello(a))
		s.cds("3", cluster("d", s.banner("two")))
		s.note("client of m hears %s", s.hello(b))
		s.onDemandFigures()
	}},
	{"on_demand_second_cluster_later_delta_only", func(s *stream) {
		s.ready(nil, s.onDemandTo("l", "c", ""), s.onDemandTo("m", "d", "1s"))
		a := s.knock("l")
		s.settle()
		s.cds("2", cluster("c", s.banner("one")))
		s.note("client of l hears %s", s.hello(a))
		b := s.knock("m")
		s.settle()
		s.cds("3", cluster("d", s.banner("two")))
		s.note("client of m hears %s", s.hello(b))
		s.onDemandFigures()
	}},
	{"on_demand_cluster_with_endpoints_by_eds_delta_only", func(s *stream) {
		s.ready(nil, s.onDemandTo("l", "c", ""))
		c := s.knock("l")
		s.settle()
		s.cds("2", edsCluster("c"))
		s.eds("1", assignment("c", s.banner("one")))
		s.note("client hears %s", s.hello(c))
		s.onDemandFigures()
	}},
	{"on_demand_cluster_is_refused_delta_only", func(s *stream) {
		s.noCDS = true // else Envoy's words depend on whose turn is first
		s.open()
		s.lds("1", s.onDemandTo("l", "c", "0.8s"))
		c := s.knock("l")
		s.settle()
		s.cds("2", badCluster("c"))
		s.note("client hears %s", s.hello(c))
		s.onDemandFigures()
	}},
	{"on_demand_client_leaves_delta_only", func(s *stream) {
		s.ready(nil, s.onDemandTo("l", "c", ""))
		c := s.knock("l")
		s.settle()
		c.reset()
		s.cds("2", cluster("c", s.banner("one")))
		s.onDemandLogged("l", 1)
		s.onDemandFigures()
	}},
	{"on_demand_cluster_removed_and_asked_for_again_delta_only", func(s *stream) {
		s.ready(nil, s.onDemandTo("l", "c", "1s"))
		c := s.knock("l")
		s.settle()
		s.cds("2", cluster("c", s.banner("one")))
		s.note("client hears %s", s.hello(c))
		s.cds("3", gone("c"))
		d := s.knock("l")
		s.settle()
		s.cds("4", cluster("c", s.banner("two")))
		s.note("client hears %s", s.hello(d))
		s.onDemandFigures()
	}},
	{"on_demand_cluster_is_said_again_after_a_reconnect_delta_only", func(s *stream) {
		s.ready(nil, s.onDemandTo("l", "c", ""))
		c := s.knock("l")
		s.settle()
		s.closed(nil)
		s.cds("2", cluster("c", s.banner("one")))
		s.note("client hears %s", s.hello(c))
		s.onDemandFigures()
	}},
	{"on_demand_without_other_clusters_delta_only", func(s *stream) {
		s.noCDS = true
		s.open()
		s.lds("1", s.onDemandTo("l", "c", "2s"))
		c := s.knock("l")
		s.settle()
		s.cds("2", cluster("c", s.banner("one")))
		s.note("client hears %s", s.hello(c))
		s.cds("3", gone("c"))
		s.onDemandFigures()
	}},
	{"on_demand_second_cluster_without_other_clusters_delta_only", func(s *stream) {
		s.noCDS = true
		s.open()
		s.lds("1", s.onDemandTo("l", "c", "1s"), s.onDemandTo("m", "d", "1s"))
		c := s.knock("l")
		s.settle()
		s.cds("2", cluster("c", s.banner("one")))
		s.note("client of l hears %s", s.hello(c))
		d := s.knock("m")
		s.settle()
		s.cds("3", cluster("d", s.banner("two")))
		s.note("client of m hears %s", s.hello(d))
		s.onDemandFigures()
	}},
	{"on_demand_missing_and_asked_again_delta_only", func(s *stream) {
		s.ready(nil, s.onDemandTo("l", "c", "1s"))
		c := s.knock("l")
		s.settle()
		s.cds("2", gone("c"))
		s.note("client hears %s", s.hello(c))
		d := s.knock("l")
		s.settle()
		s.cds("3", cluster("c", s.banner("two")))
		s.note("client hears %s", s.hello(d))
		s.onDemandFigures()
	}},
	{"on_demand_two_clusters_of_one_filter_delta_only", func(s *stream) {
		l := s.onDemandTo("l", "c", "")
		l["filter_chains"] = []obj{chain(append([]obj{setState("on_new_connection", stateValue("envoy.tcp_proxy.cluster", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", nil))},
			l["filter_chains"].([]obj)[0]["filters"].([]obj)...)...)}
		s.ready(nil, l)
		at := s.bound("l")
		s.note("client a")
		a := s.connect(netip.MustParseAddrPort("127.0.0.2:0"), at)
		s.settle()
		s.note("client b")
		b := s.connect(netip.MustParseAddrPort("127.0.0.3:0"), at)
		s.settle()
		s.cds("2", cluster("127.0.0.2", s.banner("one")))
		s.note("client of a hears %s", s.hello(a))
		s.cds("3", cluster("127.0.0.3", s.banner("two")))
		s.note("client of b hears %s", s.hello(b))
		s.note("client c")
		c := s.connect(netip.MustParseAddrPort("127.0.0.4:0"), at)
		s.settle()
		s.cds("4", gone("127.0.0.4"))
		s.note("client of c hears %s", s.hello(c))
		s.onDemandFigures()
	}},
	{"on_demand_listener_goes_delta_only", func(s *stream) {
		s.ready(nil, s.onDemandTo("l", "c", "1s"))
		c := s.knock("l")
		s.settle()
		s.cds("2", cluster("c", s.banner("one")))
		s.note("client hears %s", s.hello(c))
		c.Close()
		s.lds("2", gone("l"))
		s.await("gone", func() bool { return s.stats()["listener_manager.total_listeners_draining"] == 0 })
		s.settle()
		s.onDemandFigures()
	}},
	{"on_demand_stream_of_its_own_delta_only", func(s *stream) {
		l := s.onDemandTo("l", "c", "1s")
		l["filter_chains"].([]obj)[0]["filters"].([]obj)[0].set("on_demand", obj{"odcds_config": s.stream()})
		s.ready(nil, l)
		c := s.knock("l")
		s.settle()
		s.cds("2", cluster("c", s.banner("one")))
		s.note("client hears %s", s.hello(c))
		s.onDemandFigures()
	}},
	{"on_demand_without_a_source_delta_only", func(s *stream) {
		l := listener("l", chain(tcpProxy("c").set("on_demand", obj{})))
		s.ready(nil, l)
		s.serves("l", "FIN")
		s.onDemandFigures()
	}},
	{"on_demand_from_a_file_delta_only", func(s *stream) {
		s.ready(nil, listener("l", chain(tcpProxy("c").set("on_demand", obj{"odcds_config": obj{"path_config_source": obj{"path": "/nowhere"}}}))))
		s.figures()
	}},
}
