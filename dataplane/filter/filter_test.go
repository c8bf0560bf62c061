package filter

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"
)

func TestFiltersAreAskedInOrderAboutTheConnection(t *testing.T) {
	r := newRig(t)
	_, c, _ := r.accept(&scripted{name: "a"}, &scripted{name: "b"})
	r.expect("a:new b:new last:new")
	if c.Info.ChainName() != "chain" {
		t.Errorf("chain %q", c.Info.ChainName())
	}
	r.do(func() {
		if len(r.core.Connections) != 1 || c.Watch() != Nothing {
			t.Errorf("%d connections, watch %d", len(r.core.Connections), c.Watch())
		}
		c.Close()
		c.Close()
		c.Kill()
		c.Deny("too late")
		if len(r.core.Connections) != 0 || c.Info.Reasons().LocalClose != "" || c.Info.Lasted == 0 {
			t.Errorf("%d connections, %q, ended %v", len(r.core.Connections), c.Info.Reasons().LocalClose, c.Info.Lasted)
		}
	})
	r.expect("last:close log a:ended b:ended last:ended over")
}

func TestStopAtTheConnectionWaitsForResume(t *testing.T) {
	r := newRig(t)
	_, c, _ := r.accept(&scripted{name: "a"}, &scripted{name: "b", fresh: Stop}, &scripted{name: "c"})
	r.expect("a:new b:new")
	r.do(func() {
		if s := c.Status(); s.State != "filtering" {
			t.Errorf("state %q", s.State)
		}
		c.Flush() // there is nothing to flush yet
		c.Resume()
		c.Resume()
	})
	r.expect("c:new last:new")
}

func TestClosedAtTheConnectionEndsIt(t *testing.T) {
	r := newRig(t)
	client, c, _ := r.accept(&scripted{name: "a", fresh: Closed}, &scripted{name: "b"})
	r.expect("a:new log a:ended b:ended last:ended over")
	client.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := client.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("client read %d, %v, want EOF", n, err)
	}
	if c.Info.Reasons().LocalClose != "a said no" {
		t.Errorf("reason %q", c.Info.Reasons().LocalClose)
	}
}

func TestDataIsShownToThoseThatWatch(t *testing.T) {
	r := newRig(t)
	a, b, every := &scripted{name: "a"}, &scripted{name: "b", watch: FirstByte}, &scripted{name: "e", watch: EveryByte}
	_, c, _ := r.accept(a, b, every)
	r.expect("a:new b:new e:new last:new")
	r.do(func() {
		if c.Watch() != EveryByte {
			t.Errorf("watch %d", c.Watch())
		}
		for _, end := range []bool{false, false, true} {
			if c.Data(end) != Continue {
				t.Error("not let through")
			}
		}
	})
	r.expect("b:data(false) e:data(false) e:data(false) e:data(true)")
}

func TestFirstByteIsNothingAfterwards(t *testing.T) {
	r := newRig(t)
	_, c, _ := r.accept(&scripted{name: "a", watch: FirstByte})
	r.do(func() {
		if c.Watch() != FirstByte || c.Data(true) != Continue || c.Watch() != Nothing {
			t.Errorf("watch %d", c.Watch())
		}
	})
	r.expect("a:new last:new a:data(true)")
}

func TestStopAtDataHoldsUntilResume(t *testing.T) {
	r := newRig(t)
	stop := &scripted{name: "b", watch: FirstByte, data: func(*Connection, bool) Status { return Stop }}
	_, c, _ := r.accept(&scripted{name: "a", watch: FirstByte}, stop, &scripted{name: "c", watch: FirstByte})
	r.do(func() {
		for range 2 {
			if c.Data(true) != Stop || c.Watch() != FirstByte {
				t.Error("not held")
			}
		}
	})
	r.expect("a:new b:new c:new last:new a:data(true) b:data(true)")
	r.do(c.Resume)
	r.expect("c:data(true) last:resume")
	r.do(func() {
		if c.Watch() != Nothing || c.Data(false) != Continue {
			t.Errorf("watch %d", c.Watch())
		}
		c.Resume() // nothing is held
	})
	if s := r.heard(); s != "" {
		t.Errorf("happened after all was let through: %s", s)
	}
}

