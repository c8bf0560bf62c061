package route

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/bpf"
)

// A table without room for each listener decides alike where ports are captured
// whatever the address; where listeners say what is captured it takes all, or
// nothing.
func TestACoarseTable(t *testing.T) {
	ls := []Listener{listener("all", "0.0.0.0:15001", catches), listener("db", "192.0.2.1:5432", handed("db"))}
	for _, tt := range []struct {
		ports string
		full  WhenFull
		want  map[string]string
	}{
		{"all", FullPass, map[string]string{"192.0.2.1:5432": "capture", "192.0.2.1:99": "capture", "192.0.2.9:7": "pass", "127.0.0.1:80": "pass"}},
		{"5432,80", FullPass, map[string]string{"192.0.2.1:5432": "capture", "192.0.2.1:99": "pass", "192.0.2.9:80": "capture"}},
		{"listeners", FullPass, map[string]string{"192.0.2.1:5432": "pass", "192.0.2.1:99": "pass"}},
		{"listeners", FullCapture, map[string]string{"192.0.2.1:5432": "capture", "192.0.2.1:99": "capture", "192.0.2.9:7": "pass", "127.0.0.1:80": "pass"}},
	} {
		p := policy(t, tt.ports, "7", "")
		p.WhenFull = tt.full
		w := NewWanted(p)
		for i := range ls {
			w.Set(&ls[i])
		}
		coarse := w.Coarse(1)
		if coarse.Full == "" || len(coarse.kernel.Routes) > 6 {
			t.Errorf("%s: full %q, routes %v", tt.ports, coarse.Full, coarse.kernel.Routes)
		}
		for to, want := range tt.want {
			if got := coarse.Find(netip.MustParseAddrPort(to)); got.Verdict != want {
				t.Errorf("%s, full %v: %s: %s (%s), want %s", tt.ports, tt.full, to, got.Verdict, got.Reason, want)
			}
		}
	}
}

func TestWhatNobodyCanTakeIsRefusedIfThePolicySaysSo(t *testing.T) {
	p := policy(t, "listeners", "", "")
	p.RefuseIdle = true
	w := NewWanted(p)
	w.Build(1)
	db := listener("db", "192.0.2.1:5432", handed("db"))
	w.Set(&db)
	if !w.changed {
		t.Error("a listener that is to be refused is no change")
	}
	table := w.Build(2)
	for to, want := range map[string]string{"192.0.2.1:5432": "refuse", "192.0.2.1:80": "pass", "127.0.0.1:5432": "pass"} {
		if got := table.Find(netip.MustParseAddrPort(to)); got.Verdict != want {
			t.Errorf("%s: %s (%s), want %s", to, got.Verdict, got.Reason, want)
		}
	}
	if s := table.routes(); len(s) != 1 || s[0].Verdict != "refuse" || s[0].Target.IsValid() {
		t.Errorf("routes %+v", s)
	}
	all := listener("all", "0.0.0.0:15001", catches)
	w.Set(&all)
	if got := w.Build(3).Find(netip.MustParseAddrPort("192.0.2.1:5432")); got.Verdict != "capture" {
		t.Errorf("with who takes it: %+v", got)
	}
}

func TestInboundThatNobodyCanTakeIsRefusedIfThePolicySaysSo(t *testing.T) {
	p := inboundPolicy(t, "80,443", "443")
	p.RefuseIdle = true
	own := listener("own", "10.1.0.2:9000", nil)
	table := BuildInbound(1, []*Listener{&own}, nil, p)
	for to, want := range map[string]string{"10.1.0.2:80": "refuse", "[2001:db8::2]:80": "refuse", "10.1.0.2:443": "pass", "10.1.0.2:22": "pass", "10.1.0.2:9000": "pass"} {
		if got := table.Find(netip.MustParseAddrPort(to)); got.Verdict != want || got.Reason != NoInboundListener {
			t.Errorf("%s: %s (%s), want %s", to, got.Verdict, got.Reason, want)
		}
	}
}

// Under closed there is no moment in which the hooks are there and the table is
// not.
func TestClosedRefusesBeforeTheFirstTable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	root, err := bpf.Cgroup("/")
	if err != nil {
		t.Skipf("needs cgroup v2: %v", err)
	}
	dir, err := os.MkdirTemp(root, "sluice-route-")
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Rmdir(dir)
	fs := t.TempDir()
	if err := unix.Mount("bpf", fs, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(fs, 0)
	for exit, want := range map[bpf.OnExit]int{bpf.ExitKeep: len(local), bpf.ExitClosed: len(local) + 4} {
		o := Options{Cgroup: dir, OnExit: exit, Pin: filepath.Join(fs, exit.String()), Policy: *policy(t, "all", "", "")}
		c, err := Start(o)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := bpf.ReadPins(o.Pin); err != nil || len(s) != 1 || s[0].Entries != want {
			t.Errorf("%v: pins %+v, %v, want %d entries", exit, s, err, want)
		}
		wanted := map[bpf.OnExit]string{bpf.ExitKeep: "pass", bpf.ExitClosed: "refuse"}[exit]
		if d := c.Find(netip.MustParseAddrPort("192.0.2.1:80")); d.Verdict != wanted {
			t.Errorf("%v: %+v", exit, d)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := bpf.ClearPins(o.Pin); err != nil {
			t.Error(err)
		}
	}
}
