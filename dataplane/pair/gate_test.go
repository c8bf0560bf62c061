package pair

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// asked is a gate that writes down what it was asked, and answers by answer.
type asked struct {
	times, ends atomic.Int32
	answer      atomic.Bool
}

func (a *asked) gate(end bool) bool {
	a.times.Add(1)
	if end {
		a.ends.Add(1)
	}
	return a.answer.Load()
}

// gated makes a pair whose gate answers open.
func (r *rig) gated(open, every bool) (*testPair, *asked) {
	a := &asked{}
	a.answer.Store(open)
	return r.pair(func(c *Config) { c.Gate, c.EveryRead = a.gate, every }), a
}

func (r *rig) await(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("never: %s", what)
		}
	}
}

func (r *rig) open(p *testPair) { r.w.Do(p.Open) }

func say(t testing.TB, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func hear(t testing.TB, c net.Conn, want string) {
	t.Helper()
	buf := make([]byte, len(want))
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != want {
		t.Fatalf("got %q, %v, want %q", buf, err, want)
	}
}

// silent says that nothing is there to be read, and nothing comes for a while.
func silent(t testing.TB, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d, %v, want silence", n, err)
	}
}

func TestGateIsAskedBeforeTheFirstByteOnly(t *testing.T) {
	forEach(t, func(t *testing.T, r *rig) {
		p, a := r.gated(true, false)
		say(t, p.server, "banner")
		hear(t, p.client, "banner")
		if n := a.times.Load(); n != 0 {
			t.Errorf("asked %d times before the client spoke", n)
		}
		pingPong(t, p.client, p.server, 1, 10)
		c := r.status(p)
		if always := r.set.mode == Always; (c.Request.Path == api.PathSplice) != always || c.Request.Reason == reasons[reasonFilter] {
			t.Errorf("after the first byte: %+v", c.Request)
		}
		exchanges := 1 + r.pingPongUntil(p, 10, func(c api.Connection) bool { return r.splice == nil || c.Request.Path == api.PathSplice })
		if n := a.times.Load(); n != 1 || a.ends.Load() != 0 {
			t.Errorf("asked %d times, %d of the end, want once about bytes", n, a.ends.Load())
		}
		if c := r.status(p); c.Request.Bytes != uint64(10*exchanges) || r.splice != nil && c.Request.Path != api.PathSplice {
			t.Errorf("request %+v", c.Request)
		}
	})
}

func TestGateOfEveryReadNeverLeavesTheRelay(t *testing.T) {
	forEach(t, func(t *testing.T, r *rig) {
		p, a := r.gated(true, true)
		told := r.pingPongUntil(p, 10, func(c api.Connection) bool { return r.splice == nil || c.Response.Path == api.PathSplice })
		if n := a.times.Load(); int(n) < told {
			t.Errorf("asked %d times about %d messages", n, told)
		}
		c := r.status(p)
		if c.Request.Path != api.PathRelay || c.Request.Reason != reasons[reasonFilter] || c.Request.Spliced != 0 {
			t.Errorf("request %+v, want the relay because of a filter", c.Request)
		}
		if r.splice != nil && c.Response.Path != api.PathSplice {
			t.Errorf("response %+v, want the splice", c.Response)
		}
		r.w.Do(p.Resplice)
		pingPong(t, p.client, p.server, 3, 10)
		p.client.CloseWrite()
		r.await("the end is asked about", func() bool { return a.ends.Load() > 0 })
	})
}

func TestHeldBytesStayInTheSocketUntilOpen(t *testing.T) {
	forEach(t, func(t *testing.T, r *rig) {
		for _, every := range []bool{false, true} {
			t.Run(fmt.Sprintf("every read %t", every), func(t *testing.T) {
				p, a := r.gated(false, every)
				say(t, p.client, "hold")
				r.await("the gate is asked", func() bool { return a.times.Load() == 1 })
				say(t, p.client, " me")
				say(t, p.server, "banner")
				hear(t, p.client, "banner")
				silent(t, p.server)
				if n := a.times.Load(); n != 1 {
					t.Errorf("asked %d times while it held", n)
				}
				c := r.status(p)
				if c.Request.Relayed != 0 || c.Request.Path != api.PathRelay || c.Request.Reason != reasons[reasonFilter] {
					t.Errorf("held: %+v", c.Request)
				}
				a.answer.Store(true)
				r.open(p)
				hear(t, p.server, "hold me")
				say(t, p.client, "more")
				hear(t, p.server, "more")
				p.client.CloseWrite()
				if n, err := p.server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("server read %d, %v, want EOF", n, err)
				}
			})
		}
	})
}

