package pair

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"golang.org/x/sys/unix"
)

func TestConversationIsPromotedAndExact(t *testing.T) {
	forEach(t, func(t *testing.T, r *rig) {
		p := r.pair(nil)
		want := api.PathRelay
		if r.splice != nil {
			want = api.PathSplice
		}
		if r.graft != nil {
			want = api.PathGraft
		}
		n := r.pingPongUntil(p, 100, func(c api.Connection) bool { return c.Request.Path == want && c.Response.Path == want })
		pingPong(t, p.client, p.server, 200-n%200, 100)
		n += 200 - n%200
		c := r.status(p)
		if c.Request.Path != want || c.Response.Path != want {
			t.Errorf("paths %v (%s), %v (%s), want %v; graft refused: %q", c.Request.Path, c.Request.Reason, c.Response.Path, c.Response.Reason, want, c.GraftRefused)
		}
		if want := uint64(100 * n); c.Request.Bytes != want || c.Response.Bytes != want {
			t.Errorf("%d and %d bytes, want %d each", c.Request.Bytes, c.Response.Bytes, want)
		}
		if r.set.mode == Always && (c.Request.Relayed != 0 || c.Response.Relayed != 0) {
			t.Errorf("user space saw %d and %d bytes", c.Request.Relayed, c.Response.Relayed)
		}
		p.client.CloseWrite()
		if n, err := p.server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("server read %d, %v, want EOF", n, err)
		}
		pingHalf(t, p.server, p.client)
		p.server.Close()
		if n, err := p.client.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("client read %d, %v, want EOF", n, err)
		}
		if o := p.end(t); o != Complete {
			t.Errorf("ended %v", o)
		}
	})
}

func TestResetIsHandedOn(t *testing.T) {
	forEach(t, func(t *testing.T, r *rig) {
		for _, side := range []string{"client", "server"} {
			for _, last := range []int{0, 1000} {
				t.Run(fmt.Sprintf("%s after %d bytes", side, last), func(t *testing.T) {
					p := r.pair(nil)
					pingPong(t, p.client, p.server, 50, 10)
					from, to, want := p.client, p.server, DownstreamReset
					if side == "server" {
						from, to, want = p.server, p.client, UpstreamReset
					}
					from.Write(make([]byte, last))
					from.SetLinger(0)
					from.Close()
					to.SetReadDeadline(time.Now().Add(5 * time.Second))
					n, err := io.Copy(io.Discard, to)
					if !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("other side read %v, want a reset", err)
					}
					if int(n) != last {
						t.Errorf("other side got %d bytes before the reset, want %d", n, last)
					}
					if o := p.end(t); o != want {
						t.Errorf("ended %v, want %v", o, want)
					}
				})
			}
		}
	})
}

// What came before an RST waits for a reader that is a little late.
func TestResetComesAfterTheBytesBefore(t *testing.T) {
	forEach(t, func(t *testing.T, r *rig) {
		if r.graft != nil {
			t.Skip("the proxy never has it: what the server has no room for stays with the client")
		}
		p := r.pair(nil)
		p.server.SetReadBuffer(32 << 10)
		const total = 200 << 10
		go writeStamped(p.client, total, 3)
		raw, err := p.client.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		await(t, "the proxy has it all", func() (all bool) {
			r.w.Do(func() {
				raw.Control(func(fd uintptr) {
					q, _ := outq(int(fd))
					var info unix.TCPInfo
					tcpInfo(int(fd), &info)
					all = q == 0 && info.Bytes_acked >= total
				})
			})
			return all
		})
		p.client.SetLinger(0)
		p.client.Close()
		n, err := io.Copy(io.Discard, p.server)
		if n != total || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("server read %d bytes of %d, then %v", n, total, err)
		}
	})
}

// An RST that nobody has read yet, behind bytes that nobody has read: in that
// state no FIN is in the kernel's count.
func TestChangeBetweenResetAndItsReading(t *testing.T) {
	for _, family := range []string{"tcp4", "tcp6"} {
		r := newRig(t, Auto, family)
		p := r.pair(nil)
		pingPong(t, p.client, p.server, 3, 10)
		r.w.Do(func() {
			p.client.Write(make([]byte, 1000))
			p.client.SetLinger(0)
			p.client.Close()
			var info unix.TCPInfo
			for tcpInfo(p.ends[0].fd, &info); info.State != tcpClose; tcpInfo(p.ends[0].fd, &info) {
			}
			p.Force(0, api.PathPipe)
		})
		if o := p.end(t); o != DownstreamReset {
			t.Errorf("ended %v", o)
		}
	}
}

// Half of a pair can be adopted and the other half refused: the next attempt
// must not trip over the first.
func TestHalfAdoptedPairIsRefusedAgain(t *testing.T) {
	r := newRig(t, Auto, "tcp4")
	p := r.pair(nil)
	r.w.Do(func() {
		p.server.CloseWrite()
		var info unix.TCPInfo
		for tcpInfo(p.ends[1].fd, &info); info.State == tcpEstablished; tcpInfo(p.ends[1].fd, &info) {
		}
		for i := range p.direction {
			p.Force(i, api.PathSplice)
			if got := p.direction[i].reason; got != reasonHalfClosed {
				t.Errorf("direction %d: %v", i, got)
			}
		}
	})
}

