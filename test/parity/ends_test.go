package parity

import (
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

const breath = 200 * time.Millisecond // long enough that nothing is in flight

// ends: how the end of one side reaches the other.
var ends = []scenario{
	{"client_rst_idle", func(r *run) {
		addr, seen := r.recorder(nil)
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(addr))}))
		c := r.dial("l")
		time.Sleep(breath)
		r.mark()
		c.reset()
		r.saw(seen)
		r.movedByConnections()
	}},
	{"client_rst_after_data", func(r *run) {
		addr, seen := r.recorder(nil)
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(addr))}))
		c := r.dial("l").send("some data")
		time.Sleep(breath)
		r.mark()
		c.reset()
		r.saw(seen)
		r.movedByConnections()
	}},
	{"client_rst_after_answer", func(r *run) {
		addr, seen := r.recorder(peer.ResponseThen("banner", nil))
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(addr))}))
		c := r.dial("l").expect("banner").send("data")
		time.Sleep(breath)
		r.mark()
		c.reset()
		r.saw(seen)
		r.movedByConnections()
	}},
	{"client_rst_after_half_close", func(r *run) {
		addr := r.serve("server", peer.Stall)
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(addr))}))
		c := r.dial("l").send("data").fin()
		time.Sleep(breath)
		c.reset()
		r.movedByConnections()
	}},
	{"server_rst_idle", func(r *run) {
		addr := r.serve("server", peer.ResetAfter("", 0, breath))
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(addr))}))
		r.dial("l").end()
		r.movedByConnections()
	}},
	{"server_rst_after_data", func(r *run) {
		addr := r.serve("server", peer.ResetAfter("partial", 4, breath))
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(addr))}))
		r.dial("l").send("data").end()
		r.movedByConnections()
	}},
	{"server_closes_while_client_sends", func(r *run) {
		// The server's kernel answers what was not read by RST.
		addr := r.serve("server", peer.CloseAfter("", 4, breath))
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(addr))}))
		r.dial("l").send("data that is not read").end()
		r.moved(ofListener, ofTCPNoBytes, ofClusterNoBytes)
	}},
	{"server_closes_at_once", func(r *run) {
		addr := r.serve("server", peer.CloseAfter("", 0, 0))
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(addr))}))
		r.dial("l").end().Close()
		r.movedByConnections()
	}},
	{"server_closes_after_answer", func(r *run) {
		addr := r.serve("server", peer.CloseAfter("answer", 7, 0))
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(addr))}))
		r.dial("l").send("request").end().Close()
		r.movedByConnections()
	}},
	{"client_closes_with_answer_unread", func(r *run) {
		addr, seen := r.recorder(peer.ResponseThen("answer", nil))
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(addr))}))
		c := r.dial("l")
		time.Sleep(breath)
		r.mark()
		c.Close()
		r.saw(seen)
		r.movedByConnections()
	}},
	{"idle_timeout", func(r *run) {
		addr, seen := r.recorder(nil)
		l := listener("l", chain(tcpProxy("c").set("idle_timeout", "1s")))
		r.start(static([]obj{l}, []obj{cluster("c", endpoint(addr))}))
		r.dial("l").end()
		r.saw(seen)
		r.movedByConnections()
	}},
	{"idle_timeout_after_data", func(r *run) {
		l := listener("l", chain(tcpProxy("c").set("idle_timeout", "1s")))
		r.start(static([]obj{l}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		c := r.dial("l")
		for range 4 { // 1.6 s in all: each byte must put it off
			time.Sleep(400 * time.Millisecond)
			c.send("x").expect("x")
		}
		r.mark()
		c.end()
		r.movedByConnections()
	}},
	{"idle_timeout_put_off_by_answers", func(r *run) {
		l := listener("l", chain(tcpProxy("c").set("idle_timeout", "1s")))
		r.start(static([]obj{l}, []obj{cluster("c", endpoint(r.serve("server", peer.Drip("x", 4, 400*time.Millisecond))))}))
		c := r.dial("l").expect("xxxx")
		r.mark()
		c.end()
		r.movedByConnections()
	}},
	{"idle_timeout_half_closed", func(r *run) {
		l := listener("l", chain(tcpProxy("c").set("idle_timeout", "1s")))
		r.start(static([]obj{l}, []obj{cluster("c", endpoint(r.serve("server", peer.Stall)))}))
		r.dial("l").send("data").fin().end()
		r.movedByConnections()
	}},
}
