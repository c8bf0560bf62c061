package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// HookStatus is one hook in the kernel.
type HookStatus struct {
	Name   string
	LinkID uint32
	// Cgroup is the directory that it is attached to; empty if that is gone or not
	// to be found.
	Cgroup   string
	CgroupID uint64
}

// PinStatus is what is pinned.
type PinStatus struct {
	Dir    string
	OnExit OnExit
	// Process made or took over the pins, by its own pid namespace. Alive tells
	// whether it is there, Serving whether the routes are its own.
	Process        uint32
	Alive, Serving bool
	// Generation and Entries are those of the table in force.
	Generation uint64
	Entries    int
	Hooks      []HookStatus
	Outcomes   map[string]uint64
}

// ReadPins reads a directory of pins, and changes nothing.
func ReadPins(dir string) (*PinStatus, error) {
	set := pinnedSet(dir)
	if _, err := os.ReadDir(set); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read pins %s: %w", dir, ErrNoPins)
	} else if err != nil {
		return nil, fmt.Errorf("read pins: %w", err)
	}
	s := &PinStatus{Dir: dir}
	maps := map[string]*ebpf.Map{}
	defer func() {
		for _, m := range maps {
			m.Close()
		}
	}()
	for _, name := range []string{routeMapSetting, routeMapLife, routeMapTables, routeMapOutcomes} {
		m, err := ebpf.LoadPinnedMap(pinnedMap(set, name), &ebpf.LoadPinOptions{ReadOnly: true})
		if err != nil {
			return nil, fmt.Errorf("read pins: map %s: %w", name, err)
		}
		maps[name] = m
	}
	var settings routeSettings
	if err := maps[routeMapSetting].Lookup(uint32(0), &settings); err != nil {
		return nil, fmt.Errorf("read pinned settings: %w", err)
	}
	if settings.Layout != pinLayout {
		return nil, fmt.Errorf("read pins %s: layout %d, but this program knows %d only", dir, settings.Layout, pinLayout)
	}
	s.OnExit, s.Process, s.Serving = OnExit(settings.OnExit), settings.Process, settings.Serving != 0
	var cookie uint64
	s.Alive = maps[routeMapLife].Lookup(uint32(0), &cookie) == nil
	var err error
	if s.Generation, s.Entries, err = readTable(maps[routeMapTables]); err != nil {
		return nil, err
	}
	if s.Outcomes, err = readOutcomes(maps[routeMapOutcomes]); err != nil {
		return nil, err
	}
	s.Hooks, err = readHooks(set)
	return s, err
}

// readTable counts the entries of the table in force.
func readTable(tables *ebpf.Map) (generation uint64, entries int, err error) {
	var live *ebpf.Map
	err = tables.Lookup(uint32(0), &live)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read pinned table: %w", err)
	}
	defer live.Close()
	var (
		key   routeRouteKey
		value routeRoute
	)
	it := live.Iterate()
	for it.Next(&key, &value) {
		entries++
		generation = value.Generation
	}
	return generation, entries, it.Err()
}

func readHooks(set string) ([]HookStatus, error) {
	var out []HookStatus
	for _, name := range captureHooks {
		l, err := link.LoadPinnedLink(pinnedLink(set, name), nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read hook %s: %w", name, err)
		}
		status, err := hookStatus(name, l)
		l.Close()
		if err != nil {
			return nil, err
		}
		status.Cgroup = cgroupByID(status.CgroupID)
		out = append(out, status)
	}
	return out, nil
}

func hookStatus(name string, l link.Link) (HookStatus, error) {
	info, err := l.Info()
	if err != nil {
		return HookStatus{}, fmt.Errorf("read hook %s: %w", name, err)
	}
	s := HookStatus{Name: name, LinkID: uint32(info.ID)}
	if at := info.Cgroup(); at != nil {
		s.CgroupID = at.CgroupId
	}
	return s, nil
}

// cgroupByID looks through the hierarchy.
func cgroupByID(id uint64) (found string) {
	root, err := Cgroup("/")
	if err != nil || id == 0 {
		return ""
	}
	_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil || !e.IsDir():
			return nil
		case cgroupID(path) == id:
			found = path
			return filepath.SkipAll
		}
		return nil
	})
	return found
}

// ClearPins takes away what a process left that is gone: the hooks and all that
// they need. ErrPinsInUse: it lives.
func ClearPins(dir string) error {
	p, err := openPins(dir, false)
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.check(); err != nil {
		return err
	}
	if err := p.remove(); err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	return nil
}
