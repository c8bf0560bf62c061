package listen

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/address"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func workers(t *testing.T, n int) (ws []*loop.Worker) {
	t.Helper()
	for i := range n {
		w, err := loop.New(i, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		go w.Run()
		t.Cleanup(w.Close)
		ws = append(ws, w)
	}
	return ws
}

// greeter answers every connection with the number of its worker, and closes.
type greeter struct {
	t        *testing.T
	accepted [2]atomic.Int64
	rounds   atomic.Int64
	mptcp    atomic.Bool
	unset    atomic.Bool
}

func (g *greeter) Accepted(worker, fd int, remote, local netip.AddrPort) {
	g.accepted[worker].Add(1)
	if v, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); v != unix.AF_UNIX {
		if p, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); p != unix.IPPROTO_TCP {
			g.mptcp.Store(true)
		}
		nodelay, _ := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY)
		inline, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE)
		linger, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LINGER) // the first word, l_onoff
		if nodelay == 0 || inline == 0 || linger == 0 {
			g.unset.Store(true)
		}
		if r, l := address.Ends(fd); r != remote || l != local {
			g.t.Errorf("the ends are %v and %v, told were %v and %v", r, l, remote, local)
		}
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
	}
	unix.Write(fd, []byte{byte('0' + worker)})
	unix.Close(fd)
}

func (g *greeter) Round(_, n int) { g.rounds.Add(int64(n)) }

func (g *greeter) total() int64 { return g.accepted[0].Load() + g.accepted[1].Load() }

func tcp(s string) api.BindAddress { return api.BindAddress{Addr: netip.MustParseAddrPort(s)} }

func greeted(t *testing.T, network, addr string) string {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEveryWorkerServes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for name, addr := range map[string]api.BindAddress{
		"IPv4": tcp("127.0.0.1:0"), "IPv6": tcp("[::1]:0"), "Unix": {Path: path},
	} {
		for _, reuse := range []bool{true, false} {
			ws, g := workers(t, 2), &greeter{t: t}
			s, err := Open(addr, Options{ReusePort: reuse}, ws, g)
			if err != nil {
				t.Fatal(err)
			}
			want := 1
			if reuse && addr.Path == "" {
				want = 2
			}
			if n := len(s.Descriptors()); n != want {
				t.Errorf("%s: %d sockets, want %d", name, n, want)
			}
			if err := s.Start(); err != nil {
				t.Fatal(err)
			}
			network := "tcp"
			if addr.Path != "" {
				network = "unix"
			}
			const n = 64
			for range n {
				if got := greeted(t, network, s.Bound.String()); got != "0" && got != "1" {
					t.Fatalf("%s: greeted by %q", name, got)
				}
			}
			// Which worker gets what is the kernel's choice; with a socket each,
			// 64 connections from 64 ports reach both.
			if want == 2 && (g.accepted[0].Load() == 0 || g.accepted[1].Load() == 0) {
				t.Errorf("%s: a worker got nothing", name)
			}
			if g.mptcp.Load() || g.unset.Load() {
				t.Errorf("%s: MPTCP %v, options unset %v", name, g.mptcp.Load(), g.unset.Load())
			}
			if known := addr.Path == ""; s.local.IsValid() != known {
				t.Errorf("%s: the local end is %v without a question", name, s.local)
			}
			s.Close()
			if g.total() != n || g.rounds.Load() != n {
				t.Errorf("%s: %d accepted, %d in rounds, want %d", name, g.total(), g.rounds.Load(), n)
			}
			if c, err := net.Dial(network, s.Bound.String()); err == nil {
				c.Close()
				t.Errorf("%s: connected after Close", name)
			}
		}
	}
}

// A process of the same user that has the address with SO_REUSEPORT would share
// connections with us in silence.
func TestAddressInUseIsSeen(t *testing.T) {
	for _, reuse := range []bool{false, true} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if reuse {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
		unix.Listen(fd, 1)
		at, err := local(fd, "")
		if err != nil {
			t.Fatal(err)
		}
		_, err = Open(tcp(at.Addr.String()), Options{ReusePort: true}, workers(t, 2), &greeter{t: t})
		if err == nil || !strings.Contains(err.Error(), "Address already in use") || !strings.Contains(err.Error(), at.Addr.String()) {
			t.Errorf("with SO_REUSEPORT %v there: %v", reuse, err)
		}
	}
}

// What waits in the queues when the sockets are closed was promised service.
func TestCloseServesWhoWaits(t *testing.T) {
	ws, g := workers(t, 2), &greeter{t: t}
	s, err := Open(tcp("127.0.0.1:0"), Options{ReusePort: true, Rounds: 3}, ws, g)
	if err != nil {
		t.Fatal(err)
	}
	var cs []net.Conn
	for range 50 { // nobody accepts: not started
		c, err := net.Dial("tcp", s.Bound.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		cs = append(cs, c)
	}
	s.Close()
	for i, c := range cs {
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if b, err := io.ReadAll(c); err != nil || len(b) != 1 {
			t.Fatalf("connection %d read %q, %v", i, b, err)
		}
	}
}

// Only where all connections have the same local end is it known beforehand.
func TestLocalEndIsAskedWhereItMayDiffer(t *testing.T) {
	transparent := true
	for name, tt := range map[string]struct {
		addr api.BindAddress
		o    Options
	}{
		"wildcard":         {addr: tcp("0.0.0.0:0")},
		"captured inbound": {addr: tcp("127.0.0.1:0"), o: Options{Elsewhere: true}},
		"transparent":      {addr: api.BindAddress{Addr: netip.MustParseAddrPort("127.0.0.1:0"), Socket: api.SocketOptions{Transparent: &transparent}}},
	} {
		s, err := Open(tt.addr, tt.o, workers(t, 1), &greeter{t: t})
		if err != nil {
			t.Fatal(err)
		}
		if s.local.IsValid() {
			t.Errorf("%s: the local end is %v without a question", name, s.local)
		}
		s.Discard()
	}
}

func TestIPv4OnAnIPv6Wildcard(t *testing.T) {
	for _, compat := range []bool{true, false} {
		addr := tcp("[::]:0")
		addr.IPv4Compat = compat
		s, err := Open(addr, Options{ReusePort: true}, workers(t, 1), &greeter{t: t})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.Bound.Addr.Port()).String())
		if (err == nil) != compat {
			t.Errorf("ipv4_compat %v: %v", compat, err)
		}
		if err == nil {
			c.Close()
		}
		s.Close()
	}
}
