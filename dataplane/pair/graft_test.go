package pair

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
	"golang.org/x/sys/unix"
)

// forEachFamily runs a test with grafts of both families.
func forEachFamily(t *testing.T, f func(t *testing.T, r *rig)) {
	for _, family := range []string{"tcp4", "tcp6"} {
		t.Run(family, func(t *testing.T) { f(t, newGraftRig(t, family)) })
	}
}

// grafted is a pair whose sockets hold nothing any more.
func (r *rig) grafted(change func(*Config)) *testPair {
	r.t.Helper()
	p := r.pair(change)
	pingPong(r.t, p.client, p.server, graftReads/2, 100)
	await(r.t, "the pair is at rest", func() (frozen bool) {
		r.w.Do(func() { frozen = p.Frozen() })
		return frozen
	})
	return p
}

func TestGraftedPairIsLeftAlone(t *testing.T) {
	forEachFamily(t, func(t *testing.T, r *rig) {
		p := r.grafted(nil)
		var before uint64
		r.w.Do(func() { before = r.w.Events })
		pingPong(t, p.client, p.server, 1000, 100)
		c := r.status(p)
		var events uint64
		r.w.Do(func() { events = r.w.Events - before })
		if events > 10 { // of this test's own Do, and the scan
			t.Errorf("the worker was told of %d events while 2000 messages passed", events)
		}
		for _, d := range []api.DirectionStatus{c.Request, c.Response} {
			if d.Path != api.PathGraft || d.Bytes != 100_000+graftReads/2*100 || d.Relayed+d.Grafted != d.Bytes || d.Relayed > 1000 || d.Changes != 1 {
				t.Errorf("%+v", d)
			}
		}
		if c.State != "open" || c.GraftRefused != "" {
			t.Errorf("state %q, refused %q", c.State, c.GraftRefused)
		}
		await(t, "the scan counts its bytes", func() bool { return r.set.GraftedBytes.Load() >= 2*99800 })
		if n := r.set.Thaws.Load(); n != 0 {
			t.Errorf("%d thaws", n)
		}
	})
}

// A socket that waits for an acknowledgement is not at rest: nobody would copy it
// one any more.
func TestPairIsNotAtRestBeforeItsSocketsHoldNothing(t *testing.T) {
	r := newGraftRig(t, "tcp4")
	r.set.graftsByRule = false
	p := r.pair(nil)
	p.server.SetReadBuffer(4096)
	const total = 200 << 10
	go writeStamped(p.client, total, 9)
	queued := func() (n int) {
		r.w.Do(func() { n, _ = outq(p.ends[1].fd) })
		return n
	}
	await(t, "the proxy has it all", func() bool { return r.status(p).Request.Relayed == total && queued() > 0 })
	r.w.Do(func() { p.Force(0, api.PathGraft) })
	await(t, "the grace period", func() (over bool) {
		r.w.Do(func() { over = p.cfg.graft.Settled() })
		return over
	})
	r.w.Do(func() {
		p.direction[1].pump()
		if n, _ := outq(p.ends[1].fd); n > 0 && p.Frozen() {
			t.Errorf("at rest with %d bytes that the server has not acknowledged", n)
		}
	})
	p.client.CloseWrite()
	if n := readStamped(t, p.server, 9); n != total {
		t.Errorf("got %d bytes, want %d", n, total)
	}
}

// The end of either side is passed on, and the other may go on for as long as it likes.
func TestGraftedPairEndsAsItsSidesDo(t *testing.T) {
	forEachFamily(t, func(t *testing.T, r *rig) {
		for first := range 2 {
			p := r.grafted(nil)
			a, b := p.client, p.server
			if first == 1 {
				a, b = b, a
			}
			a.CloseWrite()
			b.SetReadDeadline(time.Now().Add(5 * time.Second))
			if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Fatalf("read %d, %v, want EOF", n, err)
			}
			if c := r.status(p); c.State != "half-closed" {
				t.Errorf("state %q", c.State)
			}
			for range 10 {
				pingHalf(t, b, a)
			}
			b.Close()
			if n, err := a.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("read %d, %v, want EOF", n, err)
			}
			if o := p.end(t); o != Complete || p.FirstEnd() != first {
				t.Errorf("ended %v, first %d, want %d", o, p.FirstEnd(), first)
			}
		}
	})
}

func TestResetOfAGraftedPairIsPassedOn(t *testing.T) {
	forEachFamily(t, func(t *testing.T, r *rig) {
		for i, want := range []Outcome{DownstreamReset, UpstreamReset} {
			p := r.grafted(nil)
			ends := [2]*net.TCPConn{p.client, p.server}
			ends[i].SetLinger(0)
			ends[i].Close()
			wantReset(t, ends[1-i])
			if o := p.end(t); o != want {
				t.Errorf("ended %v, want %v", o, want)
			}
		}
	})
}

func wantReset(t *testing.T, c *net.TCPConn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %d bytes, then %v, want a reset", n, err)
	}
}

// A socket at rest does not know where its stream is: its RST is put right on the way.
func TestProxyEndsAGraftedPairByReset(t *testing.T) {
	forEachFamily(t, func(t *testing.T, r *rig) {
		p := r.grafted(nil)
		pingPong(t, p.client, p.server, 20, 5000)
		r.w.Do(func() { p.Kill() })
		if o := p.end(t); o != Killed {
			t.Errorf("ended %v", o)
		}
		wantReset(t, p.client)
		wantReset(t, p.server)
	})
}

