package parity

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

// post sends a POST to the admin server and notes the answer. A breath before it:
// the proxy asks whether it drains after it has written what a client has read.
func (r *run) post(path string) {
	r.Helper()
	time.Sleep(breath)
	resp, err := r.proxy.http.Post("http://"+r.proxy.admin.String()+path, "", nil)
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.Fatal(err)
	}
	r.note("POST %s: %d %q", path, resp.StatusCode, body)
}

// accepts notes whether an address takes connections, once it is as wanted or
// after a while.
func (r *run) accepts(what string, at netip.AddrPort, want bool) {
	r.Helper()
	if r.plant {
		want = !want
	}
	got := !want
	for deadline := time.Now().Add(4 * time.Second); got != want && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		nc, err := net.DialTimeout("tcp", at.String(), time.Second)
		got = err == nil
		if err == nil {
			nc.Close()
		}
	}
	r.note("%s accepts: %t", what, got)
}

// ready answers as /ready does.
func (r *run) state() {
	r.Helper()
	body, code, err := r.proxy.get("/ready")
	if err != nil {
		r.Fatal(err)
	}
	r.note("ready: %d %s", code, strings.TrimSpace(body))
}

// listed notes the names in /listeners.
func (r *run) listed() {
	r.Helper()
	bound, err := r.proxy.listening()
	if err != nil {
		r.Fatal(err)
	}
	var names []string
	for _, n := range []string{"in", "l", "out", "plain"} {
		if _, ok := bound[n]; ok {
			names = append(names, n)
		}
	}
	r.note("listed: %s", strings.Join(names, " "))
}

const (
	ofStops  = `listener_manager\.listener_stopped`
	ofDrains = `tcp\..+\.downstream_cx_drain_close|listener\.[a-z]\.downstream_cx_(total|destroy|active)|cluster\.c\.upstream_cx_(active|destroy(_local|_remote)?)|listener_manager\.total_(listeners|filter_chains)_draining|listener_manager\.listener_(removed|modified|in_place_updated|stopped)`
)

// closing is a listener whose tcp_proxy heeds drains.
func closing(name string) obj {
	return listener(name, chain(tcpProxy("c").set("check_drain_close", true)))
}

