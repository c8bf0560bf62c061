package parity

import (
	"context"
	"net"
)

// gate is a back end of checks, which says PONG once it is opened, and the check.
// Each host of a story has one, at another port than its traffic.
func (s *stream) gate(name string) (at func(obj) obj, open, stop func()) {
	opened := make(chan struct{})
	addr, stop := s.speaks(name, func(ctx context.Context, c *net.TCPConn) {
		buf := make([]byte, 64)
		for {
			if n, err := c.Read(buf); n == 0 || err != nil {
				return
			}
			select {
			case <-opened:
			case <-ctx.Done():
				return
			}
			if _, err := c.Write([]byte("PONG")); err != nil {
				return
			}
		}
	})
	return func(e obj) obj {
		e["endpoint"].(obj)["health_check_config"] = obj{"port_value": addr.Port()}
		return e
	}, func() { close(opened) }, stop
}

func pings() obj {
	return checks(check("tcp_health_check", obj{"send": hex("PING"), "receive": []obj{hex("PONG")}}).with(obj{"timeout": "20s"})).
		with(obj{"common_lb_config": obj{"update_merge_window": "0s"}})
}

const ofChecked = ofMembers + `|cluster\.[^.]+\.health_check\.healthy|cluster_manager\.(active|warming)_clusters`

// checkedStories: clusters wait for the first round of their active checks, and
// hosts that discovery drops for a bad one.
var checkedStories = []story{
	{"hc_cluster_waits_for_its_first_round", func(s *stream) {
		at, open, _ := s.gate("check")
		s.ready(nil, proxyTo("l", "c"))
		s.cds("2", cluster("c", at(s.banner("one"))).with(pings()))
		s.serves("l", "FIN")
		open()
		s.serves("l", "one")
		s.settle()
		s.moved(ofChecked)
	}},
	{"hc_first_round_after_the_endpoints", func(s *stream) {
		at, open, _ := s.gate("check")
		s.ready(nil, proxyTo("l", "c"))
		s.cds("2", edsCluster("c").with(pings()))
		s.eds("1", assignment("c", at(s.banner("one"))))
		s.serves("l", "FIN")
		open()
		s.serves("l", "one")
		s.settle()
		s.moved(ofChecked)
	}},
	{"hc_changed_cluster_serves_until_checked_anew", func(s *stream) {
		at, open, _ := s.gate("check")
		first, second := cluster("c", s.banner("one")), cluster("c", at(s.banner("two"))).with(pings())
		s.ready([]obj{first}, proxyTo("l", "c"))
		s.serves("l", "one")
		s.cds("2", second)
		s.serves("l", "one")
		open()
		s.serves("l", "two")
		s.settle()
		s.moved(ofChecked)
	}},
	{"hc_warming_cluster_is_removed", func(s *stream) {
		at, _, _ := s.gate("check")
		s.ready(nil, proxyTo("l", "c"))
		s.cds("2", cluster("c", at(s.banner("one"))).with(pings()))
		s.cds("3", gone("c"))
		s.serves("l", "FIN")
		s.moved(`cluster_manager\.(active|warming)_clusters`)
	}},
	{"hc_dropped_host_stays_while_it_is_healthy", func(s *stream) { s.dropped(obj{}) }},
	{"hc_dropped_host_goes_at_once_if_told", func(s *stream) { s.dropped(obj{"ignore_health_on_host_removal": true}) }},
	{"hc_health_is_kept_when_endpoints_change", func(s *stream) {
		one, open1, _ := s.gate("check1")
		two, open2, _ := s.gate("check2")
		open1()
		s.open()
		s.cds("1", edsCluster("c").with(pings()).with(noPanic()))
		e1 := one(s.banner("one"))
		s.eds("1", assignment("c", e1))
		s.become("c", "<one> healthy")
		s.lds("1", proxyTo("l", "c"))
		s.eds("2", assignment("c", e1, two(s.banner("two"))))
		s.become("c", "<one> healthy, <two> /failed_active_hc")
		s.serves("l", "one")
		open2()
		s.become("c", "<one> healthy, <two> healthy")
		s.moved(ofChecked)
	}},
	{"hc_health_of_eds_counts_too", func(s *stream) {
		one, open, _ := s.gate("check")
		open()
		s.open()
		s.cds("1", edsCluster("c").with(pings()))
		e := one(s.banner("one"))
		s.eds("1", assignment("c", e))
		s.become("c", "<one> healthy")
		e["health_status"] = "UNHEALTHY"
		s.eds("2", assignment("c", e))
		s.become("c", "<one> /failed_eds_health")
		delete(e, "health_status")
		s.eds("3", assignment("c", e))
		s.become("c", "<one> healthy")
		s.moved(ofChecked)
	}},
	{"outlier_ejection_survives_new_endpoints", func(s *stream) {
		dead := endpoint(s.nobody("dead"))
		s.open()
		s.cds("1", edsCluster("c").with(outliers(obj{"consecutive_5xx": 1, "base_ejection_time": "60s"})))
		two := s.banner("two")
		s.eds("1", assignment("c", dead, two))
		s.lds("1", proxyTo("l", "c"))
		for range 2 {
			_ = s.hello(s.once("l"))
		}
		s.become("c", "<dead> /failed_outlier_check, <two> healthy")
		s.eds("2", assignment("c", dead, two, s.banner("tri")))
		s.become("c", "<dead> /failed_outlier_check, <tri> healthy, <two> healthy")
		s.moved(`cluster\.c\.(outlier_detection.ejections_active|membership_healthy)`)
	}},
}

// dropped has discovery drop a host that its check calls healthy.
func (s *stream) dropped(with obj) {
	s.Helper()
	one, open1, _ := s.gate("check1")
	two, open2, stop := s.gate("check2")
	open1()
	open2()
	s.open()
	s.cds("1", edsCluster("c").with(pings()).with(with))
	e1 := one(s.banner("one"))
	s.eds("1", assignment("c", e1, two(s.banner("two"))))
	s.become("c", "<one> healthy, <two> healthy")
	s.eds("2", assignment("c", e1))
	if len(with) == 0 {
		s.become("c", "<one> healthy, <two> /pending_dynamic_removal")
		stop()
	}
	s.become("c", "<one> healthy")
	s.moved(ofChecked)
}
