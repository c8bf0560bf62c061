package bpf

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// What somebody else put there is refused, and left as it is.
func TestForeignPinsAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		plant      func(dir string) error
	}{
		{"directory that others may read", "mode 0755", func(dir string) error { return os.Chmod(dir, 0o755) }},
		{"directory of another user", "belongs to uid 65534", func(dir string) error { return os.Chown(dir, 65534, -1) }},
		{"directory of all parts that others may read", "mode 0711", func(dir string) error { return os.Chmod(filepath.Dir(dir), 0o711) }},
		{"directory of all parts of another user", "belongs to uid 65534", func(dir string) error { return os.Chown(filepath.Dir(dir), 65534, -1) }},
		{"unknown part", "none of ours", func(dir string) error { return os.Mkdir(filepath.Join(filepath.Dir(dir), "other"), 0o700) }},
		{"set of another user", "belongs to uid 65534", func(dir string) error { return os.Chown(pinnedSet(dir), 65534, -1) }},
		{"set that others may enter", "mode 0701", func(dir string) error { return os.Chmod(pinnedSet(dir), 0o701) }},
		{"pin that others may open", "mode 0644", func(dir string) error { return os.Chmod(pinnedMap(pinnedSet(dir), routeMapSetting), 0o644) }},
		{"pin of another user", "belongs to uid 65534", func(dir string) error { return os.Chown(pinnedLink(pinnedSet(dir), hookConnect4), 65534, -1) }},
		{"unknown directory", "none of ours", func(dir string) error { return os.Mkdir(filepath.Join(dir, "other"), 0o700) }},
		{"unknown pin", "none of ours", func(dir string) error {
			return pinArray(filepath.Join(pinnedSet(dir), "other"), "other", 1)
		}},
		{"symlink", "no directory", func(dir string) error {
			root := filepath.Dir(dir)
			return errors.Join(os.Rename(root, root+"-moved"), os.Symlink(root+"-moved", root))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newPinnedWorld(t, ExitClosed)
			w.kill()
			if err := tt.plant(w.part()); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadCapture(w.options); !errors.Is(err, ErrForeignPins) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("start: %v, want %q", err, tt.want)
			}
			if err := ClearPins(w.options.Pin); !errors.Is(err, ErrForeignPins) {
				t.Errorf("clear: %v", err)
			}
			w.each(refused)
			cleanForeign(t, w.part())
		})
	}
	t.Run("no bpffs", func(t *testing.T) {
		if _, err := openPins(filepath.Join(t.TempDir(), "pins"), partOutbound, true); !errors.Is(err, ErrNoBPFFS) || !strings.Contains(err.Error(), "mount -t bpf") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no pins", func(t *testing.T) {
		if err := ClearPins(filepath.Join(bpffs(t), "pins")); !errors.Is(err, ErrNoPins) {
			t.Errorf("got %v", err)
		}
	})
}

// cleanForeign makes a planted directory one that can be cleared.
func cleanForeign(t *testing.T, dir string) {
	t.Helper()
	root := filepath.Dir(dir)
	if info, err := os.Lstat(root); err == nil && info.Mode()&os.ModeSymlink != 0 {
		os.Remove(root)
		os.Rename(root+"-moved", root)
	}
	os.Remove(filepath.Join(dir, "other"))
	os.Remove(filepath.Join(pinnedSet(dir), "other"))
	os.Remove(filepath.Join(root, "other"))
	filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		os.Chown(path, os.Geteuid(), -1)
		if mode := os.FileMode(0o600); e.IsDir() {
			return os.Chmod(path, mode|0o100)
		} else {
			return os.Chmod(path, mode)
		}
	})
}

