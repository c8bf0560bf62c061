package bpf

import (
	"errors"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// bpffs is one that goes with the test.
func bpffs(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a bpffs")
	}
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	return dir
}

// pinnedWorld is a captured client, and a process that pins; others may follow it.
type pinnedWorld struct {
	*world
	options CaptureOptions
	second  *program // like client
	done    atomic.Bool
}

func newPinnedWorld(t *testing.T, exit OnExit) *pinnedWorld {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	w := &pinnedWorld{world: &world{t: t, dir: cgroup(t)}}
	accept := cgroup(t)
	w.options = CaptureOptions{Cgroup: w.dir, AcceptCgroup: accept, OnExit: exit, Pin: filepath.Join(bpffs(t), "pins")}
	acceptor := startProgram(t, "acceptor", accept, 0)
	for range 2 {
		w.targets = append(w.targets, netip.MustParseAddrPort(acceptor.line()))
	}
	w.client, w.second = startProgram(t, "client", w.dir, 0), startProgram(t, "client", w.dir, 0)
	w.start("no pins were there")
	w.swap(w.everywhere())
	t.Cleanup(func() {
		if w.capture != nil {
			if err := w.capture.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := ClearPins(w.options.Pin); err != nil && !errors.Is(err, ErrNoPins) {
			t.Error(err)
		}
	})
	return w
}

// everywhere captures loopback too, where nothing has to be waited for.
func (w *pinnedWorld) everywhere() *RouteTable {
	table := w.everything()
	table.Exclude = nil
	return table
}

// start is a process that begins; taken is what it says of the pins it finds.
func (w *pinnedWorld) start(taken string) {
	w.t.Helper()
	c, err := LoadCapture(w.options)
	if err != nil {
		w.t.Fatal(err)
	}
	if got := c.Taken(); !strings.HasPrefix(got, taken) {
		w.t.Errorf("pins: %q, want %q", got, taken)
	}
	w.capture = c
}

// kill does what the kernel does for a process that is killed: its file
// descriptors are closed.
func (w *pinnedWorld) kill() {
	w.t.Helper()
	if err := w.capture.abandon(); err != nil {
		w.t.Fatal(err)
	}
	w.capture = nil
}

// each connects by every family and checks what the program got.
func (w *pinnedWorld) each(want string) {
	w.t.Helper()
	for how, to := range map[string]string{"tcp4": "127.0.0.9:1", "tcp6": "[::1]:1", "mapped": "127.0.0.9:1"} {
		if got := w.client.dial(how, to); !strings.HasPrefix(got, want) {
			w.t.Errorf("%s: got %q, want %q", how, got, want)
		}
	}
}

const (
	refused  = "connect: operation not permitted"
	passed   = "connect: connection refused" // by the port itself
	answered = "peer "
)

// part is where its pins are.
func (w *pinnedWorld) part() string { return pinnedPart(w.options.Pin, partOutbound) }

func (w *pinnedWorld) read() (PinStatus, error) {
	s, err := ReadPins(w.options.Pin)
	if err != nil {
		return PinStatus{}, err
	}
	return s[0], nil
}

// linkIDs are those of the hooks, by name.
func (w *pinnedWorld) linkIDs() map[string]uint32 {
	w.t.Helper()
	s, err := w.read()
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]uint32{}
	for _, h := range s.Hooks {
		out[h.Name] = h.LinkID
	}
	return out
}

// Hooks are captured, dead, taken over, serving: at each moment what opens is
// captured or treated as the policy says, though somebody listens all the time.
func TestPinnedHooksFollowThePolicyUntilTheyAreTakenOver(t *testing.T) {
	for exit, want := range map[OnExit]string{ExitOpen: passed, ExitClosed: refused, ExitKeep: passed} {
		t.Run(exit.String(), func(t *testing.T) {
			w := newPinnedWorld(t, exit)
			w.each(answered)
			ids := w.linkIDs()
			if len(ids) != 6 {
				t.Errorf("links %v", ids)
			}
			w.kill()
			w.each(want)
			if s, err := w.read(); err != nil || s.Alive || s.OnExit != exit || s.Entries != 4 || s.Outcomes["connect.captured"] != 3 {
				t.Errorf("status %+v, %v", s, err)
			}
			w.start("taken over")
			if got := w.linkIDs(); !maps.Equal(got, ids) {
				t.Errorf("links %v, were %v", got, ids)
			}
			w.each(want) // the table is the one before's
			w.swap(w.everywhere())
			w.each(answered)
			if s, err := w.read(); err != nil || !s.Alive || !s.Serving || s.Hooks[0].At == "" {
				t.Errorf("status %+v, %v", s, err)
			}
		})
	}
}

func TestWhatStaysOfAnOrderlyStop(t *testing.T) {
	for _, tt := range []struct {
		exit OnExit
		want string
		stay bool
	}{{ExitOpen, passed, false}, {ExitClosed, refused, true}, {ExitKeep, passed, true}} {
		t.Run(tt.exit.String(), func(t *testing.T) {
			w := newPinnedWorld(t, tt.exit)
			ours := idsOf(t, w.capture)
			if err := w.capture.Close(); err != nil {
				t.Error(err)
			}
			w.capture = nil
			w.each(tt.want)
			if tt.stay {
				if left := ours.left(); len(left) != len(ours) {
					t.Errorf("%v are left of %v", left, ours)
				}
				if err := ClearPins(w.options.Pin); err != nil {
					t.Fatal(err)
				}
				w.each(passed)
			}
			ours.gone(t)
			if _, err := os.Lstat(w.options.Pin); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the directory of pins is left: %v", err)
			}
		})
	}
}

// A process with the number of the dead one is not taken for it.
func TestAStaleProcessIDMatchesNobody(t *testing.T) {
	w := newPinnedWorld(t, ExitClosed)
	enter(t, w.dir)
	dial := func() error {
		c, err := net.Dial("tcp", "127.0.0.1:1")
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := dial(); !errors.Is(err, unix.ECONNREFUSED) { // by the port itself
		t.Errorf("the proxy's own connection: %v", err)
	}
	w.kill()
	if err := dial(); !errors.Is(err, unix.EPERM) {
		t.Errorf("a connection of another process with its number: %v", err)
	}
	w.start("taken over")
	if err := dial(); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the next proxy's own connection: %v", err)
	}
}

func TestPinsAreForOneProcess(t *testing.T) {
	w := newPinnedWorld(t, ExitOpen)
	if _, err := LoadCapture(w.options); !errors.Is(err, ErrPinsInUse) {
		t.Errorf("a second process: %v", err)
	}
	if err := ClearPins(w.options.Pin); !errors.Is(err, ErrPinsInUse) {
		t.Errorf("clear: %v", err)
	}
	w.each(answered)
}
