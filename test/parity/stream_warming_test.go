package parity

// warmingStories: clusters wait for their endpoints, the CDS answer waits too.
var warmingStories = []story{
	{"warming_withholds_the_answer", func(s *stream) {
		s.ready(nil, proxyTo("l", "c"))
		s.cds("2", edsCluster("c"))
		s.serves("l", "FIN")
		s.eds("1", assignment("c", s.banner("one")))
		s.serves("l", "one")
		s.figures()
	}},
	{"warming_old_cluster_serves", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("c").service("s1"))
		s.eds("1", assignment("s1", s.banner("one")))
		s.lds("1", proxyTo("l", "c"))
		s.serves("l", "one")
		s.cds("2", edsCluster("c").service("s2"))
		s.serves("l", "one")
		s.eds("2", assignment("s2", s.banner("two")))
		s.serves("l", "two")
		s.figures()
	}},
	{"warming_cluster_replaced", func(s *stream) {
		s.ready(nil, proxyTo("l", "c"))
		s.cds("2", edsCluster("c").service("s1"))
		s.cds("3", edsCluster("c").service("s2"))
		s.eds("1", assignment("s1", s.banner("one")))
		s.eds("2", assignment("s2", s.banner("two")))
		s.serves("l", "two")
		s.figures()
	}},
	{"warming_cluster_removed", func(s *stream) {
		s.ready(nil)
		s.cds("2", edsCluster("c"))
		s.cds("3", gone("c"))
		s.figures()
	}},
	{"warming_cluster_becomes_static", func(s *stream) {
		s.ready(nil, proxyTo("l", "c"))
		s.cds("2", edsCluster("c"))
		s.cds("3", cluster("c", s.banner("one")))
		s.serves("l", "one")
		s.figures()
	}},
	{"warming_second_response_meanwhile", func(s *stream) {
		s.ready(nil)
		s.cds("2", edsCluster("a"))
		s.cds("3", edsCluster("a"), edsCluster("b"))
		s.eds("1", assignment("a", nowhere(1)))
		s.eds("2", assignment("b", nowhere(2)))
		s.figures()
	}},
	{"warming_and_a_rejected_response", func(s *stream) {
		s.ready(nil)
		s.cds("2", edsCluster("a"))
		s.cds("3", edsCluster("a"), badCluster("bad"))
		s.eds("1", assignment("a", nowhere(1)))
		s.figures()
	}},
	{"warming_ends_by_timeout", func(s *stream) {
		s.ready(nil)
		s.cds("2", edsCluster("c").timeout("1s"))
		s.await("cluster active", func() bool { return s.stats()["cluster_manager.active_clusters"] == 2 })
		s.settle()
		s.figures()
	}},
	{"warming_does_not_hold_up_listeners", func(s *stream) {
		s.ready(clusters(cluster("d", s.banner("one"))))
		s.cds("2", edsCluster("c"), cluster("d", s.banner("one")))
		s.lds("2", proxyTo("l", "d"), proxyTo("m", "c"))
		s.serves("m", "FIN")
		s.eds("1", assignment("c", s.banner("two")))
		s.serves("m", "two")
		s.figures()
	}},
	{"warming_both_answered_in_one", func(s *stream) {
		s.ready(nil)
		s.cds("2", edsCluster("a"), edsCluster("b"))
		s.eds("1", assignment("a", nowhere(1)), assignment("b", nowhere(2)))
		s.figures()
	}},
	{"warming_one_of_two_comes", func(s *stream) {
		s.ready(nil, proxyTo("l", "a"))
		s.cds("2", edsCluster("a"), edsCluster("b"))
		s.eds("1", assignment("a", s.banner("one")))
		s.serves("l", "one")
		s.eds("2", assignment("b", nowhere(2)))
		s.figures()
	}},
	{"warming_endpoints_rejected", func(s *stream) {
		s.ready(nil)
		s.cds("2", edsCluster("a"))
		s.eds("1", assignment("a", endpointNamed("a.host")))
		s.eds("2", assignment("a", nowhere(1)))
		s.figures()
	}},
	{"warming_empty_endpoints_answer", func(s *stream) {
		s.ready(nil)
		s.cds("2", edsCluster("a"))
		s.eds("1")
		s.eds("2", assignment("a"))
		s.figures()
	}},
	{"warming_endpoints_removed", func(s *stream) {
		s.ready(nil)
		s.cds("2", edsCluster("a"))
		s.eds("1", gone("a"))
		s.figures()
	}},
	{"changed_cluster_keeps_its_endpoints", func(s *stream) {
		one := s.banner("one")
		s.open()
		s.cds("1", edsCluster("c"))
		s.eds("1", assignment("c", one))
		s.lds("1", proxyTo("l", "c"))
		s.serves("l", "one")
		s.cds("2", edsCluster("c").with(obj{"connect_timeout": "2s"}))
		s.serves("l", "one")
		s.eds("2", assignment("c", one))
		s.serves("l", "one")
		s.figures()
	}},
	{"changed_cluster_endpoints_not_sent_again", func(s *stream) {
		one := s.banner("one")
		s.open()
		s.cds("1", edsCluster("c").timeout("2s"))
		s.eds("1", assignment("c", one))
		s.lds("1", proxyTo("l", "c"))
		s.serves("l", "one")
		s.cds("2", edsCluster("c").timeout("2s").with(obj{"connect_timeout": "2s"}))
		s.await("cluster warm", func() bool { return s.stats()["cluster_manager.warming_clusters"] == 0 })
		s.settle()
		s.serves("l", "one")
		s.figures()
	}},
	{"changed_transport_socket", func(s *stream) {
		one := s.banner("one")
		raw := obj{"transport_socket": obj{"name": "envoy.transport_sockets.raw_buffer", "typed_config": obj{
			"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}}
		s.open()
		s.cds("1", edsCluster("c"))
		s.eds("1", assignment("c", one))
		s.lds("1", proxyTo("l", "c"))
		s.serves("l", "one")
		s.cds("2", edsCluster("c").with(raw))
		s.serves("l", "one")
		s.eds("2", assignment("c", one))
		s.serves("l", "one")
		s.figures()
	}},
}
