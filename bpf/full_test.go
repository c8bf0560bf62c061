package bpf

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/sluice-proxy/sluice/test/netns"
)

func TestATableThatDoesNotFitLeavesTheOldOne(t *testing.T) {
	w := newPinnedWorld(t, ExitOpen)
	w.kill()
	w.options.MaxRoutes = 5
	w.start("taken over")
	w.swap(w.everywhere()) // four entries
	w.each(answered)
	table := w.everywhere()
	table.Generation = 2
	for i := range 2 {
		table.Routes = append(table.Routes, Route{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(i)}), 32), Verdict: VerdictPass})
	}
	if err := w.capture.Swap(table); !errors.Is(err, ErrTooManyRoutes) {
		t.Errorf("got %v", err)
	}
	w.each(answered)
	if s, err := w.read(); err != nil || s.Generation != 1 || s.Entries != 4 {
		t.Errorf("status %+v, %v", s, err)
	}
	table.Routes = table.Routes[:3]
	w.swap(table)
	if s, err := w.read(); err != nil || s.Generation != 2 || s.Entries != 5 {
		t.Errorf("status %+v, %v", s, err)
	}
}

// Connections that nobody ever asked about make room for new ones.
func TestForgottenFlowsMakeRoom(t *testing.T) {
	w := newWorld(t, false, 0)
	table := w.everything()
	table.Exclude = nil
	w.swap(table)
	most := w.capture.objects.Flows.MaxEntries()
	keys, values := make([]routeFlow, 2*most), make([]routeOrigin, 2*most)
	for i := range keys {
		keys[i].Netns = uint64(i)
	}
	if _, err := w.capture.objects.Flows.BatchUpdate(keys, values, nil); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if got, want := w.client.dial("tcp4", "127.0.0.9:1"), "peer 127.0.0.9:1 said 127.0.0.9:1 "; len(got) < len(want) || got[:len(want)] != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	if n := w.capture.Flows(); n > int(most) {
		t.Errorf("%d flows of at most %d", n, most)
	}
	w.ended(map[string]uint64{"connect.captured": 100, "syn.noted": 100, "getpeername.answered": 100, "getsockopt.answered": 200, "getsockopt.short_buffer": 100})
}

// Storage of sockets counts as their option memory, of which a namespace may
// give little.
func TestNoMemoryForWhatWasMeant(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	for _, tt := range []struct {
		refuse            bool
		want, count, then string
	}{
		{false, "connect: connection refused", "connect.no_memory", "syn.not_captured"},
		{true, "connect: operation not permitted", "connect.refused_no_memory", ""},
	} {
		t.Run(tt.count, func(t *testing.T) {
			ns, err := netns.New()
			if err != nil {
				t.Fatal(err)
			}
			defer ns.Close()
			w := &world{t: t, dir: cgroup(t)}
			// All of it on the one thread: programs end with the thread that started them.
			if err := ns.Do(func() error { return w.withoutMemory(tt.refuse, tt.want) }); err != nil {
				t.Fatal(err)
			}
			want := map[string]uint64{tt.count: 1}
			if tt.then != "" {
				want[tt.then] = 1
			}
			w.ended(want)
			if err := w.capture.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func (w *world) withoutMemory(refuse bool, want string) (err error) {
	if err := os.WriteFile("/proc/sys/net/core/optmem_max", []byte("64"), 0o644); err != nil {
		return err
	}
	w.capture, err = LoadCapture(CaptureOptions{Cgroup: w.dir, RefuseWhenFull: refuse})
	if err != nil {
		return err
	}
	acceptor := startProgram(w.t, "acceptor", w.dir, 0)
	for range 2 {
		w.targets = append(w.targets, netip.MustParseAddrPort(acceptor.line()))
	}
	client := startProgram(w.t, "client", w.dir, 0)
	table := w.everything()
	table.Exclude = nil
	if err := w.capture.Swap(table); err != nil {
		return err
	}
	if got := client.dial("tcp4", "127.0.0.9:1"); got != want {
		w.t.Errorf("got %q, want %q", got, want)
	}
	return nil
}
