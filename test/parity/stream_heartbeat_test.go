package parity

import "time"

// heartbeatStories: resources with a TTL, and in a wrapper.
var heartbeatStories = []story{
	{"wrapped_resources", func(s *stream) {
		s.open()
		s.cds("1", wrapped("c", 0, edsCluster("c")))
		s.eds("1", wrapped("c", 0, assignment("c", s.banner("one"))))
		s.lds("1", wrapped("l", 0, proxyTo("l", "c")))
		s.serves("l", "one")
		s.figures()
	}},
	// Envoy 1.40 dies of this in state of the world (a null pointer).
	{"ttl_of_endpoints_ends_delta_only", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("c"))
		s.eds("1", wrapped("c", 500*time.Millisecond, assignment("c", s.banner("one"))))
		s.lds("1", proxyTo("l", "c"))
		s.serves("l", "one")
		time.Sleep(time.Second)
		s.settle()
		s.serves("l", "one")
		s.figures()
	}},
	{"ttl_of_listener_ends", func(s *stream) {
		s.open()
		s.cds("1", cluster("c", s.banner("one")))
		s.lds("1", wrapped("l", 800*time.Millisecond, proxyTo("l", "c")), proxyTo("m", "c"))
		s.serves("m", "one")
		s.serves("l", "nobody")
		s.serves("m", "one")
		s.settle()
		s.figures()
	}},
	{"ttl_of_cluster_ends", func(s *stream) {
		s.open()
		s.cds("1", wrapped("c", 1500*time.Millisecond, cluster("c", s.banner("one"))), cluster("d"))
		s.lds("1", proxyTo("l", "c"))
		s.serves("l", "FIN")
		s.settle()
		s.figures()
	}},
	{"heartbeat_keeps_endpoints", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("c"))
		s.eds("1", wrapped("c", 5*time.Second, assignment("c", s.banner("one"))))
		s.lds("1", proxyTo("l", "c"))
		s.eds("1", wrapped("c", 5*time.Second, nil))
		s.serves("l", "one")
		s.figures()
	}},
	{"heartbeat_of_listener", func(s *stream) {
		s.open()
		s.cds("1", cluster("c", s.banner("one")))
		s.lds("1", wrapped("l", 5*time.Second, proxyTo("l", "c")))
		s.serves("l", "one")
		s.lds("1", wrapped("l", 5*time.Second, nil))
		s.figures()
	}},
	{"heartbeat_of_cluster", func(s *stream) {
		s.open()
		s.cds("1", wrapped("c", 5*time.Second, cluster("c", s.banner("one"))))
		s.lds("1", proxyTo("l", "c"))
		s.cds("1", wrapped("c", 5*time.Second, nil))
		s.figures()
	}},
	{"heartbeat_without_ttl", func(s *stream) {
		s.open()
		s.cds("1", cluster("c", s.banner("one")))
		s.lds("1", wrapped("l", 9*time.Second, proxyTo("l", "c")))
		s.lds("1", wrapped("l", 0, nil))
		s.figures()
	}},
	{"heartbeat_puts_off_the_end", func(s *stream) {
		s.open()
		s.cds("1", cluster("c", s.banner("one")))
		s.lds("1", wrapped("l", 3*time.Second, proxyTo("l", "c")), proxyTo("m", "c"))
		for range 3 {
			time.Sleep(1200 * time.Millisecond)
			s.lds("1", wrapped("l", 3*time.Second, nil))
		}
		s.figures()
	}},
}
