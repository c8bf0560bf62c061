package parity

import (
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

func (r *run) refused() netip.AddrPort {
	addr, release, err := peer.Refused()
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(release)
	return addr
}

func (r *run) hole() *peer.Hole {
	h, err := peer.NewHole()
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { h.Close() })
	return h
}

// silentAndTalking notes the end of a client that says nothing. One that has
// spoken gets a RST from the kernel, or a FIN if its bytes came later than the
// close: what is noted of it is only that it got nothing.
func (r *run) silentAndTalking(listener string) {
	r.dial(listener).as("silent client").end()
	c := r.dial(listener).send("bytes that nobody reads")
	buf := make([]byte, 1)
	_ = c.SetReadDeadline(time.Now().Add(4 * time.Second))
	n, err := c.Read(buf)
	_, ended := peer.EndOf(err)
	r.note("talking client: got %d bytes, ended: %t %s", n, ended && err != nil, r.when(time.Now()))
}

// failures: when there is nobody to proxy to.
var failures = []scenario{
	{"refused_connect", func(r *run) {
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.refused()))}))
		r.silentAndTalking("l")
		r.movedByConnections()
	}},
	{"refused_connect_three_attempts", func(r *run) {
		l := listener("l", chain(tcpProxy("c").set("max_connect_attempts", 3)))
		r.start(static([]obj{l}, []obj{cluster("c", endpoint(r.refused()))}))
		r.dial("l").end()
		r.movedByConnections()
	}},
	{"second_attempt_finds_the_other_host", func(r *run) {
		l := listener("l", chain(tcpProxy("c").set("max_connect_attempts", 2)))
		r.start(static([]obj{l}, []obj{cluster("c", endpoint(r.refused()), endpoint(r.serve("server", peer.Echo)))}))
		for range 4 {
			r.dial("l").send("hello").expect("hello").fin().end()
		}
		r.moved(ofListener, ofTCP, `cluster\.c\.upstream_rq_total`)
	}},
	{"connect_timeout", func(r *run) {
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.hole().Addr())).with(obj{"connect_timeout": "1s"})}))
		r.dial("l").end()
		r.movedByConnections()
	}},
	{"unknown_cluster", func(r *run) {
		r.start(static([]obj{proxyTo("l", "nosuch")}, nil))
		r.silentAndTalking("l")
		r.movedByConnections()
	}},
	{"no_endpoints", func(r *run) {
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c")}))
		r.silentAndTalking("l")
		r.movedByConnections()
	}},
	{"all_unhealthy_panic_off", func(r *run) {
		c := cluster("c", endpoint(r.serve("server", peer.Echo)).with(obj{"health_status": "UNHEALTHY"})).with(noPanic())
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.silentAndTalking("l")
		r.movedByConnections()
	}},
	{"all_unhealthy_panic_on", func(r *run) {
		c := cluster("c", endpoint(r.serve("server", peer.Echo)).with(obj{"health_status": "UNHEALTHY"}))
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.dial("l").send("hello").expect("hello").fin().end()
		r.movedByConnections()
	}},
	{"client_closes_while_connecting", func(r *run) {
		h := r.hole()
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(h.Addr())).with(obj{"connect_timeout": "1s"})}))
		c := r.dial("l")
		time.Sleep(breath)
		c.Close()
		time.Sleep(breath)
		r.moved(`cluster\.c\.upstream_cx_(total|active)`, `listener\.l\.downstream_cx_(total|active)`)
		time.Sleep(time.Second)
		r.movedByConnections()
	}},
	{"client_resets_while_connecting", func(r *run) {
		h := r.hole()
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(h.Addr())).with(obj{"connect_timeout": "1s"})}))
		c := r.dial("l")
		time.Sleep(breath)
		c.reset()
		time.Sleep(1200 * time.Millisecond)
		r.movedByConnections()
	}},
	{"client_half_closes_while_connecting", func(r *run) {
		h := r.hole()
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(h.Addr())).with(obj{"connect_timeout": "1s"})}))
		r.dial("l").fin().end()
		r.movedByConnections()
	}},
	{"backend_comes_back", func(r *run) {
		addr := freePort(r.TB, "127.0.0.1")
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(addr))}))
		r.dial("l").end()
		r.serveOn(addr.String(), "server", peer.Echo)
		r.dial("l").send("hello").expect("hello").fin().end()
		r.movedByConnections()
	}},
}

func noPanic() obj {
	return obj{"common_lb_config": obj{"healthy_panic_threshold": obj{"value": 0}}}
}

// limits: the circuit breakers.
var limits = []scenario{
	{"max_connections", func(r *run) {
		c := cluster("c", endpoint(r.serve("server", peer.Echo))).with(threshold("max_connections", 2))
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		one := r.dial("l").as("first").send("1").expect("1")
		two := r.dial("l").as("second").send("2").expect("2")
		r.moved(ofBreakers)
		r.dial("l").as("third").end()
		one.fin().end()
		r.moved(ofBreakers, `cluster\.c\.upstream_cx_active`)
		four := r.dial("l").as("fourth").send("4").expect("4")
		two.fin().end()
		four.fin().end()
		r.movedByConnections()
	}},
	{"max_connections_zero", func(r *run) {
		c := cluster("c", endpoint(r.serve("server", peer.Echo))).with(threshold("max_connections", 0))
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		r.silentAndTalking("l")
		r.movedByConnections()
	}},
	{"max_pending_requests", func(r *run) {
		c := cluster("c", endpoint(r.hole().Addr())).with(threshold("max_pending_requests", 1)).with(obj{"connect_timeout": "2s"})
		r.start(static([]obj{proxyTo("l", "c")}, []obj{c}))
		one := r.dial("l").as("first")
		time.Sleep(breath)
		begun := r.since
		r.dial("l").as("second").end()
		r.moved(ofBreakers, `cluster\.c\.upstream_rq_pending_.*`)
		r.since = begun
		one.end()
		r.movedByConnections()
	}},
	{"breakers_are_per_cluster_not_per_listener", func(r *run) {
		c := cluster("c", endpoint(r.serve("server", peer.Echo))).with(threshold("max_connections", 1))
		r.start(static([]obj{proxyTo("l", "c"), proxyTo("m", "c")}, []obj{c}))
		one := r.dial("l").as("by l").send("1").expect("1")
		r.dial("m").as("by m").end()
		one.fin().end()
		r.movedByConnections()
	}},
}

func threshold(field string, n int) obj {
	return obj{"circuit_breakers": obj{"thresholds": []obj{{field: n}}}}
}