// What does not fit is replaced, and what was captured before is again.
func TestPinsThatDoNotFitAreReplaced(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		plant      func(t *testing.T, w *pinnedWorld) error
	}{
		{"another program", "maps taken over, hooks replaced: hook connect4: program tag", func(t *testing.T, w *pinnedWorld) error {
			return plantProgram(w.part(), true)
		}},
		{"another program that is pinned nowhere", "maps taken over, hooks replaced: hook connect4: it does not run the program that is pinned", func(t *testing.T, w *pinnedWorld) error {
			return plantProgram(w.part(), false)
		}},
		{"the same program with other maps", "maps taken over, hooks replaced: hook connect6: its program has other maps", func(t *testing.T, w *pinnedWorld) error {
			return plantOtherMaps(w.part())
		}},
		{"a map of another type", "replaced: map outcomes: Type: Array changed", func(t *testing.T, w *pinnedWorld) error {
			return plantArray(w.part(), routeMapOutcomes, "outcomes", 7)
		}},
		{"a map of another name", `replaced: map setting: it is called "other"`, func(t *testing.T, w *pinnedWorld) error {
			return plantSettings(w.part(), "other")
		}},
		{"another layout", "replaced: layout 99, not 1", func(t *testing.T, w *pinnedWorld) error {
			m, err := ebpf.LoadPinnedMap(pinnedMap(pinnedSet(w.part()), routeMapSetting), nil)
			if err != nil {
				return err
			}
			defer m.Close()
			var s routeSettings
			err = m.Lookup(uint32(0), &s)
			s.Layout = 99
			return errors.Join(err, m.Put(uint32(0), s))
		}},
		{"a link in a map's place", "replaced: map flows:", func(t *testing.T, w *pinnedWorld) error {
			set := pinnedSet(w.part())
			return errors.Join(os.Remove(pinnedMap(set, routeMapFlows)), os.Rename(pinnedLink(set, hookSockops), pinnedMap(set, routeMapFlows)))
		}},
		{"a map that is missing", "replaced: map life:", func(t *testing.T, w *pinnedWorld) error {
			return os.Remove(pinnedMap(pinnedSet(w.part()), routeMapLife))
		}},
		{"a hook that is missing", "maps taken over", func(t *testing.T, w *pinnedWorld) error {
			return os.Remove(pinnedLink(pinnedSet(w.part()), hookConnect4))
		}},
		{"another cgroup", "maps taken over, hooks replaced: hook sockops: attached elsewhere", func(t *testing.T, w *pinnedWorld) error {
			w.dir = cgroup(t)
			w.options.Cgroup = w.dir
			w.client = startProgram(t, "client", w.dir, 0)
			return nil
		}},
		{"a set that was being built", "taken over", func(t *testing.T, w *pinnedWorld) error {
			next := strings.Replace(pinnedBuild(w.part()), "*", "1", 1)
			return errors.Join(os.Mkdir(next, 0o700), pinArray(pinnedMap(next, "outcomes"), "outcomes", 1))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newPinnedWorld(t, ExitClosed)
			w.kill()
			if err := tt.plant(t, w); err != nil {
				t.Fatal(err)
			}
			// What a process that is to refuse begins with: everything goes to nobody.
			first := w.everywhere()
			first.Targets = []netip.AddrPort{netip.AddrPortFrom(any4, 0), netip.AddrPortFrom(any6, 0)}
			w.options.First = first
			gap := make(chan string, 1)
			if strings.Contains(tt.name, "hook that is missing") || tt.name == "another cgroup" {
				w.start(tt.want) // nothing was there that could refuse
			} else {
				go w.dialUntilNotRefused(gap)
				w.start(tt.want)
				w.each(refused)
				w.done.Store(true)
				if got := <-gap; got != "" {
					t.Errorf("while the pins were replaced a connection got %q", got)
				}
			}
			w.swap(w.everywhere())
			w.each(answered)
			if ids := w.linkIDs(); len(ids) != 6 {
				t.Errorf("hooks %v", ids)
			}
			entries, err := os.ReadDir(w.part())
			if err != nil || len(entries) != 1 {
				t.Errorf("pins %v, %v", entries, err)
			}
			w.kill()
			w.each(refused)
			w.start("taken over")
		})
	}
}

// dialUntilNotRefused connects until it is told to end, or a connection is not
// refused: that is what it says.
func (w *pinnedWorld) dialUntilNotRefused(gap chan<- string) {
	client := w.second
	for !w.done.Load() {
		if got := client.dial("tcp4", "127.0.0.9:1"); got != refused {
			gap <- got
			return
		}
	}
	gap <- ""
}

func pinArray(path, name string, size uint32) error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: name, Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: size})
	if err != nil {
		return err
	}
	defer m.Close()
	return m.Pin(path)
}

func plantArray(dir, in, name string, size uint32) error {
	path := pinnedMap(pinnedSet(dir), in)
	return errors.Join(os.Remove(path), pinArray(path, name, size))
}

// plantSettings is a map that fits but for its name.
func plantSettings(dir, name string) error {
	path := pinnedMap(pinnedSet(dir), routeMapSetting)
	spec, err := loadRoute()
	if err != nil {
		return err
	}
	s := spec.Maps[routeMapSetting].Copy()
	s.Name = name
	m, err := ebpf.NewMap(s)
	if err != nil {
		return err
	}
	defer m.Close()
	return errors.Join(m.Put(uint32(0), routeSettings{Layout: pinLayout}), os.Remove(path), m.Pin(path))
}

// plantProgram has a hook refuse everything; honest pins the program as well.
func plantProgram(dir string, honest bool) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "route_connect4", Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return err
	}
	defer p.Close()
	return plantHook(dir, hookConnect4, p, honest)
}

// plantOtherMaps has a hook run our own program on maps that are not those.
func plantOtherMaps(dir string) error {
	var o routeObjects
	if err := loadRouteObjects(&o, nil); err != nil {
		return err
	}
	defer o.Close()
	return plantHook(dir, hookConnect6, o.RouteConnect6, true)
}

func plantHook(dir, name string, p *ebpf.Program, honest bool) error {
	l, err := link.LoadPinnedLink(pinnedLink(pinnedSet(dir), name), nil)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Update(p); err != nil || !honest {
		return err
	}
	path := pinnedProgram(pinnedSet(dir), name)
	return errors.Join(os.Remove(path), p.Pin(path))
}
