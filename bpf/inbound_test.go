package bpf

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/test/netns"
)

// The two ends of a wire; the program is at the server's.
var (
	clientEnd = []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24"), netip.MustParsePrefix("fd09::1/64")}
	serverEnd = []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24"), netip.MustParsePrefix("10.9.0.3/24"), netip.MustParsePrefix("fd09::2/64"), netip.MustParsePrefix("fd09::3/64")}
)

// inboundWorld is a client, and a server whose application's connections may be
// given to others.
type inboundWorld struct {
	t              *testing.T
	client, server *netns.NS
	in             *Inbound
	counted        map[string]uint64
}

func newInboundWorld(t *testing.T) *inboundWorld {
	t.Helper()
	w := &inboundWorld{t: t, client: netns.ForTest(t), server: netns.ForTest(t)}
	if err := netns.Connect(netns.End{NS: w.client, Name: "v0", Addrs: clientEnd}, netns.End{NS: w.server, Name: "v1", Addrs: serverEnd}, 0); err != nil {
		t.Fatal(err)
	}
	w.in = w.load()
	return w
}

func (w *inboundWorld) load() (in *Inbound) {
	w.t.Helper()
	if err := w.server.Do(func() (err error) { in, err = LoadInbound(InboundOptions{}); return err }); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := in.Close(); err != nil {
			w.t.Error(err)
		}
	})
	for _, p := range append(serverEnd, netip.MustParsePrefix("::1/128")) {
		if err := in.SetOwn(p.Addr(), true); err != nil {
			w.t.Fatal(err)
		}
	}
	return in
}

// sysctl sets one of the server's.
func (w *inboundWorld) sysctl(name, value string) {
	w.t.Helper()
	if out, err := exec.Command("nsenter", "--net="+w.server.Path(), "sysctl", "-w", name+"="+value).CombinedOutput(); err != nil {
		w.t.Fatalf("set %s: %v\n%s", name, err, out)
	}
}

// listen has n sockets of one SO_REUSEPORT group say a word, the number of the
// socket, and the address that it was reached at. network is tcp4, tcp6 or tcp
// (both by one socket).
func (w *inboundWorld) listen(word, network, at string, n int) (out []ListeningSocket, close func()) {
	w.t.Helper()
	var listeners []net.Listener
	for i := range n {
		var l net.Listener
		err := w.server.Do(func() (err error) {
			lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
				return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
			}}
			lc.SetMultipathTCP(false) // such a socket can be put into no sockmap
			l, err = lc.Listen(context.Background(), network, at)
			return err
		})
		if err != nil {
			w.t.Fatal(err)
		}
		listeners = append(listeners, l)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "%s %d %v", word, i, c.LocalAddr().(*net.TCPAddr).AddrPort())
				c.Close()
			}
		}()
		raw, err := l.(*net.TCPListener).SyscallConn()
		if err != nil {
			w.t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			cookie, err := Cookie(int(fd))
			if err != nil {
				w.t.Fatal(err)
			}
			out = append(out, ListeningSocket{FD: int(fd), Cookie: cookie})
		})
	}
	close = func() {
		for _, l := range listeners {
			l.Close()
		}
	}
	w.t.Cleanup(close)
	return out, close
}

