package tls

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// receive reads until the stream ends, waiting for the descriptor in between.
func receive(t *testing.T, c *Conn, fd int) ([]byte, syscall.Errno) {
	t.Helper()
	var out []byte
	b := make([]byte, 64<<10)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		n, err := c.Recv(b)
		switch {
		case n > 0:
			out = append(out, b[:n]...)
		case err == unix.EAGAIN:
			wait(t, fd, unix.POLLIN)
		default:
			return out, err
		}
	}
	t.Fatal("the stream never ended")
	return nil, 0
}

func wait(t *testing.T, fd int, events int16) {
	t.Helper()
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, 100); err != nil && err != unix.EINTR {
		t.Fatal(err)
	}
}

func TestStreamEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		end     func(p net.Conn, raw *net.TCPConn)
		want    syscall.Errno
		broke   bool
		failure string
		errors  uint64
	}{
		"close_notify":               {func(p net.Conn, _ *net.TCPConn) { p.(interface{ CloseWrite() error }).CloseWrite() }, 0, false, "", 0},
		"close_notify and FIN":       {func(p net.Conn, _ *net.TCPConn) { p.Close() }, 0, false, "", 0},
		"FIN between records":        {func(_ net.Conn, raw *net.TCPConn) { raw.CloseWrite() }, 0, false, "", 0},
		"FIN within a record's head": {func(_ net.Conn, raw *net.TCPConn) { raw.Write([]byte{23, 3}); raw.CloseWrite() }, unix.ECONNABORTED, true, "", 0},
		"FIN within a record":        {func(_ net.Conn, raw *net.TCPConn) { raw.Write([]byte{23, 3, 3, 0, 40, 1, 2}); raw.CloseWrite() }, unix.ECONNABORTED, true, "", 0},
		"no record": {func(_ net.Conn, raw *net.TCPConn) { io.WriteString(raw, "no TLS at all") }, unix.EPROTO, true,
			"TLS_error:|268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end", 1},
		"a record that nobody sealed": {func(_ net.Conn, raw *net.TCPConn) { raw.Write(append([]byte{23, 3, 3, 0, 32}, make([]byte, 32)...)) }, unix.EPROTO, true,
			"TLS_error:|503316581:Cipher functions:OPENSSL_internal:BAD_DECRYPT|268435595:SSL routines:OPENSSL_internal:DECRYPTION_FAILED_OR_BAD_RECORD_MAC:TLS_error_end", 1},
		"a record that is too long": {func(_ net.Conn, raw *net.TCPConn) { raw.Write([]byte{23, 3, 3, 0xff, 0xff}) }, unix.EPROTO, true, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, r *rig, server bool) {
				fd, raw := r.tcp()
				c, p := r.established(server, fd, raw)
				io.WriteString(p, "before")
				tt.end(p, raw)
				got, err := receive(t, c, fd)
				if string(got) != "before" || err != tt.want {
					t.Errorf("received %q, then %v, want %v", got, err, tt.want)
				}
				// Who asks again is told the same.
				if n, again := c.Recv(make([]byte, 1)); n != 0 || again != tt.want {
					t.Errorf("then %d, %v", n, again)
				}
				if end, again := c.Ready(); end != (tt.want == 0) || again != tt.want {
					t.Errorf("then it is ready: %v, %v", end, again)
				}
				if c.Broke() != tt.broke || tt.failure != "" && c.Failure() != tt.failure {
					t.Errorf("broke %v, because %q", c.Broke(), c.Failure())
				}
				if n := r.value("listener.l.ssl.connection_error") + r.value("cluster.c.ssl.connection_error"); n != tt.errors {
					t.Errorf("%d connection errors, want %d", n, tt.errors)
				}
			})
		})
	}
}

// What came before a reset is there to be read if the kernel still has it; the reset
// is no failure of TLS, and has its name.
func TestStreamIsReset(t *testing.T) {
	both(t, func(t *testing.T, r *rig, server bool) {
		fd, raw := r.tcp()
		c, _ := r.established(server, fd, raw)
		raw.SetLinger(0)
		raw.Close()
		if _, err := receive(t, c, fd); err != unix.ECONNRESET {
			t.Errorf("received %v", err)
		}
		if want := "TLS_error:|33554536:system library:OPENSSL_internal:Connection reset by peer:TLS_error_end"; c.Failure() != want || c.Broke() {
			t.Errorf("broke %v, because %q", c.Broke(), c.Failure())
		}
		if n := r.value("listener.l.ssl.connection_error") + r.value("cluster.c.ssl.connection_error"); n != 0 {
			t.Errorf("%d connection errors", n)
		}
	})
}

