package dataplane

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"golang.org/x/sys/unix"
)

// at gives a listener of the tests another address.
func at(l *api.Listener, b ...api.BindAddress) *api.Listener {
	l.Addresses = b
	return l
}

func (w *world) value(name string) uint64 {
	w.t.Helper()
	s, _ := w.store.Lookup(name)
	return s.Value
}

// await waits until a statistic has a value.
func (w *world) await(name string, want uint64) {
	w.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); w.value(name) != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s is %d, want %d", name, w.value(name), want)
		}
	}
}

func talk(t *testing.T, network, addr, want string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if got := readLine(t, c); got != want {
		t.Fatalf("banner %q, want %q", got, want)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Fatalf("got %q, %v", b, err)
	}
	return c
}

func TestUnixListenersServe(t *testing.T) {
	w := newWorld(t)
	w.cluster("c", banner(t, "b"))
	path := filepath.Join(t.TempDir(), "s")
	name := "@sluice-" + filepath.Base(t.TempDir()) + strings.ReplaceAll(path, "/", "-")
	// A socket that nobody listens on any more lies in the way.
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	l := at(tcpListener("l", "127.0.0.1:0", "c"), api.BindAddress{Path: path, Mode: 0o640}, api.BindAddress{Path: name})
	if a := w.apply(l); a.Refused != nil {
		t.Fatal(a.Refused)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	for _, at := range []string{path, name} {
		c := talk(t, "unix", at, "b")
		if err := c.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(c); err != nil || len(rest) != 0 {
			t.Errorf("rest %q, %v", rest, err)
		}
	}
	bound := w.plane.Listeners()[0].Bound
	if len(bound) != 2 || bound[0].String() != path || bound[1].String() != name {
		t.Errorf("bound %v", bound)
	}
	w.await("listener."+path+".downstream_cx_destroy", 2)
}

func TestAPairWithAUnixSideIsNeverSpliced(t *testing.T) {
	w := newWorld(t)
	w.cluster("c", banner(t, "b"))
	path := filepath.Join(t.TempDir(), "s")
	w.apply(at(tcpListener("l", "127.0.0.1:0", "c"), api.BindAddress{Path: path}))
	c := talk(t, "unix", path, "b")
	for range 100 { // what splices a TCP pair many times over
		b := []byte("ping")
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "ping" {
			t.Fatalf("got %q, %v", b, err)
		}
	}
	for _, conn := range w.plane.Connections() {
		for _, d := range []api.DirectionStatus{conn.Request, conn.Response} {
			if d.Path != api.PathRelay || d.Spliced != 0 || w.plane.Splice().Reason == "" && d.Reason != "unix" {
				t.Errorf("%+v", d)
			}
		}
	}
}

func TestAFileInTheWayOfAUnixSocketIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := w.apply(at(tcpListener("l", "127.0.0.1:0", "c"), api.BindAddress{Path: path}))
	if err := a.Refused["l"]; err == nil || err.Error() != "cannot bind '"+path+"': Address already in use" {
		t.Errorf("refused: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "keep" {
		t.Errorf("%q, %v", b, err)
	}
}

// socketsOf are the descriptors of a listener's first address.
func (w *world) option(l *api.Listener, level, name int) (out []int) {
	w.t.Helper()
	b := w.plane.sockets[l.PlaceKey(0)]
	for _, fd := range b.sockets.Descriptors() {
		v, err := unix.GetsockoptInt(fd, level, name)
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

func integer(n int32) string { return string(binary.NativeEndian.AppendUint32(nil, uint32(n))) }

func TestSocketOptionsAreSet(t *testing.T) {
	yes, queue := true, uint32(7)
	w := newWorld(t)
	addr := netip.MustParseAddrPort("127.0.0.1:0")
	l := at(tcpListener("l", "127.0.0.1:0", "c"), api.BindAddress{Addr: addr, Socket: api.SocketOptions{
		Freebind: &yes, FastOpenQueue: &queue, Keepalive: &api.Keepalive{Probes: 3, Time: 44, Interval: 5},
		Options: []api.SocketOption{
			{Level: unix.SOL_SOCKET, Name: unix.SO_PRIORITY, Value: integer(5)},
			{Level: unix.IPPROTO_TCP, Name: unix.TCP_USER_TIMEOUT, Value: integer(1234), State: api.Bound},
			{Level: unix.IPPROTO_TCP, Name: unix.TCP_DEFER_ACCEPT, Value: integer(1), State: api.Listening},
		}}})
	if a := w.apply(l); a.Refused != nil {
		t.Fatal(a.Refused)
	}
	for _, o := range []struct {
		what              string
		level, name, want int
	}{
		{"freebind", unix.IPPROTO_IP, unix.IP_FREEBIND, 1},
		{"fast open", unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 7},
		{"keepalive", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"probes", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
		{"time", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 44},
		{"interval", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 5},
		{"before the bind", unix.SOL_SOCKET, unix.SO_PRIORITY, 5},
		{"after it", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1234},
		{"when listening", unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1},
	} {
		for _, got := range w.option(l, o.level, o.name) {
			if got != o.want {
				t.Errorf("%s: %d, want %d", o.what, got, o.want)
			}
		}
	}
}

// The texts are those of Envoy 1.40.
func TestWhatTheKernelRefusesIsTold(t *testing.T) {
	w := newWorld(t)
	odd := func(s api.SocketState) api.SocketOptions {
		return api.SocketOptions{Options: []api.SocketOption{{Level: 999, Name: 9, Value: integer(1), State: s}}}
	}
	addr := netip.MustParseAddrPort(free(t))
	for _, tt := range []struct {
		what string
		b    api.BindAddress
		want string
	}{
		{"an address of another host", api.BindAddress{Addr: netip.MustParseAddrPort("192.0.2.1:0")}, "cannot bind '192.0.2.1:0': Cannot assign requested address"},
		{"no such folder", api.BindAddress{Path: "/nosuch/x"}, "cannot bind '/nosuch/x': No such file or directory"},
		{"an option before the bind", api.BindAddress{Addr: addr, Socket: odd(api.Prebind)}, "ListenSocket: Setting socket options failed: Setting 999/9 option on socket failed: Protocol not available"},
		{"an option after it", api.BindAddress{Addr: addr, Socket: odd(api.Bound)}, addr.String() + ": Setting socket options failed: Setting 999/9 option on socket failed: Protocol not available"},
		{"an option when listening", api.BindAddress{Addr: addr, Socket: odd(api.Listening)}, "cannot set post-listen socket option on socket: " + addr.String() + ": Setting 999/9 option on socket failed: Protocol not available"},
	} {
		a := w.apply(at(tcpListener("l", "127.0.0.1:0", "c"), tt.b))
		if err := a.Refused["l"]; err == nil || err.Error() != tt.want {
			t.Errorf("%s: got  %v\nwant %s", tt.what, err, tt.want)
		}
	}
}

func TestOtherSocketOptionsMakeOtherSockets(t *testing.T) {
	w := newWorld(t)
	w.cluster("c", banner(t, "b"))
	addr := free(t)
	l := func(prio int32) *api.Listener {
		l := tcpListener("l", addr, "c")
		l.Addresses[0].Socket.Options = []api.SocketOption{{Level: unix.SOL_SOCKET, Name: unix.SO_PRIORITY, Value: integer(prio)}}
		return l
	}
	if a := w.apply(l(1)); a.Refused != nil {
		t.Fatal(a.Refused)
	}
	before := talk(t, "tcp", addr, "b")
	if a := w.apply(l(2)); a.Refused != nil {
		t.Fatal(a.Refused)
	}
	for _, got := range w.option(l(2), unix.SOL_SOCKET, unix.SO_PRIORITY) {
		if got != 2 {
			t.Errorf("priority %d, want 2", got)
		}
	}
	for range 10 {
		talk(t, "tcp", addr, "b").Close()
	}
	if _, err := before.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	shared := l(3)
	shared.Name, shared.ReusePort, shared.Addresses[0].Addr = "m", false, netip.MustParseAddrPort(free(t))
	if a := w.apply(l(2), shared); a.Refused != nil {
		t.Fatal(a.Refused)
	}
	changed := *shared
	changed.Addresses = []api.BindAddress{{Addr: shared.Addresses[0].Addr}}
	if err := w.apply(l(2), &changed).Refused["m"]; err == nil || !strings.HasPrefix(err.Error(), "error adding listener: 'm' has duplicate address '"+shared.Addresses[0].String()+"' as existing listener") {
		t.Errorf("refused: %v", err)
	}
	if w.plane.sockets[shared.PlaceKey(0)] == nil {
		t.Error("the old sockets are gone")
	}
}

func TestAListenerThatIsOnlyHandedConnectionsOwnsNoSocket(t *testing.T) {
	w := newWorld(t)
	w.cluster("c", banner(t, "b"))
	addr := free(t)
	l := tcpListener("l", addr, "c")
	l.HandedOnly = true
	if a := w.apply(l); a.Refused != nil {
		t.Fatal(a.Refused)
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Fatal("somebody listens")
	}
	if b := w.plane.Listeners()[0].Bound; len(b) != 1 || b[0].String() != addr {
		t.Errorf("bound %v", b)
	}
	bound := tcpListener("l", addr, "c")
	if a := w.apply(bound); a.Refused != nil {
		t.Fatal(a.Refused)
	}
	talk(t, "tcp", addr, "b").Close()
	if a := w.apply(l); a.Refused != nil {
		t.Fatal(a.Refused)
	}
	if len(w.plane.sockets) != 0 {
		t.Errorf("%d sockets are left", len(w.plane.sockets))
	}
}

func TestTheSameAddressTwiceInAListenerIsBoundOnce(t *testing.T) {
	w := newWorld(t)
	w.cluster("c", banner(t, "b"))
	addr := free(t)
	b := api.BindAddress{Addr: netip.MustParseAddrPort(addr)}
	if a := w.apply(at(tcpListener("l", addr, "c"), b, b)); a.Refused != nil {
		t.Fatal(a.Refused)
	}
	talk(t, "tcp", addr, "b").Close()
	w.apply()
	if len(w.plane.sockets) != 0 {
		t.Errorf("%d sockets are left", len(w.plane.sockets))
	}
}

func TestExactBalanceSharesConnectionsEvenly(t *testing.T) {
	w := newWorld(t)
	w.cluster("c", banner(t, "b"))
	addr := free(t)
	l := tcpListener("l", addr, "c")
	l.ExactBalance, l.StatPrefix = true, "l"
	w.apply(l)
	for range 10 {
		talk(t, "tcp", addr, "b")
	}
	for _, worker := range []string{"0", "1"} {
		if n := w.value("listener.l.worker_" + worker + ".downstream_cx_active"); n != 5 {
			t.Errorf("worker %s has %d of 10", worker, n)
		}
	}
}

func TestConnectionsBeyondALimitAreClosed(t *testing.T) {
	w := newWorld(t)
	w.plane.SetLimits(Limits{Connections: 3, ByListener: map[string]uint64{"one": 1}})
	w.cluster("c", banner(t, "b"))
	make := func(name string) (*api.Listener, string) {
		addr := free(t)
		l := tcpListener(name, addr, "c")
		l.StatPrefix = name
		return l, addr
	}
	one, atOne := make("one")
	two, atTwo := make("two")
	exempt, atExempt := make("exempt")
	exempt.IgnoreGlobalLimit = true
	w.apply(exempt, one, two)
	refused := func(addr string) {
		t.Helper()
		if n, err := dial(t, addr).Read(make1()); n != 0 || err != io.EOF {
			t.Errorf("read %d, %v, want a FIN", n, err)
		}
	}
	first := talk(t, "tcp", atOne, "b")
	refused(atOne)
	w.await("listener.one.downstream_cx_overflow", 1)
	talk(t, "tcp", atTwo, "b")
	talk(t, "tcp", atTwo, "b")
	refused(atTwo)
	w.await("listener.two.downstream_global_cx_overflow", 1)
	talk(t, "tcp", atExempt, "b").Close()
	w.await("listener.exempt.downstream_cx_active", 0)
	first.Close()
	w.await("listener.one.downstream_cx_active", 0)
	talk(t, "tcp", atOne, "b")
	if n := w.plane.open.Load(); n != 3 {
		t.Errorf("%d are open, want 3", n)
	}
}

func make1() []byte { return make([]byte, 1) }

func TestAcceptsPerEventAreBoundedAndRecorded(t *testing.T) {
	w := newWorld(t)
	w.cluster("c", banner(t, "b"))
	addr := free(t)
	l := tcpListener("l", addr, "c")
	l.MaxAcceptsPerEvent = 1
	w.apply(l)
	for range 5 {
		talk(t, "tcp", addr, "b")
	}
	more := *l
	more.MaxAcceptsPerEvent = 0
	more.Backlog = 9
	if a := w.apply(&more); a.Refused != nil {
		t.Fatal(a.Refused)
	}
	talk(t, "tcp", addr, "b")
}
