package parity

import "slices"

// changeStories: resources come, change and go while connections are open.
var changeStories = []story{
	{"listener_removed_under_a_connection", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"), proxyTo("m", "c"))
		c := s.serves("l", "one")
		s.lds("2", gone("l"), proxyTo("m", "c"))
		s.serves("l", "nobody")
		c.send("still").expect("still")
		s.figures()
	}},
	{"all_listeners_removed", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"), proxyTo("m", "c"))
		c := s.serves("l", "one")
		s.lds("2", gone("l", "m"))
		s.serves("l", "nobody")
		c.send("still").expect("still")
		s.figures()
	}},
	{"cluster_removed_under_a_connection", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"))
		c := s.serves("l", "one")
		s.cds("2", gone("c"))
		s.serves("l", "FIN")
		c.send("still").expect("still")
		s.figures()
	}},
	{"figures_of_changed_hosts", func(s *stream) {
		s.open()
		one, two := s.banner("one"), s.banner("two")
		c := edsCluster("c")
		s.cds("1", c)
		s.eds("1", assignment("c", one))
		s.lds("1", proxyTo("l", "c"))
		s.serves("l", "one")
		const figures = `cluster_manager\.(cluster_updated.*|update_.*merge.*)|cluster\.c\..*total_match_count|thread_local.*`
		s.moved(figures)
		s.eds("2", assignment("c", one, two))
		s.moved(figures)
		s.eds("3", assignment("c", two))
		s.serves("l", "two")
		s.moved(figures)
	}},
	{"endpoint_removed_under_a_connection", func(s *stream) {
		s.open()
		one, two := s.banner("one"), s.banner("two")
		s.cds("1", edsCluster("c"))
		s.eds("1", assignment("c", one))
		s.lds("1", proxyTo("l", "c"))
		c := s.serves("l", "one")
		s.eds("2", assignment("c", two))
		s.serves("l", "two")
		c.send("still").expect("still")
		s.figures()
	}},
	{"all_endpoints_removed", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("c"))
		s.eds("1", assignment("c", s.banner("one")))
		s.lds("1", proxyTo("l", "c"))
		c := s.serves("l", "one")
		s.eds("2", assignment("c"))
		s.serves("l", "FIN")
		c.send("still").expect("still")
		s.figures()
	}},
	{"cluster_removed_and_added_again", func(s *stream) {
		s.open()
		one := s.banner("one")
		s.cds("1", edsCluster("c"))
		s.eds("1", assignment("c", one))
		s.lds("1", proxyTo("l", "c"))
		s.serves("l", "one")
		s.cds("2", gone("c"))
		s.serves("l", "FIN")
		s.cds("3", edsCluster("c"))
		s.eds("2", assignment("c", one))
		s.serves("l", "one")
		s.figures()
	}},
	{"listener_removed_and_added_again", func(s *stream) {
		at := obj{"address": address(s.free("p"))}
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c").with(at))
		s.serves("l", "one")
		s.lds("2", gone("l"))
		s.serves("l", "nobody")
		s.lds("3", proxyTo("l", "c").with(at))
		s.serves("l", "one")
		s.figures()
	}},
	{"listener_takes_the_address_of_one_that_goes", func(s *stream) {
		at := obj{"address": address(s.free("p"))}
		s.ready(clusters(cluster("c", s.banner("one")), cluster("d", s.banner("two"))), proxyTo("l", "c").with(at))
		s.serves("l", "one")
		s.lds("2", gone("l"), proxyTo("m", "d").with(at))
		s.serves("m", "two")
		s.figures()
	}},
	{"listener_moves_to_another_address", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c").with(obj{"address": address(s.free("p"))}))
		c := s.serves("l", "one")
		at := s.free("q")
		s.lds("2", proxyTo("l", "c").with(obj{"address": address(at)}))
		s.await(at.String()+" listens", func() bool { return slices.Contains(s.addresses("l"), at) })
		s.serves("l", "one")
		c.send("still").expect("still")
		s.figures()
	}},
	{"listeners_swap_addresses", func(s *stream) {
		p, q := obj{"address": address(s.free("p"))}, obj{"address": address(s.free("q"))}
		s.ready(clusters(cluster("c", s.banner("one")), cluster("d", s.banner("two"))), proxyTo("l", "c").with(p), proxyTo("m", "d").with(q))
		s.lds("2", proxyTo("l", "c").with(q), proxyTo("m", "d").with(p))
		s.figures()
	}},
	{"listener_changes_its_chain_only", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one")), cluster("d", s.banner("two"))), proxyTo("l", "c"))
		c := s.serves("l", "one")
		s.lds("2", proxyTo("l", "d"))
		s.serves("l", "two")
		c.send("still").expect("still")
		s.moved(`listener_manager\.(listener_(added|modified|in_place_updated|create_success)|lds\.update_success)`)
	}},
	{"listener_changes_another_field", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"))
		c := s.serves("l", "one")
		s.lds("2", proxyTo("l", "c").with(obj{"per_connection_buffer_limit_bytes": 4096}))
		s.serves("l", "one")
		c.send("still").expect("still")
		s.moved(`listener_manager\.(listener_(added|modified|in_place_updated|create_success)|lds\.update_success)`)
	}},
	{"unchanged_resources_sent_again", func(s *stream) {
		s.open()
		one := s.banner("one")
		s.cds("1", edsCluster("c"))
		s.eds("1", assignment("c", one))
		s.lds("1", proxyTo("l", "c"))
		c := s.serves("l", "one")
		s.cds("2", edsCluster("c"))
		s.eds("2", assignment("c", one))
		s.lds("2", proxyTo("l", "c"))
		c.send("still").expect("still")
		s.figures()
	}},
	{"versions_are_empty", func(s *stream) {
		s.open()
		s.cds("", edsCluster("c"))
		s.eds("", assignment("c", s.banner("one")))
		s.lds("", proxyTo("l", "c"))
		s.serves("l", "one")
		s.eds("", assignment("c", s.banner("two")))
		s.serves("l", "two")
		s.figures()
	}},
	{"same_version_other_content", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("c"))
		s.eds("1", assignment("c", s.banner("one")))
		s.lds("1", proxyTo("l", "c"))
		s.serves("l", "one")
		s.eds("1", assignment("c", s.banner("two")))
		s.serves("l", "two")
		s.figures()
	}},
	{"partial_endpoints", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("a"), edsCluster("b"))
		s.eds("1", assignment("a", s.banner("one")), assignment("b", s.banner("two")))
		s.lds("1", proxyTo("l", "a"), proxyTo("m", "b"))
		s.serves("l", "one")
		s.eds("2", assignment("b", s.banner("three")))
		s.serves("m", "three")
		s.serves("l", "one")
		s.figures()
	}},
	{"endpoints_nobody_asked_for", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("a"))
		s.eds("1", assignment("a", nowhere(1)), assignment("other", nowhere(2)))
		s.eds("2", assignment("other", nowhere(3)))
		s.figures()
	}},
	{"endpoints_removed_by_the_server", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("c"))
		s.eds("1", assignment("c", s.banner("one")))
		s.lds("1", proxyTo("l", "c"))
		s.serves("l", "one")
		s.eds("2", gone("c"))
		s.serves("l", "one")
		s.eds("3", assignment("c", s.banner("two")))
		s.serves("l", "two")
		s.figures()
	}},
	{"removal_of_what_never_was", func(s *stream) {
		s.ready(nil)
		s.cds("2", gone("ghost"))
		s.lds("2", gone("ghost"))
		s.figures()
	}},
	{"everything_removed", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("a"), edsCluster("b"), cluster("s"))
		s.eds("1", assignment("a", nowhere(1)), assignment("b", nowhere(2)))
		s.lds("1", proxyTo("l", "a"))
		s.cds("2", gone("a", "b", "s"))
		s.lds("2", gone("l"))
		s.figures()
	}},
	{"cluster_goes_before_its_listener", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("a"), edsCluster("b"))
		s.eds("1", assignment("a", s.banner("one")), assignment("b", s.banner("two")))
		s.lds("1", proxyTo("l", "b"))
		s.cds("2", gone("b"), edsCluster("a"))
		s.serves("l", "FIN")
		s.lds("2", proxyTo("l", "a"))
		s.serves("l", "one")
		s.figures()
	}},
	{"cluster_changes_from_static_to_eds", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"))
		s.serves("l", "one")
		s.cds("2", edsCluster("c"))
		s.serves("l", "one")
		s.eds("1", assignment("c", s.banner("two")))
		s.serves("l", "two")
		s.figures()
	}},
	{"cluster_changes_from_eds_to_static", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("c"))
		s.eds("1", assignment("c", s.banner("one")))
		s.lds("1", proxyTo("l", "c"))
		s.serves("l", "one")
		s.cds("2", cluster("c", s.banner("two")))
		s.serves("l", "two")
		s.figures()
	}},
	{"static_cluster_changes_its_endpoint", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"))
		c := s.serves("l", "one")
		s.cds("2", cluster("c", s.banner("two")))
		s.serves("l", "two")
		c.send("still").expect("still")
		s.figures()
	}},
	{"two_thousand_resources", func(s *stream) {
		s.open()
		var cs, ls []obj
		for i := range 2000 {
			cs = append(cs, cluster(name("c", i)))
		}
		for i := range 20 {
			ls = append(ls, proxyTo(name("l", i), name("c", i)))
		}
		s.cds("1", cs...)
		s.lds("1", ls...)
		s.figures()
	}},
	{"endpoints_grow_stale", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("c"))
		s.eds("1", assignment("c", s.banner("one")))
		s.lds("1", proxyTo("l", "c"))
		c := s.serves("l", "one")
		bounded := assignment("c", s.banner("two")).with(obj{"policy": obj{"endpoint_stale_after": "1s"}})
		s.eds("2", bounded)
		s.await("the endpoints are stale", func() bool { return s.stats()["cluster.c.assignment_stale"] == 1 })
		s.serves("l", "nobody")
		c.send("still").expect("still")
		s.eds("3", assignment("c", s.banner("three")))
		s.serves("l", "three")
		s.moved(ofSubscriptions, `cluster\.c\.(assignment_.*|membership_.*)`)
	}},
}
