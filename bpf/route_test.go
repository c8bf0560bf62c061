package bpf

import (
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

var (
	all4 = netip.MustParsePrefix("0.0.0.0/0")
	all6 = netip.MustParsePrefix("::/0")
)

// world is a captured program, and another that accepts.
type world struct {
	t       *testing.T
	dir     string
	capture *Capture
	client  *program
	targets []netip.AddrPort // of the acceptor, IPv4 and IPv6
	counted map[string]uint64
}

func newWorld(t *testing.T, closed bool, flags uintptr) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	w := &world{t: t, dir: cgroup(t)}
	accept := cgroup(t)
	exit, pin := ExitOpen, ""
	if closed {
		exit, pin = ExitClosed, filepath.Join(bpffs(t), "pins")
	}
	var err error
	w.capture, err = LoadCapture(CaptureOptions{Cgroup: w.dir, AcceptCgroup: accept, OnExit: exit, Pin: pin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.capture.Close(); err != nil {
			t.Error(err)
		}
	})
	acceptor := startProgram(t, "acceptor", accept, 0)
	for range 2 {
		w.targets = append(w.targets, netip.MustParseAddrPort(acceptor.line()))
	}
	w.client = startProgram(t, "client", w.dir, flags)
	return w
}

// everything captures all but loopback.
func (w *world) everything() *RouteTable {
	return &RouteTable{
		Generation: 1, Targets: w.targets,
		Exclude: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		Routes: []Route{
			{Prefix: all4, Verdict: VerdictCapture, Target: 0},
			{Prefix: all6, Verdict: VerdictCapture, Target: 1},
		},
	}
}

func (w *world) swap(t *RouteTable) {
	w.t.Helper()
	if err := w.capture.Swap(t); err != nil {
		w.t.Fatal(err)
	}
}

// ended checks what was counted since it was last called.
func (w *world) ended(want map[string]uint64) {
	w.t.Helper()
	now, err := w.capture.Counters()
	if err != nil {
		w.t.Fatal(err)
	}
	got := map[string]uint64{}
	for name, n := range now {
		if d := n - w.counted[name]; d != 0 {
			got[name] = d
		}
	}
	w.counted = now
	if !maps.Equal(got, want) {
		w.t.Errorf("counted %v, want %v", got, want)
	}
}

func TestCapturedProgramsSeeWhatTheyMeantAndSoDoesTheAcceptor(t *testing.T) {
	w := newWorld(t, false, 0)
	w.swap(w.everything())
	const each = 1000
	for _, tt := range []struct{ how, to, peer, said string }{
		{"tcp4", "192.0.2.1:5432", "192.0.2.1:5432", "192.0.2.1:5432"},
		{"tcp6", "[2001:db8::1]:443", "[2001:db8::1]:443", "[2001:db8::1]:443"},
		{"mapped", "192.0.2.2:6379", "[::ffff:192.0.2.2]:6379", "192.0.2.2:6379"},
	} {
		t.Run(tt.how, func(t *testing.T) {
			for range each {
				// A buffer that is too short gets the kernel's own answer, which is
				// an error where conntrack knows nothing.
				got := w.client.dial(tt.how, tt.to)
				want := "peer " + tt.peer + " said " + tt.said + " " + tt.said + " "
				if !strings.HasPrefix(got, want) || strings.HasSuffix(got, tt.said) {
					t.Fatalf("got %q, want %q", got, want)
				}
			}
			w.ended(map[string]uint64{"connect.captured": each, "syn.noted": each, "getpeername.answered": each, "getsockopt.answered": 2 * each, "getsockopt.short_buffer": each})
		})
	}
	if n := w.capture.Flows(); n != 0 {
		t.Errorf("%d flows are left of connections that were asked about", n)
	}
}

