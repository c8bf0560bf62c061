package pair

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/bpf"
	"golang.org/x/sys/unix"
)

func wantEnd(t *testing.T, c *net.TCPConn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read %d bytes, then %v, want the end", n, err)
	}
}

// parted ends the pair in order, waits for its sockets to be closed, and tells whether
// they were closed by FIN.
func (r *rig) parted(p *testPair) bool {
	r.t.Helper()
	before := r.set.Parted.Load()
	r.w.Do(p.Close)
	await(r.t, "the pair has parted or given up", func() (none bool) {
		r.w.Do(func() { none = len(r.set.partings) == 0 })
		return none
	})
	return r.set.Parted.Load() > before
}

func isClosed(t *testing.T, c *net.TCPConn) bool {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info unix.TCPInfo
	if err := raw.Control(func(fd uintptr) { tcpInfo(int(fd), &info) }); err != nil {
		t.Fatal(err)
	}
	return info.State == tcpClose
}

// What the proxy ends in order it ends by FIN on both sides, as on the other paths, and
// both ends are through with it: what they say then is answered by the kernel.
func TestProxyEndsAGraftedPairInOrder(t *testing.T) {
	for name, end := range map[string]func(*testPair){"close": func(p *testPair) { p.Close() }, "idle timeout": nil} {
		t.Run(name, func(t *testing.T) {
			forEachFamily(t, func(t *testing.T, r *rig) {
				p := r.grafted(func(c *Config) {
					if end == nil {
						c.IdleTimeout = 200 * time.Millisecond
					}
				})
				pingPong(t, p.client, p.server, 20, 5000)
				want := IdleTimeout
				if end != nil {
					want = Killed
					r.w.Do(func() { end(p) })
				}
				if o := p.end(t); o != want {
					t.Errorf("ended %v, want %v", o, want)
				}
				wantEnd(t, p.client)
				wantEnd(t, p.server)
				for _, c := range []*net.TCPConn{p.client, p.server} {
					if _, err := c.Write([]byte("too late")); err != nil {
						t.Errorf("write after the end: %v", err)
					}
					await(t, "the RST that answers it", func() bool {
						_, err := c.Write([]byte("."))
						return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
					})
				}
			})
		})
	}
}

// An end that answers the FIN by its own is in no need of a reset.
func TestEndsOfAPartedPairClose(t *testing.T) {
	forEachFamily(t, func(t *testing.T, r *rig) {
		p := r.grafted(nil)
		pingPong(t, p.client, p.server, 20, 5000)
		r.w.Do(p.Close)
		for _, c := range []*net.TCPConn{p.client, p.server} {
			wantEnd(t, c)
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			await(t, "its FIN is acknowledged", func() bool { return isClosed(t, c) })
		}
	})
}

// Of a conversation that goes on no moment is quiet: what is new is kept back, and what
// was passed on arrives before the end.
func TestBusyGraftedPairEndsInOrder(t *testing.T) {
	forEachFamily(t, func(t *testing.T, r *rig) {
		for range 20 {
			p := r.grafted(nil)
			echoed := make(chan struct{})
			go func() { io.Copy(p.server, p.server); close(echoed) }()
			talked := make(chan error, 1)
			rounds := make(chan struct{}, 1)
			go func() {
				b := make([]byte, 1000)
				for {
					if _, err := p.client.Write(b); err != nil {
						talked <- err
						return
					}
					if _, err := io.ReadFull(p.client, b); err != nil {
						talked <- err
						return
					}
					select {
					case rounds <- struct{}{}:
					default:
					}
				}
			}()
			<-rounds
			<-rounds
			if !r.parted(p) {
				t.Error("it ended by RST")
			}
			if err := <-talked; !errors.Is(err, io.EOF) {
				t.Errorf("the client: %v, want the end", err)
			}
			p.client.Close()
			<-echoed
		}
	})
}

// One end had gone already, and the other was still speaking.
func TestHalfClosedGraftedPairEndsInOrder(t *testing.T) {
	forEachFamily(t, func(t *testing.T, r *rig) {
		for first := range 2 {
			p := r.grafted(nil)
			a, b := p.client, p.server
			if first == 1 {
				a, b = b, a
			}
			a.CloseWrite()
			wantEnd(t, b)
			pingHalf(t, b, a)
			if !r.parted(p) {
				t.Error("it ended by RST")
			}
			wantEnd(t, a)
			b.SetWriteDeadline(time.Now().Add(5 * time.Second))
			await(t, "the RST", func() bool {
				_, err := b.Write([]byte("."))
				return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
			})
		}
	})
}

// Where what is under way is never acknowledged the end is an RST, soon enough.
func TestGraftedPairThatCannotPartIsReset(t *testing.T) {
	r := newGraftRig(t, "tcp4")
	p := r.grafted(nil)
	r.w.Do(func() { r.set.partWithin = partWithin })
	bpf.GraftPlant{Grafted: &p.cfg.graft.Grafted}.Owe()
	if r.parted(p) {
		t.Error("it parted with bytes under way")
	}
	wantReset(t, p.client)
	wantReset(t, p.server)
}
