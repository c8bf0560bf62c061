package dataplane

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/drain"
)

// draining is a world whose drains are short.
func draining(t *testing.T, d DrainOptions) *world {
	t.Helper()
	w := &world{t: t, store: stats.New()}
	var err error
	if w.plane, err = New(Options{Concurrency: 2, Stats: w.store, Drain: d, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.plane.Close() })
	w.snap.Clusters = api.ClusterSet{}
	w.cluster("c", banner(t, "b"))
	return w
}

// ends waits for the end of a connection and tells whether it was clean.
func ends(t *testing.T, c net.Conn) error {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err := io.Copy(io.Discard, c)
	return err
}

func open(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("the connection has ended: %v", err)
	}
}

func bySource(name, idle string, chains ...string) []*api.FilterChain {
	d, _ := time.ParseDuration(idle)
	var out []*api.FilterChain
	for i, c := range chains {
		p := &api.TCPProxy{StatPrefix: c, Cluster: "c", IdleTimeout: time.Hour, MaxConnectAttempts: 1}
		if c == name {
			p.IdleTimeout = d
		}
		m := api.FilterChainMatch{SourcePrefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)}), 32)}}
		out = append(out, &api.FilterChain{Name: c, Match: m, Filters: []api.Filter{{TCPProxy: p}}})
	}
	return out
}

func from(t *testing.T, source, to string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(source), 0))}
	c, err := d.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if got := readLine(t, c); got != "b" {
		t.Fatalf("banner %q", got)
	}
	return c
}

func TestConnectionsOfARemovedListenerEndOneByOne(t *testing.T) {
	w := draining(t, DrainOptions{Time: 2 * time.Second})
	addr, kept := free(t), free(t)
	other := tcpListener("other", kept, "c")
	w.apply(tcpListener("l", addr, "c"), other)
	const n = 20
	var conns []net.Conn
	for range n {
		conns = append(conns, talk(t, "tcp", addr, "b"))
	}
	stays := talk(t, "tcp", kept, "b")
	start := time.Now()
	w.apply(other)
	if v := w.value("listener_manager.total_listeners_draining"); v != 1 {
		t.Errorf("%d listeners drain, want 1", v)
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("the listener accepts still")
	}
	open(t, conns[0])
	first, last := time.Hour, time.Duration(0)
	type end struct {
		at  time.Duration
		err error
	}
	at := make(chan end, n)
	for _, c := range conns {
		go func() { err := ends(t, c); at <- end{time.Since(start), err} }()
	}
	for range n {
		e := <-at
		if e.err != nil {
			t.Errorf("not a clean end: %v", e.err)
		}
		first, last = min(first, e.at), max(last, e.at)
	}
	if first < 1800*time.Millisecond {
		t.Errorf("the first ended after %v of 2 s", first)
	}
	// The window has 200 ms; all at once would be within the time of one round.
	if last-first < 50*time.Millisecond {
		t.Errorf("all ended within %v", last-first)
	}
	open(t, stays)
	w.await("listener_manager.total_listeners_draining", 0)
}

func TestAnUpdateKeepsConnectionsUnlessTheOperatorSaysDrain(t *testing.T) {
	for _, policy := range []bool{false, true} {
		w := draining(t, DrainOptions{Time: 200 * time.Millisecond, OnUpdate: policy})
		addr := free(t)
		l := tcpListener("l", addr, "c")
		l.FilterChains = bySource("", "", "a", "b")
		w.apply(l)
		a, b := from(t, "127.0.0.1", addr), from(t, "127.0.0.2", addr)
		changed := *l
		changed.FilterChains = bySource("a", "2h", "a", "b")
		w.apply(&changed)
		if policy {
			if err := ends(t, a); err != nil {
				t.Errorf("of the changed chain: %v", err)
			}
		} else {
			time.Sleep(300 * time.Millisecond) // twice the drain time: nothing may happen
			open(t, a)
		}
		open(t, b)
		another := changed
		another.StatPrefix = "other"
		w.apply(&another)
		c := from(t, "127.0.0.2", addr)
		if policy {
			if err := ends(t, b); err != nil {
				t.Errorf("of the changed listener: %v", err)
			}
		} else {
			time.Sleep(300 * time.Millisecond)
			open(t, b)
		}
		open(t, c)
	}
}