func TestConnectionsThatAreNotCaptured(t *testing.T) {
	w := newWorld(t, false, 0)
	direct := w.targets[0].String()
	passed := "peer " + direct + " said "
	check := func(how, to, want string, counted map[string]uint64) {
		t.Helper()
		if got := w.client.dial(how, to); !strings.HasPrefix(got, want) {
			t.Errorf("%s to %s: got %q, want %q", how, to, got, want)
		}
		w.ended(counted)
	}
	// what follows a connect that passed and succeeded
	and := func(name string) map[string]uint64 {
		return map[string]uint64{name: 1, "syn.not_captured": 1, "getpeername.not_captured": 1, "getsockopt.not_captured": 3}
	}
	check("tcp4", direct, passed, and("connect.no_table"))
	w.swap(w.everything())
	check("tcp4", direct, passed, and("connect.excluded"))
	check("udp4", "127.0.0.1:53", "peer 127.0.0.1:53", map[string]uint64{"connect.not_tcp": 1, "getpeername.not_captured": 1})

	table := w.everything()
	table.Exclude = nil
	w.swap(table)
	check("device", direct, passed, and("connect.bound_to_device"))

	table.Routes = []Route{{Prefix: all4, Verdict: VerdictPass}}
	w.swap(table)
	check("tcp4", direct, passed, and("connect.passed"))
	table.Routes = nil
	w.swap(table)
	check("tcp4", direct, passed, and("connect.no_route"))
	// An IPv4 connection finds ::/0, whose target it cannot reach.
	table.Routes = []Route{{Prefix: all6, Verdict: VerdictCapture, Target: 1}}
	w.swap(table)
	check("tcp4", direct, passed, and("connect.no_target"))
	table.Routes = []Route{{Prefix: all4, Verdict: VerdictCapture, Target: 7}}
	w.swap(table)
	check("tcp4", direct, passed, and("connect.no_target"))
}

func TestTheLongestPrefixOfThePortDecides(t *testing.T) {
	w := newWorld(t, false, 0)
	table := w.everything()
	table.Routes = append(table.Routes,
		Route{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Port: 80, Verdict: VerdictPass},
		Route{Prefix: netip.MustParsePrefix("192.0.2.7/32"), Port: 80, Verdict: VerdictCapture, Listener: 7},
		Route{Prefix: netip.MustParsePrefix("192.0.2.0/25"), Verdict: VerdictCapture, Listener: 25})
	w.swap(table)
	for to, captured := range map[string]bool{
		"192.0.2.7:80": true, "192.0.2.7:81": true, "198.51.100.1:80": true,
		"192.0.2.1:80": false, // the port's own route comes before any port's
	} {
		now := w.capture
		before, _ := now.Counters()
		w.client.dial("tcp4", to)
		after, _ := now.Counters()
		if got := after["connect.captured"] > before["connect.captured"]; got != captured {
			t.Errorf("%s: captured %v, want %v", to, got, captured)
		}
	}
}

func TestAnotherNamespaceIsLeftAlone(t *testing.T) {
	w := newWorld(t, false, syscall.CLONE_NEWNET)
	w.swap(w.everything())
	if got := w.client.dial("tcp4", "192.0.2.1:80"); got != "connect: network is unreachable" {
		t.Errorf("got %q", got)
	}
	w.ended(map[string]uint64{"connect.other_netns": 1})
}

func TestOwnConnectionsPass(t *testing.T) {
	w := newWorld(t, false, 0)
	w.swap(w.everything())
	enter(t, w.dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	now, err := w.capture.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if now["connect.self"] == 0 || now["connect.captured"]+now["connect.excluded"] != 0 {
		t.Errorf("counted %v", now)
	}
}

func TestWhenNobodyListens(t *testing.T) {
	for _, tt := range []struct {
		name   string
		closed bool
		want   string
		count  string
	}{
		{"open passes", false, "connect: connection refused", "connect.passed_listener_gone"},
		{"closed refuses", true, "connect: operation not permitted", "connect.refused_listener_gone"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.closed, 0)
			table := w.everything()
			table.Exclude = nil
			gone := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 1)
			table.Targets = []netip.AddrPort{gone, gone}
			w.swap(table)
			if got := w.client.dial("tcp4", "127.0.0.2:1"); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			want := map[string]uint64{tt.count: 1}
			if !tt.closed {
				want["syn.not_captured"] = 1
			}
			w.ended(want)
		})
	}
}

