package tcpstats

import (
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/loop"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ends are a connection: a descriptor on a worker, and its peer.
func ends(t *testing.T) (w *loop.Worker, fd int, peer *net.TCPConn) {
	t.Helper()
	w, err := loop.New(0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go w.Run()
	t.Cleanup(w.Close)
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: ln.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if peer, err = ln.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	return w, fd, peer
}

func send(t *testing.T, fd int, peer *net.TCPConn, text string) {
	t.Helper()
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Read(make([]byte, len(text))); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, fd int, peer *net.TCPConn, text string) {
	t.Helper()
	if _, err := peer.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Read(fd, make([]byte, len(text))); err != nil {
		t.Fatal(err)
	}
}

// kept are figures that a test can read.
type kept struct {
	*Stats
	store *stats.Store
}

func keep() kept {
	store := stats.New()
	return kept{New(store, "x"), store}
}

func (s kept) histogram(name string) *stats.HistogramSnapshot {
	v, _ := s.store.Lookup("x.tcp_stats." + name)
	return v.Hist
}

// count is how often the figures were brought up to date.
func (s kept) count() uint64 { return s.histogram("cx_rtt_us").Count }

func (s kept) text() string {
	return fmt.Sprintf("bytes %d/%d, data segments %d/%d, %d times, unacked %d unsent %d", s.txBytes.Value(), s.rxBytes.Value(),
		s.txDataSegments.Value(), s.rxDataSegments.Value(), s.count(), s.unacked.Value(), s.unsent.Value())
}

type nobody struct{}

func (nobody) Ready(uint32) {}

func TestFiguresAreThoseOfTheLastLook(t *testing.T) {
	w, fd, peer := ends(t)
	s := keep()
	var o *Watch
	w.Do(func() {
		if err := w.Add(fd, unix.EPOLLIN, nobody{}); err != nil {
			t.Error(err)
		}
		o = s.Watch(w, fd)
	})
	if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE); on == 0 || err != nil {
		t.Error("the socket may be grafted, and would count no more:", err)
	}
	send(t, fd, peer, "hello")
	receive(t, fd, peer, "hi")
	receive(t, fd, peer, "ho")
	if got := s.text(); got != "bytes 0/0, data segments 0/0, 0 times, unacked 0 unsent 0" {
		t.Errorf("before the end: %s", got)
	}
	w.Do(func() {
		w.Forget(fd)
		unix.Close(fd)
		o.End()
	})
	if got := s.text(); got != "bytes 5/4, data segments 1/2, 1 times, unacked 0 unsent 0" {
		t.Errorf("at the end: %s", got)
	}
}

func TestFiguresOfAnOpenConnection(t *testing.T) {
	w, fd, peer := ends(t)
	s := keep()
	var o *Watch
	w.Do(func() { o = s.Watch(w, fd); o.Every(time.Millisecond) })
	send(t, fd, peer, "hello")
	for deadline := time.Now().Add(20 * time.Second); s.txBytes.Value() != 5; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is counted:", s.text())
		}
	}
	send(t, fd, peer, "again")
	w.Do(func() { o.Look(); unix.Close(fd); o.End() })
	if n := s.txBytes.Value(); n != 10 {
		t.Errorf("%d bytes, each of which counts once", n)
	}
	n := s.count()
	if n < 2 {
		t.Errorf("%d looks", n)
	}
	w.Do(func() {}) // no timer is left
	time.Sleep(5 * time.Millisecond)
	if again := s.count(); again != n {
		t.Error("an ended watch looks")
	}
}

func TestGaugesEndAtNothing(t *testing.T) {
	w, fd, _ := ends(t)
	s := keep()
	var o *Watch
	w.Do(func() { o = s.Watch(w, fd); o.Every(time.Millisecond) })
	unix.SetNonblock(fd, true)
	for {
		if _, err := unix.Write(fd, make([]byte, 1<<20)); err != nil {
			break
		}
	}
	for deadline := time.Now().Add(20 * time.Second); s.unsent.Value() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is unsent:", s.text())
		}
	}
	w.Do(func() { unix.Close(fd); o.End() })
	if s.unsent.Value() != 0 || s.unacked.Value() != 0 {
		t.Error("what is left:", s.text())
	}
}

func TestUnixSocketsHaveNoFigures(t *testing.T) {
	w, _, _ := ends(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	s := keep()
	w.Do(func() {
		o := s.Watch(w, fds[0])
		o.Look()
		unix.Close(fds[0])
		o.End()
	})
	if n := s.count(); n != 0 {
		t.Errorf("%d are counted", n)
	}
}