// dial says who answers a connection from a namespace, and with which address.
func (w *inboundWorld) dial(ns *netns.NS, from, to string) string {
	w.t.Helper()
	said := ""
	err := ns.Do(func() error {
		d := net.Dialer{Timeout: 5 * time.Second}
		if from != "" {
			a := netip.MustParseAddr(from)
			d.LocalAddr = &net.TCPAddr{IP: a.WithZone("").AsSlice(), Zone: a.Zone()}
		}
		c, err := d.Dial("tcp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		b, err := io.ReadAll(c)
		said = string(b)
		return err
	})
	if err != nil {
		return err.Error()
	}
	return said
}

// word drops the number of the socket.
func word(said string) string {
	f := strings.Fields(said)
	if len(f) == 3 {
		return f[0] + " " + f[2]
	}
	return said
}

func (w *inboundWorld) swap(t *InboundTable) {
	w.t.Helper()
	if err := w.in.Swap(t); err != nil {
		w.t.Fatal(err)
	}
}

// ended checks what was counted since it was last called, but for UDP, which
// IPv6 sends by itself.
func (w *inboundWorld) ended(want map[string]uint64) {
	w.t.Helper()
	now, err := w.in.Counters()
	if err != nil {
		w.t.Fatal(err)
	}
	got := map[string]uint64{}
	for name, n := range now {
		if d := n - w.counted[name]; d != 0 && name != "inbound.not_tcp" {
			got[name] = d
		}
	}
	w.counted = now
	if !maps.Equal(got, want) {
		w.t.Errorf("counted %v, want %v", got, want)
	}
}

var any4, any6 = netip.IPv4Unspecified(), netip.IPv6Unspecified()

// all gives every port to a socket per family.
func all(s4, s6 ListeningSocket) *InboundTable {
	return &InboundTable{Sockets: []ListeningSocket{s4, s6}, Entries: []InboundEntry{
		{To: netip.AddrPortFrom(any4, 0), Verdict: VerdictCapture, Socket: 0},
		{To: netip.AddrPortFrom(any6, 0), Verdict: VerdictCapture, Socket: 1},
	}}
}

func TestConnectionsFromOutsideAreGivenToTheListener(t *testing.T) {
	for _, dual := range []bool{false, true} {
		t.Run(map[bool]string{false: "a socket per family", true: "one for both"}[dual], func(t *testing.T) {
			w := newInboundWorld(t)
			// Sources that are no device's: the kernel names lo where it can.
			for _, route := range [][]string{{"-4", "10.77.0.0/24"}, {"-6", "fd77::/64"}} {
				if out, err := exec.Command("nsenter", "--net="+w.server.Path(), "ip", route[0], "route", "add", "local", route[1], "dev", "lo").CombinedOutput(); err != nil {
					t.Fatalf("add route: %v\n%s", err, out)
				}
			}
			w.sysctl("net.ipv6.ip_nonlocal_bind", "1")
			w.listen("app", "tcp", "[::]:80", 1)
			var s4, s6 []ListeningSocket
			if dual {
				s4, _ = w.listen("proxy", "tcp", "[::]:15006", 2)
				s6 = s4
			} else {
				s4, _ = w.listen("proxy", "tcp4", "127.0.0.1:15006", 2)
				s6, _ = w.listen("proxy", "tcp6", "[::1]:15006", 2)
			}
			check := func(ns *netns.NS, from, to, want, count string) {
				t.Helper()
				if got := word(w.dial(ns, from, to)); got != want {
					t.Errorf("%s to %s: answered by %q, want %q", from, to, got, want)
				}
				w.ended(map[string]uint64{count: 1})
			}
			in4, in6 := "10.9.0.2:80", "[fd09::2]:80"
			if dual { // Go prints what such a socket says
				in4 = "[::ffff:10.9.0.2]:80"
			}
			const app4 = "app [::ffff:10.9.0.2]:80"
			check(w.client, "", "10.9.0.2:80", app4, "inbound.no_table")
			w.swap(all(s4[0], s6[0]))
			check(w.client, "", "10.9.0.2:80", "proxy "+in4, "inbound.captured")
			check(w.client, "", "[fd09::2]:80", "proxy "+in6, "inbound.captured")
			check(w.client, "", "10.9.0.3:9", "proxy "+strings.Replace(strings.Replace(in4, ":80", ":9", 1), ".2", ".3", 1), "inbound.captured")

			// The proxy's own dial to the application, from whatever address.
			for _, from := range []string{"", "127.0.0.6", "10.9.0.3"} {
				count := "inbound.from_own_address"
				if from == "127.0.0.6" {
					count = "inbound.loopback"
				}
				check(w.server, from, "10.9.0.2:80", app4, count)
			}
			for _, from := range []string{"", "fd09::3", "::1"} {
				check(w.server, from, "[fd09::2]:80", "app [fd09::2]:80", "inbound.from_own_address")
			}
			check(w.server, "", "127.0.0.1:80", "app [::ffff:127.0.0.1]:80", "inbound.loopback")
			check(w.server, "", "[::1]:80", "app [::1]:80", "inbound.loopback")
			check(w.server, "10.77.0.1", "127.0.0.1:80", "app [::ffff:127.0.0.1]:80", "inbound.loopback")
			check(w.server, "fd77::1", "[::1]:80", "app [::1]:80", "inbound.loopback")

			w.swap(&InboundTable{})
			check(w.client, "", "10.9.0.2:80", app4, "inbound.no_entry")
			if err := w.in.Detach(); err != nil {
				t.Fatal(err)
			}
			if got := word(w.dial(w.client, "", "10.9.0.2:80")); got != app4 {
				t.Errorf("after the program is gone: answered by %q", got)
			}
			w.ended(map[string]uint64{})
		})
	}
}

// What another link calls by a link-local address of ours is somebody else.
func TestALinkLocalAddressIsOwnOnItsLinkOnly(t *testing.T) {
	w := newInboundWorld(t)
	w.listen("app", "tcp", "[::]:80", 1)
	s, _ := w.listen("proxy", "tcp", "[::]:15006", 1)
	w.swap(all(s[0], s[0]))
	index := 0
	for _, one := range []struct {
		ns        *netns.NS
		dev, addr string
	}{{w.client, "v0", "fe80::7/64"}, {w.server, "v1", "fe80::8/64"}} {
		if out, err := exec.Command("nsenter", "--net="+one.ns.Path(), "ip", "addr", "add", one.addr, "dev", one.dev, "nodad").CombinedOutput(); err != nil {
			t.Fatalf("add address: %v\n%s", err, out)
		}
		if err := one.ns.Do(func() error {
			i, err := net.InterfaceByName(one.dev)
			if err == nil {
				index = i.Index
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	own := func(a string, device int) {
		if err := w.in.SetOwn(netip.MustParseAddr(a).WithZone(strconv.Itoa(device)), true); err != nil {
			t.Fatal(err)
		}
	}
	own("fe80::7", index+1) // on another link
	own("fe80::8", index)
	if known, err := w.in.Own(); err != nil || !slices.Contains(known, netip.MustParseAddr("fe80::8").WithZone(strconv.Itoa(index))) {
		t.Errorf("own addresses: %v, %v", known, err)
	}
	dial := func(ns *netns.NS, from, dev string) string {
		return word(w.dial(ns, from+"%"+dev, "[fe80::8%"+dev+"]:80"))
	}
	// The zone in the answer is a name of whatever namespace Go asked last.
	if got, _, _ := strings.Cut(dial(w.client, "fe80::7", "v0"), " "); got != "proxy" {
		t.Errorf("from outside: answered by %q", got)
	}
	w.ended(map[string]uint64{"inbound.captured": 1})
	if got, _, _ := strings.Cut(dial(w.server, "fe80::8", "v1"), " "); got != "app" {
		t.Errorf("from inside: answered by %q", got)
	}
	w.ended(map[string]uint64{"inbound.from_own_address": 1})
}

func TestTheMostPreciseEntryDecides(t *testing.T) {
	w := newInboundWorld(t)
	s, _ := w.listen("proxy", "tcp", "[::]:15006", 1)
	w.listen("app", "tcp", "[::]:80", 1)
	w.listen("app", "tcp", "[::]:81", 1)
	table := all(s[0], s[0])
	pass := func(to string) {
		table.Entries = append(table.Entries, InboundEntry{To: netip.MustParseAddrPort(to), Verdict: VerdictPass})
	}
	pass("10.9.0.3:80")
	pass("0.0.0.0:81")
	pass("[fd09::3]:80")
	table.Entries = append(table.Entries, InboundEntry{To: netip.MustParseAddrPort("10.9.0.3:81"), Verdict: VerdictCapture})
	w.swap(table)
	for to, want := range map[string]string{
		"10.9.0.2:80": "proxy", "10.9.0.3:80": "app", "10.9.0.2:81": "app", "10.9.0.3:81": "proxy",
		"[fd09::2]:80": "proxy", "[fd09::3]:80": "app", "[fd09::2]:81": "proxy",
	} {
		if got, _, _ := strings.Cut(w.dial(w.client, "", to), " "); got != want {
			t.Errorf("%s: answered by %q, want %q", to, got, want)
		}
	}
	w.ended(map[string]uint64{"inbound.captured": 4, "inbound.passed": 3})
}

func TestInboundEndsThatPass(t *testing.T) {
	w := newInboundWorld(t)
	w.listen("app", "tcp", "[::]:80", 1)
	s4, close4 := w.listen("proxy", "tcp4", "127.0.0.1:15006", 1)
	s6, _ := w.listen("proxy", "tcp6", "[::1]:15006", 1)
	const app = "app [::ffff:10.9.0.2]:80"
	check := func(want, count string) {
		t.Helper()
		if got := word(w.dial(w.client, "", "10.9.0.2:80")); got != want {
			t.Errorf("answered by %q, want %q", got, want)
		}
		w.ended(map[string]uint64{count: 1})
	}
	w.swap(all(s6[0], s6[0])) // takes no IPv4
	check(app, "inbound.not_assigned")

	w.swap(all(s4[0], s6[0]))
	first := w.in
	w.in, w.counted = w.load(), nil // comes second
	w.swap(all(s4[0], s6[0]))
	check("proxy 10.9.0.2:80", "inbound.taken_by_another_program")
	if err := first.Detach(); err != nil {
		t.Fatal(err)
	}
	close4()
	check(app, "inbound.passed_listener_gone")

	before, _ := w.in.Counters()
	c, err := w.client.Dial(t.Context(), "udp", "10.9.0.2:53")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for deadline := time.Now().Add(5 * time.Second); ; {
		c.Write([]byte("x")) // nobody is there, which later writes are told
		if after, _ := w.in.Counters(); after["inbound.not_tcp"] > before["inbound.not_tcp"] {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("UDP is not counted")
		}
	}
}

// With tcp_syncookies=2 every SYN is answered by a cookie, and the ACK is looked
// up like a SYN. The listener it is given to has to be one that sends cookies.
func TestSYNCookiesAcrossSwaps(t *testing.T) {
	w := newInboundWorld(t)
	w.sysctl("net.ipv4.tcp_syncookies", "2")
	s4, _ := w.listen("proxy", "tcp4", "127.0.0.1:15006", 2)
	s6, _ := w.listen("proxy", "tcp6", "[::1]:15006", 2)
	w.swap(all(s4[0], s6[0]))
	stop, done := make(chan struct{}), make(chan int)
	var swaps atomic.Int64
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				done <- n
				return
			default:
			}
			// Another socket of the group, another place in the map, another table.
			if err := w.in.Swap(all(s4[n%2], s6[n%2])); err != nil {
				t.Error(err)
			}
			n++
			swaps.Store(int64(n))
		}
	}()
	sockets, n := map[string]int{}, 0
	for ; n < 1000 || swaps.Load() < 50; n++ {
		to, want := "10.9.0.2:80", "proxy 10.9.0.2:80"
		if n%2 == 1 {
			to, want = "[fd09::2]:80", "proxy [fd09::2]:80"
		}
		said := w.dial(w.client, "", to)
		if word(said) != want {
			t.Fatalf("connection %d: answered by %q, want %q", n, said, want)
		}
		sockets[said]++
	}
	close(stop)
	t.Logf("%d connections during %d swaps", n, <-done)
	if len(sockets) != 4 {
		t.Errorf("not every socket of the groups got some: %v", sockets)
	}
	// Two look-ups for each: SYN and ACK. Without cookies there would be one; and
	// so there is for the few whose client's port was used a moment ago: a SYN for
	// a TIME_WAIT is answered without a cookie (tcp_conn_request, tcp_tw_isn).
	now, _ := w.in.Counters()
	if got := now["inbound.captured"]; got < uint64(n)*7/4 {
		t.Errorf("%d captured of %d connections: the ACKs did not come by", got, n)
	}
	for _, name := range []string{"inbound.passed_listener_gone", "inbound.no_entry", "inbound.not_assigned"} {
		if now[name] != 0 {
			t.Errorf("%s: %d", name, now[name])
		}
	}
}

// What the program picks follows from the connection's addresses and the table.
func TestOneConnectionAlwaysFindsOneSocket(t *testing.T) {
	w := newInboundWorld(t)
	a, _ := w.listen("a", "tcp4", "127.0.0.1:15006", 1)
	b, _ := w.listen("b", "tcp4", "127.0.0.1:15007", 1)
	w.swap(&InboundTable{Sockets: []ListeningSocket{a[0], b[0]}, Entries: []InboundEntry{
		{To: netip.MustParseAddrPort("0.0.0.0:80"), Verdict: VerdictCapture, Socket: 0},
		{To: netip.MustParseAddrPort("0.0.0.0:81"), Verdict: VerdictCapture, Socket: 1},
	}})
	for i := range 400 {
		to, want := "10.9.0.2:80", "a 10.9.0.2:80"
		if i%2 == 1 {
			to, want = "10.9.0.3:81", "b 10.9.0.3:81"
		}
		if got := word(w.dial(w.client, "", to)); got != want {
			t.Fatalf("connection %d: answered by %q, want %q", i, got, want)
		}
	}
}

// Sockets that a table has no more leave their places; those that a failed swap
// put in do too.
func TestPlacesOfSocketsAreGivenBack(t *testing.T) {
	w := newInboundWorld(t)
	used := func() (n int) {
		for _, c := range w.in.places {
			if c != 0 {
				n++
			}
		}
		var kernel int
		for p := range w.in.places {
			var cookie uint64
			if w.in.objects.Listeners.Lookup(uint32(p), &cookie) == nil {
				kernel++
			}
		}
		if kernel != n {
			t.Errorf("%d sockets in the map, %d noted", kernel, n)
		}
		return n
	}
	var s []ListeningSocket
	for port := range 2 * len(w.in.places) {
		one, _ := w.listen("x", "tcp4", fmt.Sprintf("127.0.0.1:%d", 20000+port), 1)
		s = append(s, one...)
		w.swap(all(one[0], one[0]))
		if n := used(); n != 1 {
			t.Fatalf("%d places after swap %d", n, port)
		}
	}
	if err := w.in.Swap(&InboundTable{Sockets: s}); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("too many sockets: %v", err)
	}
	r, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer wr.Close()
	bad := ListeningSocket{FD: int(r.Fd()), Cookie: 1}
	if err := w.in.Swap(all(s[0], bad)); err == nil || !strings.Contains(err.Error(), "put listening socket") {
		t.Errorf("a pipe: %v", err)
	}
	if n := used(); n != 1 {
		t.Errorf("%d places after swaps that failed", n)
	}
	if got := word(w.dial(w.client, "", "10.9.0.2:80")); got != "x 10.9.0.2:80" {
		t.Errorf("after swaps that failed: answered by %q", got)
	}
}

func TestInboundCounterNames(t *testing.T) {
	seen := map[string]bool{}
	for i, name := range inboundNames {
		if name == "" || seen[name] {
			t.Errorf("outcome %d is called %q", i, name)
		}
		seen[name] = true
	}
	if len(inboundNames) != int(inboundOutcomeOUTCOME_MAX) {
		t.Errorf("%d names of %d outcomes", len(inboundNames), inboundOutcomeOUTCOME_MAX)
	}
}