func TestHeldTwiceIsResumedTwice(t *testing.T) {
	r := newRig(t)
	stop := func(*Connection, bool) Status { return Stop }
	_, c, _ := r.accept(&scripted{name: "a", watch: EveryByte, data: stop}, &scripted{name: "b", watch: FirstByte, data: stop})
	r.do(func() { c.Data(false); c.Resume() })
	r.expect("a:new b:new last:new a:data(false) b:data(false)")
	r.do(c.Resume)
	r.expect("last:resume")
	r.do(func() {
		if c.Data(false) != Stop {
			t.Error("the one that watches every byte was not asked")
		}
	})
	r.expect("a:data(false)")
}

func TestAConnectionThatEndedIsNotResumed(t *testing.T) {
	for _, phase := range []string{"connection", "data"} {
		t.Run(phase, func(t *testing.T) {
			r := newRig(t)
			a := &scripted{name: "a", watch: FirstByte, data: func(*Connection, bool) Status { return Stop }}
			if phase == "connection" {
				a.fresh = Stop
			}
			_, c, _ := r.accept(a)
			r.do(func() {
				if phase == "data" {
					c.Data(false)
				}
				r.said = nil
				c.Kill()
				c.Resume()
			})
			want := "log a:ended last:ended over"
			if phase == "data" {
				want = "last:kill " + want
			}
			r.expect(want)
		})
	}
}

func TestClosedAtDataEndsTheConnection(t *testing.T) {
	r := newRig(t)
	deny := &scripted{name: "b", watch: FirstByte, data: func(c *Connection, _ bool) Status { c.Deny("no"); return Closed }}
	_, c, _ := r.accept(&scripted{name: "a"}, deny, &scripted{name: "c", watch: FirstByte})
	r.do(func() {
		if c.Data(false) != Closed {
			t.Error("let through")
		}
	})
	r.expect("a:new b:new c:new last:new b:data(false) last:close log a:ended b:ended c:ended last:ended over")
}

// Deny reads what the client sent and throws it away, as Envoy has read it when
// its filters decide: else the kernel makes an RST of the close.
func TestDenyIsAFINAlthoughBytesWait(t *testing.T) {
	for _, tt := range []struct {
		what  string
		limit uint32
		reset bool
	}{{"within the limit", 1 << 20, false}, {"beyond the limit", 4, true}} {
		t.Run(tt.what, func(t *testing.T) {
			r := newRig(t)
			client, c, _ := r.accept(&scripted{name: "a", fresh: Stop})
			if _, err := client.Write([]byte("ten bytes.")); err != nil {
				t.Fatal(err)
			}
			if err := waitFor(c.FD, 10); err != nil {
				t.Fatal(err)
			}
			r.do(func() { c.Owner.(*owner).limit = tt.limit; c.Deny("denied") })
			client.SetReadDeadline(time.Now().Add(5 * time.Second))
			n, err := client.Read(make([]byte, 1))
			if want := map[bool]error{false: io.EOF, true: syscall.ECONNRESET}[tt.reset]; n != 0 || !errors.Is(err, want) {
				t.Errorf("client read %d, %v, want %v", n, err, want)
			}
			if want := min(10, uint64(tt.limit)); c.Info.Received != want || c.Info.Reasons().LocalClose != "denied" {
				t.Errorf("%d bytes received, want %d, reason %q", c.Info.Received, want, c.Info.Reasons().LocalClose)
			}
		})
	}
}

func TestKillIsAnRST(t *testing.T) {
	r := newRig(t)
	client, c, _ := r.accept(&scripted{name: "a", fresh: Stop})
	r.do(c.Kill)
	client.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := client.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client read %d, %v, want a reset", n, err)
	}
}

func TestReleaseReachesEveryFactory(t *testing.T) {
	a, b := &scripted{}, &scripted{watch: FirstByte}
	ch := &Chain{Factories: []Factory{a, b}}
	ch.Release()
	if a.gone != 1 || b.gone != 1 || ch.Watch() != FirstByte {
		t.Errorf("released %d and %d times, watch %d", a.gone, b.gone, ch.Watch())
	}
}

func TestListenerFiltersRunInOrder(t *testing.T) {
	r := newRig(t)
	r.inspect(0, false, &looker{name: "a"}, &looker{name: "off", disabled: true}, &looker{name: "b"})
	r.expect("a:accepted b:accepted accepted")
}

func TestWithoutListenerFiltersAllIsAccepted(t *testing.T) {
	r := newRig(t)
	r.inspect(time.Hour, false)
	r.expect("accepted")
}

