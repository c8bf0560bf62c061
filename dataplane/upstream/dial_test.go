package upstream

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/dataplane/address"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func worker(t *testing.T) *loop.Worker {
	t.Helper()
	w, err := loop.New(0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go w.Run()
	t.Cleanup(w.Close)
	return w
}

type dialed struct {
	fd  int
	err error
}

// dial waits for the outcome of a Dial. done must not come before NewDial is
// back.
func dial(t *testing.T, w *loop.Worker, to netip.AddrPort, timeout time.Duration) dialed {
	t.Helper()
	end := make(chan dialed, 2)
	w.Do(func() {
		back := false
		NewDial(w, to, Source{}, timeout, func(fd int, err error) {
			if !back {
				t.Error("done was called before NewDial returned")
			}
			end <- dialed{fd, err}
		})
		back = true
	})
	select {
	case d := <-end:
		return d
	case <-time.After(10 * time.Second):
		t.Fatal("done was not called")
		return dialed{}
	}
}

func TestDialGivesAPreparedSocket(t *testing.T) {
	w := worker(t)
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		d := dial(t, w, ln.Addr().(*net.TCPAddr).AddrPort(), 5*time.Second)
		if d.err != nil {
			t.Fatal(d.err)
		}
		defer unix.Close(d.fd)
		get := func(level, name int) int {
			v, err := unix.GetsockoptInt(d.fd, level, name)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		if get(unix.SOL_SOCKET, unix.SO_PROTOCOL) != unix.IPPROTO_TCP {
			t.Error("not plain TCP")
		}
		if get(unix.SOL_SOCKET, unix.SO_OOBINLINE) == 0 {
			t.Error("SO_OOBINLINE is off")
		}
		flags, err := unix.FcntlInt(uintptr(d.fd), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("flags %#x, %v, want O_NONBLOCK", flags, err)
		}
		// SO_LINGER{1,0}: a close is a reset.
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fd := d.fd
		d.fd = -1
		unix.Close(fd)
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("peer read %v, want a reset", err)
		}
	}
}

func TestDialFails(t *testing.T) {
	w := worker(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := ln.Addr().(*net.TCPAddr).AddrPort()
	ln.Close()
	if d := dial(t, w, closed, 5*time.Second); !errors.Is(d.err, syscall.ECONNREFUSED) {
		t.Errorf("to a closed port: %v", d.err)
	}
	if d := dial(t, w, full(t), 50*time.Millisecond); !errors.Is(d.err, ErrConnectTimeout) {
		t.Errorf("to a full queue: %v", d.err)
	}
}

// full is an address whose listener answers no SYN any more.
func full(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port))
	for range 8 { // the queue takes one or two
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(c) })
		address.Connect(c, to)
	}
	return to
}

func TestCancelledDialSaysNothing(t *testing.T) {
	w := worker(t)
	to := full(t)
	w.Do(func() {
		d := NewDial(w, to, Source{}, time.Millisecond, func(int, error) { t.Error("done was called after Cancel") })
		d.Cancel()
	})
	later := make(chan struct{})
	w.Do(func() { w.After(&loop.Timer{F: func() { close(later) }}, 20*time.Millisecond) })
	<-later
}
