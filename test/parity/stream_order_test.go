package parity

// orderStories: what is asked for and answered in which order.
var orderStories = []story{
	{"order_endpoints_before_anybody_asks", func(s *stream) {
		s.ready(nil)
		s.eds("1", assignment("c", nowhere(1)))
		s.cds("2", edsCluster("c"))
		s.eds("2", assignment("c", nowhere(1)))
		s.figures()
	}},
	{"order_one_cluster_for_another", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("a"))
		s.eds("1", assignment("a", nowhere(1)))
		s.lds("1")
		s.cds("2", gone("a"), edsCluster("b"))
		s.eds("2", assignment("b", nowhere(2)))
		s.figures()
	}},
	{"order_cluster_added_to_two", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("a"), edsCluster("c"))
		s.eds("1", assignment("a"), assignment("c"))
		s.lds("1")
		s.cds("2", edsCluster("a"), edsCluster("b"), edsCluster("c"))
		s.eds("2", assignment("b"))
		s.figures()
	}},
	{"order_cluster_removed_of_three", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("a"), edsCluster("b"), edsCluster("c"))
		s.eds("1", assignment("a"), assignment("b"), assignment("c"))
		s.lds("1")
		s.cds("2", edsCluster("a"), gone("b"), edsCluster("c"))
		s.figures()
	}},
	{"order_two_removed_and_two_added", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("a"), edsCluster("b"))
		s.eds("1", assignment("a"), assignment("b"))
		s.lds("1")
		s.cds("2", gone("a", "b"), edsCluster("c"), edsCluster("d"))
		s.eds("2", assignment("c"), assignment("d"))
		s.figures()
	}},
	{"order_service_name_shared_and_let_go", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("a").service("svc"), edsCluster("b").service("svc"))
		s.eds("1", assignment("svc"))
		s.lds("1")
		s.cds("2", gone("a"), edsCluster("b").service("svc"))
		s.cds("3", gone("b"))
		s.figures()
	}},
	{"order_second_cluster_for_a_known_service", func(s *stream) {
		one := s.banner("one")
		s.open()
		s.cds("1", edsCluster("a").service("svc").timeout("2s"))
		s.eds("1", assignment("svc", one))
		s.lds("1", proxyTo("l", "b"))
		s.cds("2", edsCluster("a").service("svc").timeout("2s"), edsCluster("b").service("svc").timeout("2s"))
		s.eds("2", assignment("svc", one))
		s.serves("l", "one")
		s.figures()
	}},
	{"order_responses_without_waiting", func(s *stream) {
		s.open()
		s.push("CDS", "1", edsCluster("c"))
		s.push("EDS", "1", assignment("c", s.banner("one")))
		s.push("LDS", "1", proxyTo("l", "c"))
		s.settle()
		s.serves("l", "one")
	}},
	{"order_many_updates_in_a_row", func(s *stream) {
		s.full()
		for _, v := range []string{"2", "3", "4", "5"} {
			s.push("EDS", v, assignment("c", s.banner("v"+v)))
		}
		s.settle()
		s.serves("l", "v5")
		s.figures()
	}},
	{"order_clusters_and_listeners_in_a_row", func(s *stream) {
		s.ready(nil)
		s.push("CDS", "2", cluster("c", s.banner("one")))
		s.push("LDS", "2", proxyTo("l", "c"))
		s.push("CDS", "3", cluster("c", s.banner("two")))
		s.push("LDS", "3", proxyTo("l", "c"), proxyTo("m", "c"))
		s.settle()
		s.serves("m", "two")
		s.figures()
	}},
}
