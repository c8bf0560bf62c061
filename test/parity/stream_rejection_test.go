package parity

import "net"

// rejectionStories: what a control plane is told of bad resources, and what
// stays in force.
var rejectionStories = []story{
	{"reject_one_listener_of_two", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))))
		s.lds("2", badAddress("bad"), proxyTo("good", "c"))
		s.serves("good", "one")
		s.figures()
	}},
	{"reject_two_listeners_of_three", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))))
		s.lds("2", badAddress("bad1"), proxyTo("good", "c"), badAddress("bad2"))
		s.serves("good", "one")
		s.figures()
	}},
	{"reject_listener_update_keeps_the_old_one", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"))
		s.serves("l", "one")
		s.lds("2", badAddress("l"))
		s.serves("l", "one")
		s.lds("3", proxyTo("l", "c").with(obj{"tcp_backlog_size": 64}))
		s.serves("l", "one")
		s.figures()
	}},
	{"reject_the_same_listener_twice", func(s *stream) {
		s.ready(nil)
		s.lds("2", badAddress("bad"))
		s.lds("3", badAddress("bad"))
		s.figures()
	}},
	{"reject_one_cluster_of_two", func(s *stream) {
		s.ready(nil, proxyTo("l", "good"))
		s.cds("2", badCluster("bad"), cluster("good", s.banner("one")))
		s.serves("l", "one")
		s.figures()
	}},
	{"reject_two_clusters_of_three", func(s *stream) {
		s.ready(nil)
		s.cds("2", badCluster("bad1"), cluster("good"), badCluster("bad2"))
		s.figures()
	}},
	{"reject_cluster_update_keeps_the_old_one", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"))
		s.cds("2", badCluster("c"))
		s.serves("l", "one")
		s.figures()
	}},
	{"reject_constraint_of_cluster_takes_all", func(s *stream) {
		s.ready(nil)
		s.cds("2", cluster("good"), cluster("bad").with(obj{"lb_policy": 99}))
		s.cds("3", cluster("good"))
		s.figures()
	}},
	{"reject_constraint_of_listener_takes_all", func(s *stream) {
		s.ready(nil)
		s.lds("2", proxyTo("good", "c"), proxyTo("bad", "c").with(obj{"address": obj{"socket_address": obj{"address": "127.0.0.1", "port_value": 70000}}}))
		s.lds("3", proxyTo("good", "c"))
		s.figures()
	}},
	{"reject_constraint_of_endpoints_takes_all", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("a"), edsCluster("b"))
		s.eds("1", assignment("a", nowhere(1)), assignment("b", nowhere(1).with(obj{"load_balancing_weight": 0})))
		s.eds("2", assignment("a", nowhere(1)), assignment("b", nowhere(1)))
		s.figures()
	}},
	{"reject_constraint_inside_a_filter", func(s *stream) {
		s.ready(nil)
		bad := listener("bad", chain(tcpProxy("c").set("stat_prefix", "")))
		s.lds("2", proxyTo("good", "c"), bad)
		s.figures()
	}},
	{"reject_duplicate_listener", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one")), cluster("d", s.banner("two"))))
		s.lds("2", proxyTo("l", "c"), proxyTo("l", "d"), proxyTo("m", "d"))
		s.figures()
	}},
	{"reject_duplicate_cluster", func(s *stream) {
		s.ready(nil, proxyTo("l", "c"))
		s.cds("2", cluster("c", s.banner("one")), cluster("c", s.banner("two")), cluster("d"))
		s.figures()
	}},
	{"duplicate_endpoints", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("c"))
		s.eds("1", assignment("c", s.banner("one")), assignment("c", s.banner("two")))
		s.figures()
	}},
	{"reject_duplicate_address_in_one_response", func(s *stream) {
		at := obj{"address": address(s.free("p"))}
		s.ready(clusters(cluster("c", s.banner("one"))))
		s.lds("2", proxyTo("l", "c").with(at), proxyTo("m", "c").with(at))
		s.serves("l", "one")
		s.figures()
	}},
	{"reject_duplicate_address_of_another_response", func(s *stream) {
		at := obj{"address": address(s.free("p"))}
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c").with(at))
		s.lds("2", proxyTo("l", "c").with(at), proxyTo("m", "c").with(at))
		s.serves("l", "one")
		s.figures()
	}},
	{"reject_duplicate_matcher", func(s *stream) {
		s.ready(nil)
		a, b := chain(tcpProxy("c")).with(obj{"name": "a"}), chain(tcpProxy("c")).with(obj{"name": "b"})
		match := obj{"filter_chain_match": obj{"destination_port": 80}}
		s.lds("2", listener("l", a.with(match), b.with(match)))
		s.figures()
	}},
	{"reject_no_chains", func(s *stream) {
		s.ready(nil)
		s.lds("2", listener("l"))
		s.figures()
	}},
	{"reject_listener_without_address", func(s *stream) {
		s.ready(nil)
		l := proxyTo("l", "c")
		delete(l, "address")
		s.lds("2", l)
		s.figures()
	}},
	{"reject_terminal_filter_not_last", func(s *stream) {
		s.ready(nil)
		s.lds("2", listener("l", chain(tcpProxy("c"), tcpProxy("c"))))
		s.figures()
	}},
	{"reject_filter_of_unknown_type", func(s *stream) {
		s.ready(nil)
		s.lds("2", proxyTo("good", "c"), listener("l", chain(obj{"name": "what.is.this", "typed_config": obj{
			"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "type_url": "type.googleapis.com/what.is.This"}})))
		s.figures()
	}},
	{"reject_resource_of_another_type", func(s *stream) {
		s.ready(nil)
		s.lds("2", proxyTo("good", "c"), raw("x", types["CDS"], ""))
		s.figures()
	}},
	{"reject_resource_of_unknown_type", func(s *stream) {
		s.ready(nil)
		s.lds("2", raw("x", "type.googleapis.com/what.is.This", ""))
		s.figures()
	}},
	{"reject_bytes_that_are_no_listener", func(s *stream) {
		s.ready(nil)
		s.lds("2", raw("x", types["LDS"], "\xff\xff"))
		s.figures()
	}},
	{"reject_bytes_that_are_no_cluster", func(s *stream) {
		s.ready(nil)
		s.cds("2", raw("x", types["CDS"], "\xff\xff"), cluster("good"))
		s.figures()
	}},
	{"answer_of_a_type_nobody_asked_for", func(s *stream) {
		s.ready(nil)
		s.send("RDS", "1")
		s.send("type.googleapis.com/what.is.This", "1")
		s.lds("2")
		s.figures()
	}},
	{"reject_endpoint_with_a_hostname", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("a"), edsCluster("b"))
		s.eds("1", assignment("a", nowhere(1)), assignment("b", nowhere(2)))
		s.eds("2", assignment("a", endpointNamed("a.host")), assignment("b", nowhere(3)))
		s.figures()
	}},
	{"reject_cluster_name_empty", func(s *stream) {
		s.ready(nil)
		s.cds("2", cluster("good"), cluster(""))
		s.figures()
	}},
	{"reject_port_in_use", func(s *stream) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			s.Fatal(err)
		}
		defer ln.Close()
		s.names = append(s.names, ln.Addr().String(), "<taken>")
		s.ready(clusters(cluster("c", s.banner("one"))))
		s.lds("2", proxyTo("l", "c").with(obj{"address": address(addrPort(ln))}), proxyTo("good", "c"))
		s.serves("good", "one")
		s.figures()
	}},
	{"reject_address_of_another_host", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))))
		s.lds("2", proxyTo("l", "c").with(obj{"address": obj{"socket_address": obj{"address": "192.0.2.1", "port_value": 1234}}}), proxyTo("good", "c"))
		s.serves("good", "one")
		s.figures()
	}},
	{"unknown_fields_are_no_reason", func(s *stream) {
		s.ready(nil)
		s.cds("2", raw("c", types["CDS"], "\x0a\x01c\xea\xbe\x1a\x03abc"))
		s.moved("server.dynamic_unknown_fields", "cluster_manager.cluster_added")
	}},
	{"reject_reuse_port_change", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"))
		s.lds("2", proxyTo("l", "c").with(obj{"enable_reuse_port": false}))
		s.serves("l", "one")
		s.figures()
	}},
	{"bootstraps_names_are_not_replaced", func(s *stream) {
		s.clusters = []obj{cluster("boot", s.banner("one"))}
		s.listeners = []obj{proxyTo("first", "boot")}
		s.ready(clusters(cluster("boot", nowhere(1))), proxyTo("first", "nosuch"))
		s.serves("first", "one")
		s.cds("2", gone("boot"))
		s.lds("2", gone("first"))
		s.serves("first", "one")
		s.figures()
	}},
}

func badAddress(name string) obj {
	return proxyTo(name, "c").with(obj{"address": obj{"socket_address": obj{"address": "not.an.ip", "port_value": 1}}})
}

// badCluster: a load assignment does not go with EDS.
func badCluster(name string) obj {
	return edsCluster(name).with(obj{"load_assignment": assignment(name, nowhere(1)), "eds_cluster_config": obj{}})
}