func TestAnEndInADrainThatCutsBytesOffIsAReset(t *testing.T) {
	w := draining(t, DrainOptions{Time: 100 * time.Millisecond})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	w.cluster("c", ln.Addr().(*net.TCPAddr).AddrPort())
	addr := free(t)
	w.apply(tcpListener("l", addr, "c"))
	c := dial(t, addr)
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	// The server does not read: the proxy is left with bytes in hand.
	c.SetWriteDeadline(time.Now().Add(time.Second))
	chunk := make([]byte, 1<<20)
	for {
		if _, err := c.Write(chunk); err != nil {
			break
		}
	}
	w.apply()
	w.await("tcp.l.downstream_cx_total", 1)
	for deadline := time.Now().Add(5 * time.Second); len(w.plane.Connections()) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the connection does not end")
		}
	}
	if err := ends(t, server); err == nil {
		t.Error("the server sees a clean end of a stream that was cut off")
	}
}

func TestDrainListenersStopsThem(t *testing.T) {
	for _, tt := range []struct {
		what                            string
		inboundOnly, graceful, skipExit bool
		in, out                         bool // accept in the end
		stopped                         uint64
	}{
		{"all", false, false, false, false, false, 2},
		{"inbound", true, false, false, false, true, 1},
		{"gracefully", false, true, false, false, false, 2},
		{"never", false, true, true, true, true, 0},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := draining(t, DrainOptions{Time: 300 * time.Millisecond})
			in, out := tcpListener("in", free(t), "c"), tcpListener("out", free(t), "c")
			in.Direction, out.Direction = api.Inbound, api.Outbound
			w.apply(in, out)
			held := talk(t, "tcp", in.Addresses[0].String(), "b")
			w.plane.DrainListeners(tt.inboundOnly, tt.graceful, tt.skipExit)
			if tt.graceful {
				talk(t, "tcp", in.Addresses[0].String(), "b")
			}
			w.await("listener_manager.listener_stopped", tt.stopped)
			if tt.skipExit {
				time.Sleep(400 * time.Millisecond) // past the drain time: they must not stop
			}
			for l, want := range map[*api.Listener]bool{in: tt.in, out: tt.out} {
				c, err := net.Dial("tcp", l.Addresses[0].String())
				if err == nil {
					c.Close()
				}
				if got := err == nil; got != want {
					t.Errorf("%s accepts: %t, want %t", l.Name, got, want)
				}
			}
			open(t, held)
			late := tcpListener("late", free(t), "c")
			late.Direction = api.Inbound
			if a := w.apply(in, late, out); a.Refused != nil {
				t.Fatal(a.Refused)
			}
			c, err := net.Dial("tcp", late.Addresses[0].String())
			if err == nil {
				c.Close()
			}
			if got := err == nil; got != tt.skipExit {
				t.Errorf("a listener added later accepts: %t", got)
			}
		})
	}
}

func TestCheckDrainCloseEndsAConnectionThatMoves(t *testing.T) {
	w := draining(t, DrainOptions{Time: time.Hour, Strategy: drain.Immediate})
	addr := free(t)
	l := tcpListener("l", addr, "c")
	l.FilterChains[0].Filters[0].TCPProxy.CheckDrainClose = true
	w.apply(l)
	moves, silent := talk(t, "tcp", addr, "b"), talk(t, "tcp", addr, "b")
	w.plane.Flush() // every worker is done with what the clients have read
	w.plane.FailHealthChecks(true)
	if _, err := moves.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := ends(t, moves); err != nil {
		t.Error(err)
	}
	w.await("tcp.l.downstream_cx_drain_close", 1)
	w.plane.FailHealthChecks(false)
	open(t, silent)
}

func TestAPlaneClosesInTheMiddleOfADrain(t *testing.T) {
	w := draining(t, DrainOptions{Time: 100 * time.Second})
	w.apply(tcpListener("l", free(t), "c"))
	w.apply()
	w.plane.DrainListeners(false, true, false)
	if err := w.plane.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(w.plane.timers); n != 0 {
		t.Errorf("%d timers are left", n)
	}
}
