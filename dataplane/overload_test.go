package dataplane

import (
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
)

// pressed is a world with one action, or point, that a resource in a file triggers.
type pressed struct {
	*world
	file string
}

func newPressed(t *testing.T, o api.Overload) *pressed {
	t.Helper()
	w := &pressed{world: &world{t: t, store: stats.New()}, file: filepath.Join(t.TempDir(), "r")}
	o.Refresh = time.Millisecond
	o.Monitors = append(o.Monitors, api.ResourceMonitor{Name: "r", Injected: &api.InjectedResource{Path: w.file}})
	var err error
	w.plane, err = New(Options{Concurrency: 2, Splice: "off", Stats: w.store, Overload: &o, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.plane.Close() })
	w.snap.Clusters = api.ClusterSet{}
	return w
}

// press sets the pressure, in percent. What it triggers is in force then.
func (w *pressed) press(text string, percent uint64) {
	w.t.Helper()
	if err := os.WriteFile(w.file+"-", []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(w.file+"-", w.file); err != nil {
		w.t.Fatal(err)
	}
	w.await("overload.r.pressure", percent)
	w.plane.overloadChanged() // is about to be called, or under way
}

func whenFull(name string) api.Overload {
	return api.Overload{Actions: []api.OverloadAction{{Name: name, Triggers: []api.Trigger{{Resource: "r", Threshold: .9}}}}}
}

// queued opens a connection that is not accepted. It is one once the kernel has it,
// and other listeners serve others meanwhile.
func (w *pressed) queued(network, addr string) net.Conn {
	w.t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := c.Read(make1()); n != 0 || !os.IsTimeout(err) {
		w.t.Errorf("%s: read %d, %v from a listener that accepts nobody", addr, n, err)
	}
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	return c
}

func TestListenersStopAcceptingAndGoOn(t *testing.T) {
	w := newPressed(t, whenFull(api.StopAcceptingConnections))
	w.cluster("c", banner(t, "b"))
	tcp, one, exempt := tcpListener("tcp", free(t), "c"), tcpListener("one", free(t), "c"), tcpListener("exempt", free(t), "c")
	one.ReusePort, exempt.BypassOverload = false, true
	path := filepath.Join(t.TempDir(), "s")
	unixed := tcpListener("unix", free(t), "c")
	unixed.Addresses = []api.BindAddress{{Path: path}}
	listeners := []*api.Listener{exempt, one, tcp, unixed} // by name, as in every snapshot
	for _, l := range listeners {
		l.StatPrefix = l.Name
	}
	w.serve(listeners...)
	at := func(l *api.Listener) (string, string) {
		if p := l.Addresses[0].Path; p != "" {
			return "unix", p
		}
		return "tcp", l.Addresses[0].Addr.String()
	}
	network, addr := at(tcp)
	open := talk(t, network, addr, "b")
	w.press("0.95", 95)

	// Those that come later, or change, are stopped, too.
	fresh := tcpListener("fresh", free(t), "c")
	changed := *one
	changed.Backlog = 7
	listeners = []*api.Listener{exempt, fresh, &changed, tcp, unixed}
	w.serve(listeners...)
	var waiting []net.Conn
	for _, l := range listeners {
		network, addr := at(l)
		if l == exempt {
			talk(t, network, addr, "b")
			continue
		}
		waiting = append(waiting, w.queued(network, addr))
	}
	if err := exchange(open, "established connections go on"); err != nil {
		t.Error(err)
	}
	w.press("0.5", 50)
	for i, c := range waiting {
		if got := readLine(t, c); got != "b" {
			t.Errorf("connection %d, which waited, read %s", i, got)
		}
	}
	for _, l := range listeners {
		network, addr := at(l)
		talk(t, network, addr, "b")
	}
}

func TestABypassIsHeededWhenItChanges(t *testing.T) {
	w := newPressed(t, whenFull(api.StopAcceptingConnections))
	w.cluster("c", banner(t, "b"))
	l := tcpListener("l", free(t), "c")
	w.serve(l)
	addr := l.Addresses[0].Addr.String()
	w.press("1", 100)
	c := w.queued("tcp", addr)
	exempt := *l
	exempt.BypassOverload = true
	w.serve(&exempt)
	if got := readLine(t, c); got != "b" {
		t.Errorf("read %s", got)
	}
	w.serve(l)
	w.queued("tcp", addr)
}

// A socket that goes away serves who waits for it, paused or not.
func TestAListenerThatIsRemovedServesWhoWaits(t *testing.T) {
	w := newPressed(t, whenFull(api.StopAcceptingConnections))
	w.cluster("c", banner(t, "b"))
	l := tcpListener("l", free(t), "c")
	w.serve(l)
	w.press("1", 100)
	c := w.queued("tcp", l.Addresses[0].Addr.String())
	w.serve()
	if got := readLine(t, c); got != "b" {
		t.Errorf("read %s", got)
	}
}

func TestConnectionsAreRejected(t *testing.T) {
	for name, o := range map[string]api.Overload{
		"by the action": whenFull(api.RejectIncomingConnections),
		"by the point":  {Points: []api.LoadShedPoint{{Name: api.ShedAccept, Triggers: []api.Trigger{{Resource: "r", Threshold: .9}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newPressed(t, o)
			w.cluster("c", banner(t, "b"))
			l, exempt := tcpListener("l", free(t), "c"), tcpListener("exempt", free(t), "c")
			l.StatPrefix, exempt.StatPrefix, exempt.BypassOverload = "l", "exempt", true
			w.plane.SetLimits(Limits{Connections: 2})
			w.serve(exempt, l)
			addr := l.Addresses[0].Addr.String()
			open := talk(t, "tcp", addr, "b")
			w.press("0.95", 95)
			for range 3 {
				if b, err := io.ReadAll(dial(t, addr)); len(b) > 0 || err != nil {
					t.Errorf("read %q, %v", b, err)
				}
			}
			w.await("listener.l.downstream_cx_overload_reject", 3)
			// Those that were rejected take no place among the limits.
			second := talk(t, "tcp", exempt.Addresses[0].Addr.String(), "b")
			if b, err := io.ReadAll(dial(t, addr)); len(b) > 0 || err != nil {
				t.Errorf("read %q, %v", b, err)
			}
			w.await("listener.l.downstream_global_cx_overflow", 1)
			second.Close()
			if err := exchange(open, "established connections go on"); err != nil {
				t.Error(err)
			}
			w.press("0.1", 10)
			w.await("listener.exempt.downstream_cx_active", 0)
			if n := w.counter("listener.l.downstream_cx_total"); n != 1 {
				t.Errorf("%d were let in, want 1", n)
			}
			talk(t, "tcp", addr, "b")
		})
	}
}

// The time for a handshake is shortened for those that are under way, and for those
// that come.
func TestHandshakesGetLessTimeUnderPressure(t *testing.T) {
	o := whenFull(api.ReduceTimeouts)
	o.Actions[0].ConnectTimeout = &api.TimerMinimum{Time: 10 * time.Millisecond}
	i, w := newIdentities(t), newPressed(t, o)
	w.cluster("c", banner(t, "b"))
	l := secured(tcpListener("l", free(t), "c"), i.down())
	l.StatPrefix, l.FilterChains[0].TransportSocketConnectTimeout = "l", time.Hour
	w.serve(l)
	addr := l.Addresses[0].Addr.String()
	w.press("0.5", 50)
	done, silent := dialTLS(t, addr, i.clientConfig(t)), dial(t, addr)
	if got := readLine(t, done); got != "b" {
		t.Fatalf("read %s", got)
	}
	w.await("listener.l.downstream_cx_active", 2)
	w.press("0.95", 95)
	for n, c := range []net.Conn{silent, dial(t, addr)} {
		if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
			t.Errorf("connection %d read %q, %v", n, b, err)
		}
		w.await("listener.l.downstream_cx_transport_socket_connect_timeout", uint64(n)+1)
	}
	if err := exchange(done, "established connections go on"); err != nil {
		t.Error(err)
	}
}