func TestSpliceAlwaysWaitsForTheGate(t *testing.T) {
	r := newRig(t, Always, "tcp4")
	p, a := r.gated(false, false)
	if c := r.status(p); c.Request.Path != api.PathRelay || c.Response.Path != api.PathSplice {
		t.Fatalf("before the first byte: request %v, response %v", c.Request.Path, c.Response.Path)
	}
	say(t, p.client, "first")
	r.await("the gate is asked", func() bool { return a.times.Load() == 1 })
	if c := r.status(p); c.Request.Path != api.PathRelay {
		t.Fatalf("held, and on path %v", c.Request.Path)
	}
	r.open(p)
	hear(t, p.server, "first")
	if c := r.status(p); c.Request.Path != api.PathSplice || c.Request.Bytes != 5 {
		t.Errorf("after the gate opened: %+v", c.Request)
	}
}

func TestEndWithoutBytesIsAskedAbout(t *testing.T) {
	forEach(t, func(t *testing.T, r *rig) {
		p, a := r.gated(false, false)
		p.client.CloseWrite()
		r.await("the gate is asked about the end", func() bool { return a.ends.Load() == 1 })
		silent(t, p.server)
		a.answer.Store(true)
		r.open(p)
		p.server.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := p.server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("server read %d, %v, want EOF", n, err)
		}
		p.server.Close()
		if o := p.end(t); o != Complete {
			t.Errorf("ended %v", o)
		}
	})
}

func TestResetOfAHeldClientEndsThePairWithoutItsBytes(t *testing.T) {
	forEach(t, func(t *testing.T, r *rig) {
		p, a := r.gated(false, false)
		say(t, p.client, "never let through")
		r.await("the gate is asked", func() bool { return a.times.Load() == 1 })
		p.client.SetLinger(0)
		p.client.Close()
		p.server.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := p.server.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("server read %d, %v, want a reset", n, err)
		}
		if o := p.end(t); o != DownstreamReset {
			t.Errorf("ended %v", o)
		}
	})
}

func TestEndOfTheUpstreamReachesAHeldClient(t *testing.T) {
	forEach(t, func(t *testing.T, r *rig) {
		p, a := r.gated(false, false)
		say(t, p.client, "held")
		r.await("the gate is asked", func() bool { return a.times.Load() == 1 })
		say(t, p.server, "bye")
		p.server.CloseWrite()
		hear(t, p.client, "bye")
		if n, err := p.client.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("client read %d, %v, want EOF", n, err)
		}
		a.answer.Store(true)
		r.open(p)
		hear(t, p.server, "held")
		p.client.CloseWrite()
		if o := p.end(t); o != Complete {
			t.Errorf("ended %v", o)
		}
	})
}

func TestResetOfTheUpstreamEndsAHeldPair(t *testing.T) {
	forEach(t, func(t *testing.T, r *rig) {
		p, a := r.gated(false, false)
		say(t, p.client, "held")
		r.await("the gate is asked", func() bool { return a.times.Load() == 1 })
		p.server.SetLinger(0)
		p.server.Close()
		p.client.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := p.client.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("client read %d, %v, want a reset", n, err)
		}
		if o := p.end(t); o != UpstreamReset {
			t.Errorf("ended %v", o)
		}
		r.open(p) // comes too late, and does nothing
	})
}

// A held pair must not turn the loop: not for bytes that wait, not when both ends
// are shut.
func TestAHeldPairDoesNotSpin(t *testing.T) {
	r := newRig(t, Off, "tcp4")
	p, a := r.gated(false, false)
	calm := func() {
		t.Helper()
		var before, after uint64
		r.w.Do(func() { before = r.w.Iterations })
		time.Sleep(100 * time.Millisecond) // what is measured is that nothing happens
		r.w.Do(func() { after = r.w.Iterations })
		if after-before > 50 {
			t.Errorf("%d rounds in a tenth of a second", after-before)
		}
	}
	say(t, p.client, "wait")
	r.await("the gate is asked", func() bool { return a.times.Load() == 1 })
	calm()
	p.client.CloseWrite()
	p.server.CloseWrite()
	if n, err := p.client.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("client read %d, %v, want EOF", n, err)
	}
	calm()
	silent(t, p.server) // the FIN opens nothing
	if n := a.times.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	a.answer.Store(true)
	r.open(p)
	hear(t, p.server, "wait")
	if o := p.end(t); o != Complete {
		t.Errorf("ended %v", o)
	}
}

// The gate may end the pair from inside.
func TestGateMayCloseThePair(t *testing.T) {
	forEach(t, func(t *testing.T, r *rig) {
		var tp *testPair
		ready := make(chan struct{})
		tp = r.pair(func(c *Config) {
			c.Gate = func(bool) bool { <-ready; tp.Close(); return false }
		})
		close(ready)
		say(t, tp.client, "x")
		tp.server.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := tp.server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("server read %d, %v, want EOF", n, err)
		}
		if o := tp.end(t); o != Killed {
			t.Errorf("ended %v", o)
		}
	})
}
