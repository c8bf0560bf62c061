package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// HookStatus is one hook in the kernel.
type HookStatus struct {
	Name   string
	LinkID uint32
	// At is the cgroup's directory that it is attached to, or the network namespace
	// (net:[4026531840]); empty if that is gone or not to be found.
	At string
}

// PinStatus is what is pinned of one part of capture, outbound or inbound.
type PinStatus struct {
	Dir, Part string
	OnExit    OnExit
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
func ReadPins(dir string) ([]PinStatus, error) {
	var out []PinStatus
	for part, read := range map[string]func(*PinStatus, string) error{partOutbound: readOutbound, partInbound: readInbound} {
		set := pinnedSet(pinnedPart(dir, part))
		if _, err := os.ReadDir(set); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("read pins: %w", err)
		}
		s := PinStatus{Dir: dir, Part: part}
		if err := read(&s, set); err != nil {
			return nil, fmt.Errorf("read pins %s: %w", pinnedPart(dir, part), err)
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("read pins %s: %w", dir, ErrNoPins)
	}
	slices.SortFunc(out, func(a, b PinStatus) int { return strings.Compare(b.Part, a.Part) })
	return out, nil
}

// pinnedMaps are opened to be read.
type pinnedMaps map[string]*ebpf.Map

func readMaps(set string, names ...string) (pinnedMaps, error) {
	maps := pinnedMaps{}
	for _, name := range names {
		m, err := ebpf.LoadPinnedMap(pinnedMap(set, name), &ebpf.LoadPinOptions{ReadOnly: true})
		if err != nil {
			maps.close()
			return nil, fmt.Errorf("map %s: %w", name, err)
		}
		maps[name] = m
	}
	return maps, nil
}

func (p pinnedMaps) close() {
	for _, m := range p {
		m.Close()
	}
}

// alive tells whether a life map has its socket.
func alive(life *ebpf.Map) bool {
	var cookie uint64
	return life.Lookup(uint32(0), &cookie) == nil
}

func checkLayout(layout uint32) error {
	if layout != pinLayout {
		return fmt.Errorf("layout %d, but this program knows %d only", layout, pinLayout)
	}
	return nil
}

func readOutbound(s *PinStatus, set string) error {
	maps, err := readMaps(set, routeMapSetting, routeMapLife, routeMapTables, routeMapOutcomes)
	if err != nil {
		return err
	}
	defer maps.close()
	var settings routeSettings
	if err := maps[routeMapSetting].Lookup(uint32(0), &settings); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	if err := checkLayout(settings.Layout); err != nil {
		return err
	}
	s.OnExit, s.Process, s.Serving = OnExit(settings.OnExit), settings.Process, settings.Serving != 0
	s.Alive = alive(maps[routeMapLife])
	err = eachEntry(maps[routeMapTables], func(it *ebpf.MapIterator) bool {
		var (
			key   routeRouteKey
			value routeRoute
		)
		if !it.Next(&key, &value) {
			return false
		}
		s.Generation = value.Generation
		s.Entries++
		return true
	})
	if err != nil {
		return err
	}
	if s.Outcomes, err = readOutcomes(maps[routeMapOutcomes], outcomeNames[:]); err != nil {
		return err
	}
	s.Hooks, err = readHooks(set, captureHooks)
	return err
}

func readInbound(s *PinStatus, set string) error {
	maps, err := readMaps(set, inboundMapSetting, inboundMapLife, inboundMapTables, inboundMapOutcomes)
	if err != nil {
		return err
	}
	defer maps.close()
	var p inboundSettings
	if err := maps[inboundMapSetting].Lookup(uint32(0), &p); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	if err := checkLayout(p.Layout); err != nil {
		return err
	}
	s.OnExit, s.Process, s.Alive = OnExit(p.OnExit), p.Process, alive(maps[inboundMapLife])
	s.Serving = s.Alive // its sockets are in the table, or none are
	err = eachEntry(maps[inboundMapTables], func(it *ebpf.MapIterator) bool {
		var (
			key   inboundTableKey
			value inboundTableEntry
		)
		if !it.Next(&key, &value) {
			return false
		}
		s.Entries++
		return true
	})
	if err != nil {
		return err
	}
	if s.Outcomes, err = readOutcomes(maps[inboundMapOutcomes], inboundNames[:]); err != nil {
		return err
	}
	s.Hooks, err = readHooks(set, inboundHooks)
	return err
}

// eachEntry walks the table in force.
func eachEntry(tables *ebpf.Map, next func(*ebpf.MapIterator) bool) error {
	var live *ebpf.Map
	err := tables.Lookup(uint32(0), &live)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("table: %w", err)
	}
	defer live.Close()
	it := live.Iterate()
	for next(it) {
	}
	return it.Err()
}

func readHooks(set string, names []string) ([]HookStatus, error) {
	var out []HookStatus
	for _, name := range names {
		l, err := link.LoadPinnedLink(pinnedLink(set, name), nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("hook %s: %w", name, err)
		}
		status, err := hookStatus(name, l)
		l.Close()
		if err != nil {
			return nil, err
		}
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
		s.At = cgroupByID(at.CgroupId)
	}
	if at := info.NetNs(); at != nil && at.NetnsInode != 0 {
		s.At = fmt.Sprintf("net:[%d]", at.NetnsInode)
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
// they need. ErrPinsInUse: it lives, and nothing is changed.
func ClearPins(dir string) error {
	var parts []*pinDirectory
	defer func() {
		for _, p := range parts {
			p.close()
		}
	}()
	for _, part := range []string{partOutbound, partInbound} {
		p, err := openPins(dir, part, false)
		if errors.Is(err, ErrNoPins) {
			continue
		}
		if err != nil {
			return err
		}
		parts = append(parts, p)
		if err := p.check(); err != nil {
			return err
		}
	}
	if len(parts) == 0 {
		return fmt.Errorf("clear pins %s: %w", dir, ErrNoPins)
	}
	for _, p := range parts {
		if err := p.remove(); err != nil {
			return fmt.Errorf("remove pins: %w", err)
		}
	}
	return nil
}

// CheckPins tells whether a directory of pins could be used; it makes nothing.
func CheckPins(dir string) error {
	for _, part := range []string{partOutbound, partInbound} {
		p, err := openPins(dir, part, false)
		if errors.Is(err, ErrNoPins) {
			continue
		}
		if err == nil {
			err = errors.Join(p.check(), p.close())
		}
		if err != nil {
			return err
		}
	}
	return nil
}
