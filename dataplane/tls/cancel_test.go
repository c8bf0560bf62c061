package tls

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// silent says that the end was not told, and will not be.
func (b *begun) silent() {
	b.r.t.Helper()
	b.r.limiter.Wait()
	b.r.w.Do(func() {}) // what its goroutine posted has run
	select {
	case err := <-b.told:
		b.r.t.Errorf("told of the end of what was cancelled: %v", err)
	default:
	}
}

// hello is the beginning of what a client says.
const hello = "\x16\x03\x01\x02\x00\x01"

// waits waits for the goroutine of a handshake to sleep until its peer says more.
func (b *begun) waits() {
	b.r.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		started := false
		b.r.w.Do(func() { started = b.started })
		// All slots free, and still running: it sleeps.
		if started && len(b.r.limiter.slots) == 0 && unread(b.r.t, b.fd) == 0 {
			return
		}
		if time.Now().After(deadline) {
			b.r.t.Fatal("the handshake never waited")
		}
	}
}

func unread(t *testing.T, fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A handshake that is cancelled tells nobody, its goroutine ends, and it takes nothing
// of the socket that has its descriptor's number next.
func TestCancel(t *testing.T) {
	for name, tt := range map[string]struct {
		server bool
		until  func(b *begun, c io.Writer)
	}{
		"of a client that says nothing":       {true, func(*begun, io.Writer) {}},
		"of a client that stops in its hello": {true, func(b *begun, c io.Writer) { io.WriteString(c, hello); b.waits() }},
		"of a host that says nothing":         {false, func(b *begun, _ io.Writer) { b.waits() }},
		"of a host that stops":                {false, func(b *begun, c io.Writer) { b.waits(); io.WriteString(c, "\x16\x03\x03\x00\x40\x02"); b.waits() }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			fd, raw := r.sockets()
			b := r.begin(tt.server, fd)
			tt.until(b, raw)
			next, other := r.sockets()
			io.WriteString(other, hello)
			r.w.Do(func() {
				b.Cancel()
				if err := unix.Dup3(next, fd, unix.O_CLOEXEC); err != nil { // closes fd
					t.Error(err)
				}
				b.Handshake.Ready(unix.EPOLLIN) // of the same batch of events
				b.Cancel()
			})
			unix.Close(next)
			b.silent()
			if n := unread(t, fd); n != len(hello) {
				t.Errorf("%d bytes of another socket are left", n)
			}
			if c := b.Conn; c.Holds() || c.Flush() != 0 {
				t.Error("it keeps something, or sends it")
			}
		})
	}
}

// The end may be on its way to the worker when a handshake is cancelled.
func TestCancelAfterTheEnd(t *testing.T) {
	r := newRig(t)
	fd, raw := r.sockets()
	b := r.begin(true, fd)
	next, _ := r.sockets()
	defer unix.Close(next)
	r.w.Do(func() {
		// The worker is here: what the goroutine posts waits, and nobody rouses it, so
		// that all it reads is there before it starts.
		io.WriteString(raw, "no hello of TLS")
		b.start()
		r.limiter.Wait()
		b.Cancel()
		// The number's next owner.
		if err := errors.Join(unix.Dup3(next, fd, unix.O_CLOEXEC), r.w.Add(fd, handshakeEvents, nothing{})); err != nil {
			t.Error(err)
		}
	})
	b.silent()
	r.w.Do(func() {
		if r.w.Inherit(fd, nothing{}) {
			t.Error("the descriptor of another was parked")
		}
		r.w.Forget(fd)
	})
	if n := r.value("listener.l.ssl.connection_error"); n != 0 {
		t.Errorf("%d connection errors of what nobody waits for", n)
	}
}

// A peer that goes away ends the handshake, once, and not as an error of TLS.
func TestPeerIsGone(t *testing.T) {
	reset := "TLS_error:|33554536:system library:OPENSSL_internal:Connection reset by peer:TLS_error_end"
	for name, tt := range map[string]struct {
		server, rst bool
		says        string
		failure     string
	}{
		"a client, before it says anything": {true, false, "", ""},
		"a client, in its hello":            {true, false, hello, ""},
		"a client, by RST":                  {true, true, "", reset},
		"a client, in its hello, by RST":    {true, true, hello, reset},
		"a host, before it says anything":   {false, false, "", ""},
		"a host, in its hello":              {false, false, "\x16\x03\x03\x00\x40\x02", ""},
		"a host, by RST":                    {false, true, "", reset},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			fd, c := r.tcp()
			b := r.begin(tt.server, fd)
			if !tt.server {
				b.waits()
				io.CopyN(io.Discard, c, 1) // a close with unread bytes is an RST
				for c.SetReadDeadline(time.Now().Add(5 * time.Millisecond)); ; {
					if _, err := c.Read(make([]byte, 4096)); err != nil {
						break
					}
				}
			}
			if io.WriteString(c, tt.says); tt.says != "" {
				b.waits()
			}
			if tt.rst {
				c.SetLinger(0)
			}
			c.Close()
			if err := b.end(); err == nil || b.Failure() != tt.failure {
				t.Errorf("it ended by %v, %q", err, b.Failure())
			}
			b.silent()
			for _, figure := range []string{"listener.l.ssl.connection_error", "cluster.c.ssl.connection_error", "listener.l.ssl.handshake", "cluster.c.ssl.handshake"} {
				if n := r.value(figure); n != 0 {
					t.Errorf("%s is %d", figure, n)
				}
			}
		})
	}
}

// Peers that are slow hold no slot: one is enough for all of them.
func TestSlowPeersHoldNoSlot(t *testing.T) {
	r := newRig(t)
	r.limiter = NewLimiter(1)
	for range 20 {
		fd, raw := r.sockets()
		b := r.begin(true, fd)
		io.WriteString(raw, hello)
		b.waits()
	}
	fd, raw := r.sockets()
	if _, p := r.established(true, fd, raw); !p.ConnectionState().HandshakeComplete {
		t.Error("no handshake")
	}
}

// Those that wait for a slot can be cancelled, and compute nothing when it comes.
func TestCancelInTheQueue(t *testing.T) {
	r := newRig(t)
	r.limiter = NewLimiter(1)
	r.limiter.acquire()
	fd, _ := r.sockets()
	b := r.begin(false, fd)
	r.w.Do(b.Cancel)
	r.limiter.release()
	b.silent()
	if left, _ := b.Conn.waiting(); left != 0 {
		t.Errorf("%d bytes were written", left)
	}
}

// A byte at a time is no less of a handshake.
func TestHandshakeComesInPieces(t *testing.T) {
	both(t, func(t *testing.T, r *rig, server bool) {
		fd, raw := r.sockets()
		c, p := r.established(server, fd, &dripping{raw})
		go func() { io.WriteString(p, "text"); p.CloseWrite() }()
		if got, err := receive(t, c, fd); string(got) != "text" || err != 0 {
			t.Errorf("received %q, %v", got, err)
		}
	})
}

type dripping struct{ net.Conn }

func (d *dripping) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := d.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}