// A table that is changed in place shows parts of two generations. The hook sees
// it, and the connection passes.
func TestMixedGenerationsAreSeen(t *testing.T) {
	w := newWorld(t, false, 0)
	table := w.everything()
	table.Exclude = nil
	w.swap(table)
	Plant{}.HalfSwap(t, w.capture, table)
	w.client.dial("tcp4", w.targets[0].String())
	now, err := w.capture.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if now["connect.mixed_generations"] != 1 || now["connect.captured"] != 0 {
		t.Errorf("counted %v", now)
	}
}

func TestOriginAnswersOnce(t *testing.T) {
	w := newWorld(t, false, 0)
	for _, tt := range []struct {
		how, at, to string
		want        netip.AddrPort
	}{
		{"tcp4", "127.0.0.1:0", "192.0.2.1:80", netip.MustParseAddrPort("192.0.2.1:80")},
		{"mapped", "127.0.0.1:0", "192.0.2.1:80", netip.MustParseAddrPort("192.0.2.1:80")},
		{"tcp6", "[::1]:0", "[2001:db8::5]:80", netip.MustParseAddrPort("[2001:db8::5]:80")},
	} {
		t.Run(tt.how, func(t *testing.T) {
			l, err := net.Listen("tcp", tt.at)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			at := l.Addr().(*net.TCPAddr).AddrPort()
			table := w.everything()
			table.Generation = 9
			table.Targets = []netip.AddrPort{at, at}
			for i := range table.Routes {
				r := &table.Routes[i]
				r.Listener, r.Cluster, r.Policy = 3, 4, 5
			}
			w.swap(table)
			done := make(chan string)
			go func() { done <- w.client.dial(tt.how, tt.to) }()
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			remote, local := c.RemoteAddr().(*net.TCPAddr).AddrPort(), c.LocalAddr().(*net.TCPAddr).AddrPort()
			got, ok, err := w.capture.Origin(remote, local)
			target := uint32(0)
			if tt.how == "tcp6" {
				target = 1
			}
			if want := (Origin{Addr: tt.want, Generation: 9, Listener: 3, Cluster: 4, Policy: 5, Target: target}); err != nil || !ok || got != want {
				t.Errorf("got %v, %v, %v, want %v", got, ok, err, want)
			}
			if got, ok, err := w.capture.Origin(remote, local); ok || err != nil {
				t.Errorf("a second time: %v, %v", got, err)
			}
			c.Close()
			<-done
		})
	}
}

func TestCaptureCounterNames(t *testing.T) {
	seen := map[string]bool{}
	for i, name := range outcomeNames {
		if name == "" || seen[name] {
			t.Errorf("outcome %d is called %q", i, name)
		}
		seen[name] = true
	}
	if len(outcomeNames) != int(routeOutcomeOUTCOME_MAX) {
		t.Errorf("%d names of %d outcomes", len(outcomeNames), routeOutcomeOUTCOME_MAX)
	}
}

func TestCgroupIsFoundWhereverItIsMounted(t *testing.T) {
	for _, tt := range []struct{ name, mountinfo, want string }{
		{"unified", "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw", "/sys/fs/cgroup"},
		{"hybrid", "25 20 0:20 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n26 20 0:21 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw", "/sys/fs/cgroup/unified"},
		{"a blank in the path", "26 20 0:21 / /mnt/c\\040g rw - cgroup2 none rw", "/mnt/c g"},
		{"a device of that name", "26 20 0:21 / /mnt rw - ext4 cgroup2 rw", ""},
		{"none", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := cgroup2Mount(strings.NewReader(tt.mountinfo))
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestABadCgroupIsNamed(t *testing.T) {
	_, err := LoadCapture(CaptureOptions{Cgroup: "/no/such/group"})
	if err == nil || !strings.Contains(err.Error(), `find cgroup "/no/such/group"`) {
		t.Errorf("got %v", err)
	}
}
