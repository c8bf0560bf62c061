package parity

// startStories: from the first request until everything serves.
var startStories = []story{
	{"start_with_nothing", func(s *stream) {
		s.ready(nil)
		s.proxy.awaitLive(s.TB, s.kind)
		s.figures()
	}},
	{"start_static_cluster", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"))
		s.serves("l", "one").fin().end()
		s.figures()
	}},
	{"start_eds_cluster", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("c"))
		s.eds("1", assignment("c", s.banner("one")))
		s.lds("1", proxyTo("l", "c"))
		s.serves("l", "one")
		s.figures()
	}},
	{"start_two_eds_clusters_answered_apart", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("b"), edsCluster("a"))
		s.eds("1", assignment("b", nowhere(1)))
		s.eds("2", assignment("a", nowhere(2)))
		s.lds("1", proxyTo("l", "a"))
		s.figures()
	}},
	{"start_five_eds_clusters_at_once", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("e"), edsCluster("d"), edsCluster("c"), edsCluster("b"), edsCluster("a"))
		s.eds("1", assignment("a"), assignment("b"), assignment("c"), assignment("d"), assignment("e"))
		s.lds("1")
		s.figures()
	}},
	{"start_service_name", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("c").service("svc"))
		s.eds("1", assignment("svc", s.banner("one")))
		s.lds("1", proxyTo("l", "c"))
		s.serves("l", "one")
		s.figures()
	}},
	{"start_service_name_shared", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("a").service("svc"), edsCluster("b").service("svc"))
		s.eds("1", assignment("svc", s.banner("one")))
		s.lds("1", proxyTo("l", "a"), proxyTo("m", "b"))
		s.serves("l", "one")
		s.serves("m", "one")
		s.figures()
	}},
	{"start_eds_under_the_clusters_name_is_not_the_services", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("c").service("svc"))
		s.eds("1", assignment("c", nowhere(1)))
		s.eds("2", assignment("svc", nowhere(1)))
		s.figures()
	}},
	{"start_cds_never_answers", func(s *stream) {
		s.wait = "1s"
		s.open()
		s.asked("LDS")
		s.lds("1", proxyTo("l", "c"))
		s.proxy.awaitLive(s.TB, s.kind)
		s.cds("1", cluster("c", s.banner("one")))
		s.serves("l", "one")
		s.figures()
	}},
	{"start_lds_never_answers", func(s *stream) {
		s.wait = "1s"
		s.open()
		s.cds("1")
		s.proxy.awaitLive(s.TB, s.kind)
		s.lds("1")
		s.figures()
	}},
	{"start_eds_never_answers", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("c").timeout("1s"))
		s.asked("LDS")
		s.lds("1", proxyTo("l", "c"))
		s.proxy.awaitLive(s.TB, s.kind)
		s.serves("l", "FIN")
		s.eds("1", assignment("c", s.banner("one")))
		s.serves("l", "one")
		s.figures()
	}},
	{"start_cds_rejected", func(s *stream) {
		s.open()
		s.cds("1", cluster("bad").with(obj{"lb_policy": 99}))
		s.lds("1", proxyTo("l", "c"))
		s.proxy.awaitLive(s.TB, s.kind)
		s.cds("2", cluster("c", s.banner("one")))
		s.serves("l", "one")
		s.figures()
	}},
	{"start_lds_rejected", func(s *stream) {
		s.open()
		s.cds("1")
		s.lds("1", proxyTo("l", "c").with(obj{"address": obj{"socket_address": obj{"address": "nowhere", "port_value": 0}}}))
		s.proxy.awaitLive(s.TB, s.kind)
		s.figures()
	}},
	{"start_eds_rejected", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("c"))
		s.eds("1", assignment("c", endpointNamed("a.host")))
		s.eds("2", assignment("c", nowhere(1)))
		s.lds("1")
		s.figures()
	}},
	{"start_listener_of_unknown_cluster", func(s *stream) {
		s.ready(nil, proxyTo("l", "later"))
		s.serves("l", "FIN")
		s.cds("2", cluster("later", s.banner("one")))
		s.serves("l", "one")
		s.figures()
	}},
	{"start_static_eds_cluster", func(s *stream) {
		s.clusters = []obj{edsCluster("boot")}
		s.open()
		s.eds("1", assignment("boot", s.banner("one")))
		s.cds("1")
		s.lds("1", proxyTo("l", "boot"))
		s.serves("l", "one")
		s.figures()
	}},
	{"start_stream_closed_before_any_answer", func(s *stream) {
		s.open()
		s.closed(nil)
		s.cds("1")
		s.lds("1")
		s.figures()
	}},
}

func endpointNamed(host string) obj {
	return obj{"endpoint": obj{"address": obj{"socket_address": obj{"address": host, "port_value": 80}}}}
}