func TestStalledReaderThenFINLosesNothing(t *testing.T) {
	forEach(t, func(t *testing.T, r *rig) {
		p := r.pair(func(c *Config) { c.Limit = 256 << 10 })
		pingPong(t, p.client, p.server, 30, 10)
		const total = 24 << 20
		go func() {
			writeStamped(p.client, total, 7)
			p.client.CloseWrite()
		}()
		time.Sleep(300 * time.Millisecond) // the stall itself
		if n := readStamped(t, p.server, 7); n != total {
			t.Errorf("got %d bytes, want %d", n, total)
		}
		p.server.Close()
		if o := p.end(t); o != Complete {
			t.Errorf("ended %v", o)
		}
		if r.set.mode != Always {
			return
		}
		counted, err := r.splice.Counters()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"exit.redirected", "event.overflow", "event.woken"} {
			if counted[name] == 0 {
				t.Errorf("%s is 0: the guard was not at work", name)
			}
		}
		for _, name := range []string{"exit.unknown", "exit.no_slot", "exit.gap", "exit.untrimmed", "exit.no_seq", "exit.no_target", "exit.full", "exit.refused", "exit.broken", "event.wake_lost"} {
			if counted[name] != 0 {
				t.Errorf("%s is %d", name, counted[name])
			}
		}
	})
}

func TestFullDuplexWithHalfClose(t *testing.T) {
	forEach(t, func(t *testing.T, r *rig) {
		var wg sync.WaitGroup
		for i := range 8 {
			p := r.pair(func(c *Config) { c.Limit = 64 << 10 << (i % 4) })
			for k, way := range [][2]*net.TCPConn{{p.client, p.server}, {p.server, p.client}} {
				total := 1 + rand.IntN(8<<20)
				seed := byte(2*i + k)
				wg.Go(func() { writeStamped(way[0], total, seed); way[0].CloseWrite() })
				wg.Go(func() {
					if n := readStamped(t, way[1], seed); n != total {
						t.Errorf("got %d bytes, want %d", n, total)
					}
				})
			}
			wg.Go(func() {
				if o := p.end(t); o != Complete {
					t.Errorf("ended %v", o)
				}
			})
		}
		wg.Wait()
	})
}

func TestChangesOfPathUnderTraffic(t *testing.T) {
	for _, family := range []string{"tcp4", "tcp6"} {
		// The way back to the relay needs moments in which nothing is on its way.
		t.Run(family, func(t *testing.T) {
			r := newRig(t, Auto, family)
			kinds := map[[2]api.Path]int{} // the worker's
			all := len(paths) * (len(paths) - 1)
			// Which changes happen is chance: more traffic until all have.
			for round := 0; round < 8 && len(kinds) < all && !t.Failed(); round++ {
				changeUnderTraffic(t, r, kinds)
			}
			t.Logf("changes: %v", kinds)
			for _, from := range paths {
				for _, to := range paths {
					if from != to && kinds[[2]api.Path{from, to}] == 0 {
						t.Errorf("no change from %v to %v", from, to)
					}
				}
			}
		})
	}
}

// changeUnderTraffic runs one round; it counts the changes of each kind.
func changeUnderTraffic(t *testing.T, r *rig, kinds map[[2]api.Path]int) {
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var pairs []*testPair
	for i := range 6 {
		p := r.pair(func(c *Config) {
			c.Limit = 64 << 10 << (i % 4)
			c.Changed = func(c Change) { kinds[[2]api.Path{c.From, c.To}]++ }
		})
		pairs = append(pairs, p)
		for k, way := range [][2]*net.TCPConn{{p.client, p.server}, {p.server, p.client}} {
			total := 12 << 20
			seed := byte(2*i + k)
			wg.Go(func() { writeChatty(way[0], total, seed); way[0].CloseWrite() })
			wg.Go(func() {
				if n := readStamped(t, way[1], seed); n != total {
					t.Errorf("got %d bytes, want %d", n, total)
				}
			})
		}
	}
	go func() {
		wg.Wait()
		close(stop)
	}()
	for running := true; running; {
		select {
		case <-stop:
			running = false
		default:
			p := pairs[rand.IntN(len(pairs))]
			r.w.Do(func() {
				p.Force(rand.IntN(2), api.Path(rand.IntN(3)))
			})
		}
	}
	t.Logf("%d demotions, %d promotions, %d overflows, %d rescues", r.set.Demotions.Load(), r.set.Promotions.Load(), r.set.Overflows.Load(), r.set.Rescues.Load())
	for _, p := range pairs {
		if o := p.end(t); o != Complete {
			t.Errorf("ended %v", o)
		}
	}
}

func TestIdleTimeout(t *testing.T) {
	t.Run("by a timer of its own", func(t *testing.T) { testIdleTimeout(t, sweepFrom) })
	t.Run("by the sweep", func(t *testing.T) { testIdleTimeout(t, 0) })
}

func testIdleTimeout(t *testing.T, swept time.Duration) {
	forEach(t, func(t *testing.T, r *rig) {
		const idle = 200 * time.Millisecond
		r.w.Do(func() { r.set.sweepFrom = swept })
		other := r.pair(func(c *Config) { c.IdleTimeout = time.Hour })
		p := r.pair(func(c *Config) { c.IdleTimeout = idle })
		var quiet time.Time
		for range 30 { // activity keeps it, on either path
			quiet = time.Now()
			pingPong(t, p.client, p.server, 1, 10)
			time.Sleep(10 * time.Millisecond)
		}
		p.client.SetReadDeadline(quiet.Add(5 * time.Second))
		if n, err := p.client.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("client read %d, %v, want the end", n, err)
		}
		if d := time.Since(quiet); d < idle-80*time.Millisecond {
			t.Errorf("ended after %v", d)
		}
		if o := p.end(t); o != IdleTimeout {
			t.Errorf("ended %v", o)
		}
		r.w.Do(func() {
			if p := other.Pair; p.closed || p.alarm != nil || !r.set.sweep.Armed() {
				t.Errorf("a pair with a longer timeout: closed %v, own alarm %v, sweep armed %v", p.closed, p.alarm != nil, r.set.sweep.Armed())
			}
		})
	})
}