func TestAListenerFilterMayRefuseAtOnce(t *testing.T) {
	r := newRig(t)
	r.inspect(0, false, &looker{name: "a", fresh: Closed}, &looker{name: "b"})
	r.expect("a:accepted refused")
}

func TestListenerFiltersSeeAllThatWaitsUpToWhatTheyWant(t *testing.T) {
	r := newRig(t)
	a := &looker{name: "a", fresh: Stop, wants: 4, until: "abc"}
	b := &looker{name: "b", fresh: Stop, wants: 2, until: "b"}
	client, s := r.inspect(0, false, a, b)
	for _, chunk := range []string{"a", "b", "c"} {
		seen := 0
		r.do(func() { seen = len(a.seen) })
		if _, err := client.Write([]byte(chunk)); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			now := 0
			r.do(func() { now = len(a.seen) })
			if now > seen {
				break
			}
		}
	}
	r.expect("a:accepted b:accepted accepted")
	if want := []string{"a", "ab", "abc"}; !slices.Equal(a.seen, want) || !slices.Equal(b.seen, []string{"ab"}) || s.Consumed != 0 {
		t.Errorf("a saw %q, b saw %q, %d consumed", a.seen, b.seen, s.Consumed)
	}
}

func TestWhatIsConsumedIsNotSeenAgain(t *testing.T) {
	r := newRig(t)
	a := &looker{name: "a", fresh: Stop, wants: 100, until: "header payload", consume: 7}
	b := &looker{name: "b", fresh: Stop, wants: 100, until: "payload"}
	client, s := r.inspect(0, false, a, b)
	if _, err := client.Write([]byte("header payload")); err != nil {
		t.Fatal(err)
	}
	r.expect("a:accepted b:accepted accepted")
	if s.Consumed != 7 || !slices.Equal(b.seen, []string{"payload"}) {
		t.Errorf("%d consumed, b saw %q", s.Consumed, b.seen)
	}
}

func TestAListenerFilterMayRefuseWhatItSees(t *testing.T) {
	r := newRig(t)
	client, _ := r.inspect(0, false, &looker{name: "a", fresh: Stop, wants: 1, verdict: Closed})
	client.Write([]byte("x"))
	r.expect("a:accepted refused")
}

func TestListenerFiltersTimeOut(t *testing.T) {
	for _, pass := range []bool{false, true} {
		t.Run(fmt.Sprintf("pass %t", pass), func(t *testing.T) {
			r := newRig(t)
			client, _ := r.inspect(20*time.Millisecond, pass, &looker{name: "a", fresh: Stop, wants: 9, until: "never"})
			client.Write([]byte("x"))
			r.expect("a:accepted " + map[bool]string{false: "timeout", true: "timeout_passed"}[pass])
		})
	}
}

func TestTheEndBeforeListenerFiltersHaveFinishedDropsTheConnection(t *testing.T) {
	for what, end := range map[string]func(*net.TCPConn){
		"FIN":           func(c *net.TCPConn) { c.CloseWrite() },
		"FIN and bytes": func(c *net.TCPConn) { c.Write([]byte("x")); c.CloseWrite() },
		"RST":           func(c *net.TCPConn) { c.SetLinger(0); c.Close() },
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			client, _ := r.inspect(0, true, &looker{name: "a", fresh: Stop, wants: 9, until: "never"})
			end(client)
			r.expect("a:accepted remote_close")
		})
	}
}

// Bytes that were peeked stay in the socket: they must not turn the loop, and a
// byte more costs few system calls.
func TestPeekedBytesDoNotSpin(t *testing.T) {
	r := newRig(t)
	a := &looker{name: "a", fresh: Stop, wants: 100, until: "never"}
	client, _ := r.inspect(0, false, a)
	const bytes = 20
	var before, after, looks uint64
	r.do(func() { before = r.core.Worker.Iterations })
	for i := range bytes {
		client.Write([]byte("x"))
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			n := 0
			r.do(func() { n = len(a.seen) })
			if n > i {
				break
			}
			before++ // the question itself is a round
		}
		before++
	}
	r.do(func() { after, looks = r.core.Worker.Iterations, uint64(len(a.seen)) })
	if looks > 2*bytes || after-before > 3*bytes {
		t.Errorf("%d looks and %d rounds for %d bytes", looks, after-before, bytes)
	}
}