// The same with bytes on their way, that nobody reads.
func TestProxyEndsAGraftedPairInMidStream(t *testing.T) {
	forEachFamily(t, func(t *testing.T, r *rig) {
		p := r.grafted(nil)
		sent := make(chan error, 1)
		go func() {
			_, err := p.client.Write(make([]byte, 64<<20))
			sent <- err
		}()
		await(t, "bytes pass", func() bool { return r.status(p).Request.Grafted > 100<<10 })
		r.w.Do(p.Kill)
		if err := <-sent; !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("the client's write: %v", err)
		}
		wantReset(t, p.server)
	})
}

// A packet that slips past the programs reaches a frozen socket: the pair goes back
// to draining, and nothing is lost.
func TestPacketAtAFrozenSocketThaws(t *testing.T) {
	forEachFamily(t, func(t *testing.T, r *rig) {
		p := r.grafted(nil)
		r.w.Do(func() {
			plant := bpf.GraftPlant{Grafted: &p.cfg.graft.Grafted}
			plant.Pass(true)
			p.client.Write([]byte("late"))
			for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
				if n, err := unread(p.ends[0].fd); err == 0 && n == 4 {
					break
				}
			}
			plant.Pass(false)
		})
		got := make([]byte, 4)
		p.server.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadFull(p.server, got); err != nil || string(got) != "late" {
			t.Fatalf("read %q, %v", got, err)
		}
		pingPong(t, p.client, p.server, 10, 1000)
		await(t, "the pair is at rest again", func() (frozen bool) {
			r.w.Do(func() { frozen = p.Frozen() })
			return frozen
		})
		pingPong(t, p.client, p.server, 10, 1000)
		if n := r.set.Thaws.Load(); n != 1 {
			t.Errorf("%d thaws", n)
		}
		if c := r.status(p); c.Request.Bytes != graftReads/2*100+4+20000 {
			t.Errorf("%+v", c.Request)
		}
	})
}

// An event is lost when its ring is full: the scan finds the end.
func TestLostEventOfAGraftIsFoundByTheScan(t *testing.T) {
	r := newGraftRig(t, "tcp4")
	p := r.grafted(nil)
	bpf.GraftPlant{Grafted: &p.cfg.graft.Grafted}.LoseEvents()
	p.client.Close()
	p.server.Close()
	if o := p.end(t); o != Complete {
		t.Errorf("ended %v", o)
	}
}

func TestGraftIsRefusedWithAReason(t *testing.T) {
	r := newGraftRig(t, "tcp4")
	set := func(level, name, value int) func(*Config) {
		return func(c *Config) {
			if err := setsockopt(c.Upstream, level, name, value); err != 0 {
				t.Error(err)
			}
		}
	}
	for name, change := range map[string]func(*Config){
		"a filter must see its bytes": func(c *Config) { c.Moved = func() {} },
		"unix":                        func(c *Config) { c.Unix = true },
		"keep-alive":                  set(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
		"a mark":                      set(unix.SOL_SOCKET, unix.SO_MARK, 7),
		"not this machine's":          set(unix.SOL_IP, unix.IP_TRANSPARENT, 1),
		"under repair":                set(unix.IPPROTO_TCP, unix.TCP_REPAIR, 1),
	} {
		t.Run(name, func(t *testing.T) {
			p := r.pair(change)
			if name == "under repair" { // nothing is sent in it
				r.w.Do(func() { p.Force(0, api.PathGraft) })
			} else {
				pingPong(t, p.client, p.server, 10, 10)
			}
			c := r.status(p)
			if c.Request.Path == api.PathGraft || !strings.Contains(c.GraftRefused, name) {
				t.Errorf("path %v, refused for %q", c.Request.Path, c.GraftRefused)
			}
		})
	}
	t.Run("connection tracking", func(t *testing.T) {
		r.w.Do(func() { r.set.isTracked, r.set.trackedRead = true, r.w.Now()+int64(time.Hour) })
		p := r.pair(nil)
		pingPong(t, p.client, p.server, 10, 10)
		if c := r.status(p); !strings.Contains(c.GraftRefused, "connection tracking") {
			t.Errorf("path %v, refused for %q", c.Request.Path, c.GraftRefused)
		}
	})
}

func TestSplicedPairIsNotGrafted(t *testing.T) {
	r := newRig(t, Always, "tcp4")
	p := r.pair(nil)
	pingPong(t, p.client, p.server, 10, 10)
	r.w.Do(func() {
		r.set.graft = new(bpf.Graft)
		for i := range p.direction {
			p.Force(i, api.PathRelay)
		}
	})
	await(t, "both directions are relayed", func() bool {
		c := r.status(p)
		return c.Request.Path == api.PathRelay && c.Response.Path == api.PathRelay
	})
	r.w.Do(func() { p.Force(0, api.PathGraft) })
	if c := r.status(p); c.Request.Path != api.PathRelay || c.GraftRefused != errGraftSpliced.Error() {
		t.Errorf("path %v, refused for %q", c.Request.Path, c.GraftRefused)
	}
}
