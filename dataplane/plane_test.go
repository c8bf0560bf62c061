package dataplane

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/test/peer"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type world struct {
	t     *testing.T
	plane *Plane
	store *stats.Store
	snap  api.Snapshot
}

func newWorld(t *testing.T) *world { return newWorldOf(t, "auto") }

func newWorldOf(t *testing.T, splice string) *world {
	t.Helper()
	w := &world{t: t, store: stats.New()}
	var err error
	w.plane, err = New(Options{Concurrency: 2, Splice: splice, Stats: w.store, FlushInterval: 10 * time.Millisecond, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.plane.Close() })
	w.snap.Clusters = api.ClusterSet{}
	return w
}

func (w *world) apply(listeners ...*api.Listener) *api.Applied {
	s := w.snap
	s.Generation++
	w.snap.Generation++
	s.Listeners = listeners
	return w.plane.Apply(w.t.Context(), &s)
}

func (w *world) cluster(name string, hosts ...netip.AddrPort) {
	c := &api.Cluster{Name: name, ConnectTimeout: time.Second, PanicThreshold: 50,
		CircuitBreakers: api.CircuitBreakers{MaxConnections: 1024, MaxPendingRequests: 1024}, Assignment: &api.Assignment{}}
	l := api.Locality{}
	for _, h := range hosts {
		l.Endpoints = append(l.Endpoints, api.Endpoint{Addr: h, Weight: 1})
	}
	c.Assignment.Localities = []api.Locality{l}
	w.snap.Clusters = w.snap.Clusters.With(c)
}

func tcpListener(name, addr, cluster string) *api.Listener {
	return &api.Listener{Name: name, ReusePort: true, PerConnectionBufferLimit: 1 << 20,
		Addresses: []api.BindAddress{{Addr: netip.MustParseAddrPort(addr)}},
		FilterChains: []*api.FilterChain{{Filters: []api.Filter{{TCPProxy: &api.TCPProxy{
			StatPrefix: name, Cluster: cluster, IdleTimeout: time.Hour, MaxConnectAttempts: 1}}}}}}
}

// free is an address that nobody listens on.
func free(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func banner(t *testing.T, text string) netip.AddrPort {
	t.Helper()
	s, err := peer.Listen("127.0.0.1:0", peer.ResponseThen(text+"\n", peer.Echo))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.Addr()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(5 * time.Second))
	return c
}

func readLine(t *testing.T, c net.Conn) string {
	t.Helper()
	var b [1]byte
	var line strings.Builder
	for {
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return line.String() + "!" + err.Error()
		}
		if b[0] == '\n' {
			return line.String()
		}
		line.WriteByte(b[0])
	}
}

func (w *world) counter(name string) uint64 {
	s, _ := w.store.Lookup(name)
	return s.Value
}

func TestSwapMovesNewConnectionsAndKeepsOldOnes(t *testing.T) {
	w := newWorld(t)
	a, b := banner(t, "a"), banner(t, "b")
	addr := free(t)
	w.cluster("c", a)
	if r := w.apply(tcpListener("l", addr, "c")); r.Refused != nil {
		t.Fatal(r.Refused)
	}
	old := dial(t, addr)
	if got := readLine(t, old); got != "a" {
		t.Fatalf("banner %q", got)
	}
	w.cluster("c", b)
	w.apply(tcpListener("l", addr, "c"))
	for range 20 {
		if got := readLine(t, dial(t, addr)); got != "b" {
			t.Fatalf("banner %q after the swap", got)
		}
	}
	// The cluster, and then the listener, go; the connection stays.
	w.snap.Clusters = api.ClusterSet{}
	w.apply(tcpListener("l", addr, "c"))
	if n, err := dial(t, addr).Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("without its cluster: %d, %v, want EOF", n, err)
	}
	w.apply()
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("a removed listener still takes connections")
	}
	fmt.Fprintln(old, "still here")
	if got := readLine(t, old); got != "still here" {
		t.Errorf("the old connection says %q", got)
	}
	if n := w.counter("tcp.l.downstream_cx_no_route"); n != 1 {
		t.Errorf("downstream_cx_no_route %d, want 1", n)
	}
}

func TestPortInUseIsRefusedAlone(t *testing.T) {
	w := newWorld(t)
	w.cluster("c", banner(t, "a"))
	taken := free(t)
	ap := netip.MustParseAddrPort(taken)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	// A careless stranger of the same user would be let in by SO_REUSEPORT.
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 8); err != nil {
		t.Fatal(err)
	}
	good := free(t)
	r := w.apply(tcpListener("bad", taken, "c"), tcpListener("good", good, "c"))
	if err := r.Refused["bad"]; !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), taken) {
		t.Errorf("refused %v", r.Refused)
	}
	if len(r.Refused) != 1 {
		t.Errorf("refused %v", r.Refused)
	}
	if got := readLine(t, dial(t, good)); got != "a" {
		t.Errorf("the good listener says %q", got)
	}
	// A good listener that moves to the taken address stays where it was.
	r = w.apply(tcpListener("good", taken, "c"))
	if r.Refused["good"] == nil {
		t.Error("moved onto a taken address")
	}
	if got := readLine(t, dial(t, good)); got != "a" {
		t.Errorf("after a refused move the listener says %q", got)
	}
}

func TestANewListenerInheritsTheSocketsOfItsAddress(t *testing.T) {
	w := newWorld(t)
	w.cluster("a", banner(t, "a"))
	w.cluster("b", banner(t, "b"))
	addr := free(t)
	w.apply(tcpListener("one", addr, "a"))
	before := w.plane.sockets[tcpListener("x", addr, "").PlaceKey(0)].sockets
	if r := w.apply(tcpListener("two", addr, "b")); r.Refused != nil {
		t.Fatal(r.Refused)
	}
	if w.plane.sockets[tcpListener("x", addr, "").PlaceKey(0)].sockets != before {
		t.Error("the sockets were replaced: their queues were reset")
	}
	if got := readLine(t, dial(t, addr)); got != "b" {
		t.Errorf("banner %q", got)
	}
}

func TestNobodyIsRefusedWhileTheListenerChanges(t *testing.T) {
	w := newWorld(t)
	addr := free(t)
	w.cluster("c", banner(t, "a"))
	w.apply(tcpListener("l", addr, "c"))
	stop := make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			c, err := net.Dial("tcp", addr)
			if err != nil {
				failed <- err
				return
			}
			c.SetDeadline(time.Now().Add(5 * time.Second))
			var b [2]byte
			if _, err := io.ReadFull(c, b[:]); err != nil {
				failed <- fmt.Errorf("connection %d: %w", n, err)
				return
			}
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}()
	for i := range 200 {
		l := tcpListener("l", addr, "c")
		l.PerConnectionBufferLimit += uint32(i)
		w.apply(l)
	}
	close(stop)
	if err := <-failed; err != nil {
		t.Error(err)
	}
}