// A peer whose bytes come one by one gets no byte lost, and none told before its record
// is whole.
func TestStreamComesInPieces(t *testing.T) {
	both(t, func(t *testing.T, r *rig, server bool) {
		fd, raw := r.sockets()
		into := &diverted{Conn: raw}
		c, p := r.established(server, fd, into)
		into.kept = &bytes.Buffer{}
		io.WriteString(p, "one ")
		first := into.kept.Len()
		io.WriteString(p, "two")
		p.CloseWrite()
		var got []byte
		for i, b := range into.kept.Bytes() {
			raw.Write([]byte{b})
			if i%2 == 0 { // either way of asking
				if _, err := c.Ready(); err == unix.EAGAIN {
					continue
				}
			}
			buf := make([]byte, 3)
			n, err := c.Recv(buf)
			if err == unix.EAGAIN {
				continue
			}
			if got = append(got, buf[:n]...); i < first-1 {
				t.Fatalf("received %q of half a record", got)
			}
			for n == len(buf) {
				if n, err = c.Recv(buf); err == 0 {
					got = append(got, buf[:n]...)
				}
			}
		}
		rest, err := receive(t, c, fd)
		if got = append(got, rest...); string(got) != "one two" || err != 0 {
			t.Errorf("received %q, %v", got, err)
		}
	})
}

// diverted keeps what is written to it, if there is somewhere.
type diverted struct {
	net.Conn
	kept *bytes.Buffer
}

func (d *diverted) Write(b []byte) (int, error) {
	if d.kept != nil {
		return d.kept.Write(b)
	}
	return d.Conn.Write(b)
}

// SetWriteDeadline is the library's, which writes nothing after its close_notify.
func (d *diverted) SetWriteDeadline(time.Time) error { return nil }

// A byte that Ready read to see whether there is one is not lost.
func TestReadyTakesNothing(t *testing.T) {
	both(t, func(t *testing.T, r *rig, server bool) {
		fd, raw := r.sockets()
		c, p := r.established(server, fd, raw)
		if end, err := c.Ready(); end || err != unix.EAGAIN {
			t.Errorf("ready: %v, %v without a byte", end, err)
		}
		io.WriteString(p, "text")
		p.CloseWrite()
		for range 3 {
			if end, err := c.Ready(); end || err != 0 {
				t.Errorf("ready: %v, %v", end, err)
			}
		}
		if n, err := c.Recv(nil); n != 0 || err != 0 {
			t.Errorf("received %d, %v into nothing", n, err)
		}
		if got, err := receive(t, c, fd); string(got) != "text" || err != 0 {
			t.Errorf("received %q, %v", got, err)
		}
	})
}

// Our end is a close_notify and no FIN, said once; the other way goes on.
func TestStreamEndsOneWay(t *testing.T) {
	both(t, func(t *testing.T, r *rig, server bool) {
		fd, raw := r.sockets()
		c, p := r.established(server, fd, raw)
		c.Send([]byte("last"))
		c.CloseWrite()
		c.CloseWrite()
		if err := c.Flush(); err != 0 {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(p); string(got) != "last" || err != nil {
			t.Errorf("the peer read %q, %v", got, err)
		}
		raw.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if n, err := raw.Read(make([]byte, 1)); n != 0 || errors.Is(err, io.EOF) {
			t.Errorf("behind close_notify were %d bytes, %v", n, err)
		}
		if n, err := c.Send([]byte("more")); n != 0 || err != unix.EPIPE {
			t.Errorf("sent %d, %v after the end", n, err)
		}
		io.WriteString(p, "still")
		p.CloseWrite()
		if got, err := receive(t, c, fd); string(got) != "still" || err != 0 {
			t.Errorf("received %q, %v", got, err)
		}
	})
}
