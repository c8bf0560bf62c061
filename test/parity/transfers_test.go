package parity

import (
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

// transfers: what goes through when nothing goes wrong.
var transfers = []scenario{
	{"echo", func(r *run) {
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.dial("l").send("hello").expect("hello").send(" again").expect(" again").fin().end()
		r.movedByConnections()
	}},
	{"server_speaks_first", func(r *run) {
		addr, seen := r.recorder(peer.ResponseThen("220 ready\r\n", nil))
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(addr))}))
		r.dial("l").expect("220 ready\r\n").send("QUIT").fin()
		r.saw(seen)
		r.movedByConnections()
	}},
	{"half_close_by_client", func(r *run) {
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.AnswerAfterEOF)))}))
		r.dial("l").send("12345678").fin().end()
		r.movedByConnections()
	}},
	{"half_close_by_server", func(r *run) {
		addr, seen := r.recorder(peer.ResponseThen("bye", peer.CloseWrite))
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(addr))}))
		c := r.dial("l").end()
		c.send("still talking")
		time.Sleep(100 * time.Millisecond) // the other direction must stay open
		c.send(", and done").fin()
		r.mark()
		r.saw(seen)
		r.movedByConnections()
	}},
	{"early_fin_with_request", func(r *run) {
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		for range 5 {
			r.dial("l").send("request").fin().end()
		}
		r.movedByConnections()
	}},
	{"no_bytes_at_all", func(r *run) {
		addr, seen := r.recorder(nil)
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(addr))}))
		r.dial("l").Close()
		r.saw(seen)
		r.movedByConnections()
	}},
	{"big_both_ways", func(r *run) {
		const n = 16 << 20
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", bothWays(r, n))))}))
		c := r.dial("l")
		bothEnds(r, c, n)
		// Whose end comes last, and so counts as the one that destroyed the
		// connection, is chance here, in Envoy too; and it counts what it wrote
		// upstream now and then some KiB short.
		r.moved(`(cluster\.c\.upstream_cx_rx|tcp\.c\.downstream_cx_[rt]x)_bytes_total`)
	}},
	{"ipv6_listener_and_endpoint", func(r *run) {
		l := proxyTo("l", "c").with(obj{"address": address(netip.MustParseAddrPort("[::1]:0"))})
		r.start(static([]obj{l}, []obj{cluster("c", endpoint(r.serveOn("[::1]:0", "server", peer.Echo)))}))
		r.dial("l").send("hello").expect("hello").fin().end()
		r.movedByConnections()
	}},
	{"ipv6_listener_ipv4_endpoint", func(r *run) {
		l := proxyTo("l", "c").with(obj{"address": address(netip.MustParseAddrPort("[::1]:0"))})
		r.start(static([]obj{l}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.dial("l").send("hello").expect("hello").fin().end()
		r.movedByConnections()
	}},
	{"stats_name_of_listener_without_prefix", func(r *run) {
		port := freePort(r, "127.0.0.1")
		l := proxyTo("l", "c").with(obj{"address": address(port)})
		delete(l, "stat_prefix")
		r.names = append(r.names, strings.ReplaceAll(port.String(), ":", "_"), "<address>")
		r.start(static([]obj{l}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.dial("l").send("hello").expect("hello").fin().end()
		r.moved(`listener\.127\.0\.0\.1_\d+\.downstream_cx_(total|destroy)`)
	}},
}

// bothWays writes n stamped bytes and checks n others, at once.
func bothWays(r *run, n int64) peer.Handler {
	return peer.Both(1, 2, n, func(err error) {
		if err != nil {
			r.note("server: %v", err)
		}
	})
}

func bothEnds(r *run, c *client, n int64) {
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(c.TCPConn, peer.NewSource(2, n)) // seen by the server
		c.fin()
	})
	check := peer.NewChecker(1)
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, err := io.Copy(check, struct{ io.Reader }{c})
	r.note("client: %d good bytes, then %s", check.Good(), endText(err))
	wg.Wait()
}