// echoing starts a proxy with an echo behind these listeners.
func (r *run) echoing(listeners ...obj) {
	r.Helper()
	r.start(static(listeners, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
}

// directed are three listeners, one for each traffic_direction.
func directed(make func(string) obj) []obj {
	return []obj{make("in").with(obj{"traffic_direction": "INBOUND"}), make("out").with(obj{"traffic_direction": "OUTBOUND"}), make("plain")}
}

func plainly(name string) obj { return proxyTo(name, "c") }

// drains: /drain_listeners and /healthcheck/fail.
var drains = []scenario{
	{"drain_all", func(r *run) {
		r.echoing(directed(plainly)...)
		in, plain := r.bound("in"), r.bound("plain")
		c := r.dial("out").send("before").expect("before")
		r.post("/drain_listeners")
		r.accepts("inbound", in, false)
		r.accepts("undirected", plain, false)
		c.send("after").expect("after").fin().ended()
		r.state()
		r.listed()
		r.moved(ofStops)
	}},
	{"drain_inbound_only", func(r *run) {
		r.echoing(directed(plainly)...)
		in, out, plain := r.bound("in"), r.bound("out"), r.bound("plain")
		c := r.dial("in").send("before").expect("before")
		r.post("/drain_listeners?inboundonly")
		r.accepts("inbound", in, false)
		r.accepts("outbound", out, true)
		r.accepts("undirected", plain, true)
		c.send("after").expect("after").fin().ended()
		r.moved(ofStops)
	}},
	{"drain_graceful", func(r *run) {
		// The listeners accept until the drain time is over.
		r.echoing(directed(plainly)...)
		in := r.bound("in")
		c := r.dial("out").send("before").expect("before")
		r.post("/drain_listeners?graceful")
		r.accepts("at first", in, true)
		time.Sleep(1500 * time.Millisecond)
		r.accepts("at last", in, false)
		c.send("after").expect("after").fin().ended()
		r.moved(ofStops)
	}},
	{"drain_graceful_inbound_only", func(r *run) {
		r.echoing(directed(plainly)...)
		in, out := r.bound("in"), r.bound("out")
		r.post("/drain_listeners?graceful&inboundonly")
		r.accepts("at first", in, true)
		time.Sleep(1500 * time.Millisecond)
		r.accepts("at last", in, false)
		r.accepts("outbound", out, true)
		r.moved(ofStops)
	}},
	{"drain_graceful_skip_exit", func(r *run) {
		r.echoing(directed(plainly)...)
		in := r.bound("in")
		r.post("/drain_listeners?graceful&skip_exit")
		time.Sleep(1500 * time.Millisecond)
		r.accepts("still", in, true)
		r.moved(ofStops)
	}},
	{"drain_skip_exit", func(r *run) {
		r.echoing(directed(plainly)...)
		in := r.bound("in")
		r.post("/drain_listeners?skip_exit")
		time.Sleep(1500 * time.Millisecond)
		r.accepts("still", in, true)
		r.moved(ofStops)
	}},
	{"drain_twice", func(r *run) {
		r.echoing(plainly("l"))
		at := r.bound("l")
		r.post("/drain_listeners")
		r.post("/drain_listeners?graceful")
		r.post("/drain_listeners")
		r.accepts("listener", at, false)
		r.moved(ofStops)
	}},
	{"drain_close_all", func(r *run) {
		r.kind.args = []string{"--drain-strategy", "immediate"}
		r.echoing(closing("l"))
		c := r.dial("l").send("before").expect("before")
		r.post("/drain_listeners")
		time.Sleep(breath)
		r.mark()
		c.send("x").endInDrain()
		r.moved(ofDrains)
	}},
	{"drain_close_graceful", func(r *run) {
		r.kind.args = []string{"--drain-strategy", "immediate"}
		r.echoing(closing("l"))
		c := r.dial("l").send("before").expect("before")
		r.post("/drain_listeners?graceful&skip_exit")
		time.Sleep(breath)
		r.mark()
		c.send("x").endInDrain()
		r.moved(ofDrains)
	}},
	{"drain_close_gradual_is_over", func(r *run) {
		r.echoing(closing("l"))
		c := r.dial("l").send("before").expect("before")
		r.post("/drain_listeners?graceful&skip_exit")
		time.Sleep(1300 * time.Millisecond)
		r.mark()
		c.send("x").endInDrain()
		r.moved(ofDrains)
	}},
	{"drain_close_silent_connection_stays", func(r *run) {
		r.kind.args = []string{"--drain-strategy", "immediate"}
		r.echoing(closing("l"))
		c := r.dial("l").send("before").expect("before")
		time.Sleep(breath) // the proxy may still be busy with what the client has read
		r.post("/drain_listeners?graceful&skip_exit")
		c.endWithin(2 * time.Second)
		r.moved(ofDrains)
	}},
	{"drain_close_new_connection", func(r *run) {
		r.kind.args = []string{"--drain-strategy", "immediate"}
		r.echoing(closing("l"))
		r.post("/drain_listeners?graceful&skip_exit")
		time.Sleep(breath)
		r.dial("l").send("x").endInDrain()
		r.moved(ofDrains)
	}},
	{"drain_close_by_the_servers_bytes", func(r *run) {
		r.kind.args = []string{"--drain-strategy", "immediate"}
		r.start(static([]obj{closing("l")}, []obj{cluster("c", endpoint(r.serve("server", peer.Drip("x", 2, 700*time.Millisecond))))}))
		c := r.dial("l").expect("x")
		r.post("/drain_listeners?graceful&skip_exit")
		c.ended()
		r.moved(ofDrains)
	}},
	{"drain_close_not_outbound", func(r *run) {
		r.kind.args = []string{"--drain-strategy", "immediate"}
		r.echoing(closing("l").with(obj{"traffic_direction": "OUTBOUND"}))
		c := r.dial("l").send("before").expect("before")
		r.post("/drain_listeners?graceful&skip_exit&inboundonly")
		time.Sleep(breath)
		c.send("x").expect("x").endWithin(time.Second)
		r.moved(ofDrains)
	}},
	{"drain_close_inbound", func(r *run) {
		r.kind.args = []string{"--drain-strategy", "immediate"}
		r.echoing(closing("l").with(obj{"traffic_direction": "INBOUND"}))
		c := r.dial("l").send("before").expect("before")
		r.post("/drain_listeners?graceful&skip_exit&inboundonly")
		time.Sleep(breath)
		r.mark()
		c.send("x").endInDrain()
		r.moved(ofDrains)
	}},
	{"drain_close_healthcheck_fail", func(r *run) {
		r.echoing(closing("l"))
		c := r.dial("l").send("before").expect("before")
		r.post("/healthcheck/fail")
		r.state()
		time.Sleep(breath)
		r.mark()
		c.send("x").endInDrain()
		r.moved(ofDrains)
	}},
	{"drain_close_healthcheck_fail_and_ok", func(r *run) {
		r.echoing(closing("l"))
		c := r.dial("l").send("before").expect("before")
		r.post("/healthcheck/fail")
		r.post("/healthcheck/ok")
		r.state()
		time.Sleep(breath)
		c.send("x").expect("x").endWithin(time.Second)
		r.moved(ofDrains)
	}},
	{"drain_close_modify_only_heeds_no_healthcheck", func(r *run) {
		r.echoing(closing("l").with(obj{"drain_type": "MODIFY_ONLY"}))
		c := r.dial("l").send("before").expect("before")
		r.post("/healthcheck/fail")
		time.Sleep(breath)
		c.send("x").expect("x").endWithin(time.Second)
		r.moved(ofDrains)
	}},
	{"drain_close_modify_only_heeds_drain_listeners", func(r *run) {
		r.kind.args = []string{"--drain-strategy", "immediate"}
		r.echoing(closing("l").with(obj{"drain_type": "MODIFY_ONLY"}))
		c := r.dial("l").send("before").expect("before")
		r.post("/drain_listeners?graceful&skip_exit")
		time.Sleep(breath)
		c.send("x").ended()
		r.moved(ofDrains)
	}},
	{"drain_not_asked_for_by_tcp_proxy", func(r *run) {
		r.kind.args = []string{"--drain-strategy", "immediate"}
		r.echoing(plainly("l"))
		c := r.dial("l").send("before").expect("before")
		r.post("/drain_listeners?graceful&skip_exit")
		r.post("/healthcheck/fail")
		time.Sleep(breath)
		c.send("x").expect("x").endWithin(1500 * time.Millisecond)
		r.moved(ofDrains)
	}},
	{"drain_by_get", func(r *run) {
		r.echoing(plainly("l"))
		body, code, err := r.proxy.get("/drain_listeners")
		if err != nil {
			r.Fatal(err)
		}
		r.note("GET: %d %q", code, body)
		r.accepts("listener", r.bound("l"), true)
		r.moved(ofStops)
	}},
}

// drainStories: listeners and chains that a control plane changes or removes
// under connections.
var drainStories = []story{
	{"drain_removed_listener", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"), proxyTo("m", "c"))
		c, kept := s.serves("l", "one"), s.serves("m", "one")
		s.push("LDS", "2", gone("l"), proxyTo("m", "c"))
		s.mark()
		c.endInDrain()
		kept.send("still").expect("still")
		s.moved(ofDrains)
	}},
	{"drain_removed_listener_with_traffic", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"), proxyTo("m", "c"))
		c := s.serves("l", "one")
		s.push("LDS", "2", gone("l"), proxyTo("m", "c"))
		s.mark()
		for range 3 {
			c.send("ping").expect("ping")
			time.Sleep(breath / 2)
		}
		c.endInDrain()
		s.moved(ofDrains)
	}},
	{"drain_removed_listener_comes_again", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"), proxyTo("m", "c"))
		c := s.serves("l", "one")
		s.mark()
		s.lds("2", gone("l"), proxyTo("m", "c"))
		s.lds("3", proxyTo("l", "c"), proxyTo("m", "c"))
		c.endInDrain()
		s.serves("l", "one").send("new").expect("new")
		s.moved(ofDrains)
	}},
	{"drain_changed_chain_only", func(s *stream) {
		s.kind.args = drainOnUpdate(s.kind)
		two := func(idle string) obj {
			return listener("l", chain(tcpProxy("c").set("idle_timeout", idle)).with(obj{"name": "a", "filter_chain_match": obj{"source_prefix_ranges": ranges("127.0.0.1/32")}}),
				chain(tcpProxy("c")).with(obj{"name": "b"}))
		}
		s.ready(clusters(cluster("c", s.banner("one"))), two("100s"))
		changed := s.serves("l", "one")
		other := s.dialFrom(netip.MustParseAddrPort("127.0.0.2:0"), s.addresses("l")[0]).as("of the other chain").expect("one\n")
		s.push("LDS", "2", two("200s"))
		s.mark()
		changed.endInDrain()
		other.send("still").expect("still")
		s.moved(ofDrains)
	}},
	{"drain_whole_listener_for_another_field", func(s *stream) {
		s.kind.args = drainOnUpdate(s.kind)
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"))
		c := s.serves("l", "one")
		s.push("LDS", "2", proxyTo("l", "c").with(obj{"traffic_direction": "INBOUND"}))
		s.mark()
		c.endInDrain()
		s.serves("l", "one").send("new").expect("new")
		s.moved(ofDrains)
	}},
	{"drain_close_of_a_removed_listener", func(s *stream) {
		s.kind.args = []string{"--drain-strategy", "immediate"}
		s.ready(clusters(cluster("c", s.banner("one"))), closing("l"), proxyTo("m", "c"))
		c := s.serves("l", "one")
		s.mark()
		s.push("LDS", "2", gone("l"), proxyTo("m", "c"))
		s.await("l gone", func() bool { return len(s.addresses("l")) == 0 })
		c.send("x").endInDrain()
		s.moved(ofDrains)
	}},
	{"drain_stops_new_listeners_too", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"))
		s.post("/drain_listeners")
		s.lds("2", proxyTo("l", "c"), proxyTo("m", "c"))
		s.serves("m", "nobody")
		s.moved(ofDrains)
	}},
	{"drain_inbound_lets_outbound_listeners_in", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"))
		s.post("/drain_listeners?inboundonly")
		s.lds("2", proxyTo("l", "c"), proxyTo("m", "c").with(obj{"traffic_direction": "INBOUND"}), proxyTo("n", "c").with(obj{"traffic_direction": "OUTBOUND"}))
		s.serves("m", "nobody")
		s.serves("n", "one")
		s.moved(ofDrains)
	}},
}

// drainOnUpdate asks Sluice for what Envoy always does.
func drainOnUpdate(k kind) []string {
	if k.name == "sluice" {
		return []string{"--on-update", "drain"}
	}
	return nil
}

// endInDrain notes everything up to the end, and when that came, as coarsely as
// a drain time of a second and a busy machine allow.
func (c *client) endInDrain() {
	data, end, err := peer.ReadToEnd(c, 6*time.Second)
	if err != nil {
		c.r.note("error %v", err)
	}
	when := "at the end of the drain time"
	if time.Since(c.r.since) < 700*time.Millisecond {
		when = "before the end of the drain time"
	}
	c.r.note("%s: got %s, then %s %s", c.name, short(data), end, when)
}

// ended notes everything up to the end, whenever that comes.
func (c *client) ended() {
	data, end, err := peer.ReadToEnd(c, 6*time.Second)
	if err != nil {
		c.r.note("error %v", err)
	}
	c.r.note("%s: got %s, then %s", c.name, short(data), end)
}
