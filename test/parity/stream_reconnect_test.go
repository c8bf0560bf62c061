package parity

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// reconnectStories: what is said again on a new stream.
var reconnectStories = []story{
	{"reconnect_with_state", func(s *stream) {
		s.full()
		s.closed(nil)
		s.cds("2", edsCluster("c"))
		s.eds("2", assignment("c", s.banner("two")))
		s.lds("2", proxyTo("l", "c"))
		s.serves("l", "two")
		s.figures()
	}},
	{"reconnect_after_an_error", func(s *stream) {
		s.full()
		s.closed(status.Error(codes.Unavailable, "later"))
		s.closed(status.Error(codes.PermissionDenied, "no"))
		s.serves("l", "one")
		s.figures()
	}},
	{"reconnect_after_authentication_failed", func(s *stream) {
		s.open()
		s.closed(status.Error(codes.Unauthenticated, "who are you"))
		s.closed(status.Error(codes.Unknown, "authentication failed"))
		s.cds("1")
		s.lds("1")
		s.figures()
	}},
	{"reconnect_after_the_server_was_killed", func(s *stream) {
		s.full()
		c := s.serves("l", "one")
		s.note("server restarts")
		n := s.script.Streams()
		s.script.Restart(s.TB)
		s.script.AwaitStream(s.TB, n+1)
		s.settle()
		c.send("still").expect("still")
		s.eds("2", assignment("c", s.banner("two")))
		s.serves("l", "two")
	}},
	{"reconnect_with_no_endpoints_wanted", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"))
		s.closed(nil)
		s.figures()
	}},
	{"reconnect_after_the_last_eds_cluster_went", func(s *stream) {
		s.full()
		s.cds("2", gone("c"))
		s.closed(nil)
		s.cds("3", edsCluster("c"))
		s.eds("3", assignment("c", nowhere(1)))
		s.figures()
	}},
	{"reconnect_while_warming", func(s *stream) {
		s.ready(nil, proxyTo("l", "c"))
		s.cds("2", edsCluster("c"))
		s.closed(nil)
		s.eds("1", assignment("c", s.banner("one")))
		s.serves("l", "one")
		s.cds("3", edsCluster("c"))
		s.figures()
	}},
	{"reconnect_while_warming_and_cds_first", func(s *stream) {
		s.ready(nil)
		s.cds("2", edsCluster("c"))
		s.closed(nil)
		s.cds("3", edsCluster("c"))
		s.eds("1", assignment("c", nowhere(1)))
		s.figures()
	}},
	{"reconnect_after_a_rejection", func(s *stream) {
		s.full()
		s.lds("2", badAddress("l"))
		s.closed(nil)
		s.lds("3", proxyTo("l", "c"))
		s.figures()
	}},
	{"reconnect_before_the_first_good_answer", func(s *stream) {
		s.open()
		s.cds("1", cluster("bad").with(obj{"lb_policy": 99}))
		s.closed(nil)
		s.cds("2")
		s.figures()
	}},
	{"reconnect_after_partial_rejection", func(s *stream) {
		s.full()
		s.cds("2", edsCluster("c"), cluster("good"), badCluster("bad"))
		s.closed(nil)
		s.figures()
	}},
	{"reconnect_after_removals", func(s *stream) {
		s.open()
		s.cds("1", edsCluster("a"), edsCluster("b"), cluster("s"))
		s.eds("1", assignment("a"), assignment("b"))
		s.lds("1", proxyTo("l", "a"), proxyTo("m", "b"))
		s.cds("2", gone("b"), edsCluster("a"), cluster("s"))
		s.lds("2", gone("m"), proxyTo("l", "a"))
		s.closed(nil)
		s.figures()
	}},
	{"reconnect_same_resources", func(s *stream) {
		one := s.banner("one")
		s.open()
		s.cds("1", edsCluster("c"))
		s.eds("1", assignment("c", one))
		s.lds("1", proxyTo("l", "c"))
		c := s.serves("l", "one")
		s.closed(nil)
		s.cds("1", edsCluster("c"))
		s.eds("1", assignment("c", one))
		s.lds("1", proxyTo("l", "c"))
		c.send("still").expect("still")
		s.figures()
	}},
	{"reconnect_three_times", func(s *stream) {
		s.full()
		s.closed(nil)
		s.closed(nil)
		s.closed(nil)
		s.lds("2", proxyTo("l", "c"))
		s.figures()
	}},
	{"reconnect_endpoints_removed_meanwhile", func(s *stream) {
		s.full()
		s.eds("2", gone("c"))
		s.closed(nil)
		s.figures()
	}},
}

// full is a start with one EDS cluster that serves.
func (s *stream) full() {
	s.Helper()
	s.open()
	s.cds("1", edsCluster("c"))
	s.eds("1", assignment("c", s.banner("one")))
	s.lds("1", proxyTo("l", "c"))
	s.serves("l", "one")
}
