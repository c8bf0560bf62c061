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
	"golang.org/x/sys/unix"
)

// hook is a program, and where it is attached.
type hook struct {
	name    string
	program *ebpf.Program
	at      string // where, for people
	attach  func() (link.Link, error)
	// here tells whether a link is attached where attach would attach it.
	here func(*link.Info) bool
}

// pinnedObjects is the set that a process left, as far as it can be used.
type pinnedObjects struct {
	maps  map[string]*ebpf.Map // nil: not to be used
	links map[string]*pinnedHook
	// why tells, for each part that is not used, what is wrong with it.
	why []string
	// extra says that there are pins which nobody would look for.
	extra bool
}

// pinnedHook is a link, and the program that was pinned beside it.
type pinnedHook struct {
	link    link.Link
	program *ebpf.Program
	info    *link.Info
}

// load opens the current set. Maps are used if all of them are as specs want
// them; check has the last word. Without maps links are not used either: they
// belong to programs with the other ones.
func (p *pinDirectory) load(specs map[string]*ebpf.MapSpec, hooks []string, check func(map[string]*ebpf.Map) error) (*pinnedObjects, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	set, old := pinnedSet(p.path), &pinnedObjects{links: map[string]*pinnedHook{}}
	entries, err := os.ReadDir(set)
	if errors.Is(err, fs.ErrNotExist) {
		return old, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read pins: %w", err)
	}
	known := map[string]bool{}
	old.maps = map[string]*ebpf.Map{}
	for name, spec := range specs {
		known[pinnedMap(set, name)] = true
		m, err := loadMap(pinnedMap(set, name), spec)
		if m != nil {
			old.maps[name] = m
		}
		if err != nil {
			old.why = append(old.why, fmt.Sprintf("map %s: %v", name, err))
		}
	}
	if len(old.why) == 0 {
		if err := check(old.maps); err != nil {
			old.why = append(old.why, err.Error())
		}
	}
	for _, name := range hooks {
		known[pinnedLink(set, name)], known[pinnedProgram(set, name)] = true, true
	}
	for _, e := range entries {
		old.extra = old.extra || !known[filepath.Join(set, e.Name())]
	}
	if len(old.why) > 0 {
		old.closeMaps()
		return old, nil
	}
	for _, name := range hooks {
		h, err := loadHook(set, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			old.why = append(old.why, fmt.Sprintf("hook %s: %v", name, err))
		default:
			old.links[name] = h
		}
	}
	return old, nil
}

func loadMap(path string, spec *ebpf.MapSpec) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return nil, err
	}
	if err := spec.Compatible(m); err != nil {
		return m, err
	}
	info, err := m.Info()
	if err != nil {
		return m, err
	}
	if want := kernelName(spec.Name); info.Name != want {
		return m, fmt.Errorf("it is called %q, not %q", info.Name, want)
	}
	return m, nil
}

// kernelName is as much of a name as the kernel keeps.
func kernelName(name string) string { return name[:min(len(name), unix.BPF_OBJ_NAME_LEN-1)] }

func loadHook(set, name string) (*pinnedHook, error) {
	h := new(pinnedHook)
	var err error
	if h.link, err = link.LoadPinnedLink(pinnedLink(set, name), nil); err != nil {
		return nil, err
	}
	// The link's own program may be opened with CAP_SYS_ADMIN only.
	if h.program, err = ebpf.LoadPinnedProgram(pinnedProgram(set, name), nil); err == nil {
		h.info, err = h.link.Info()
	}
	if err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

func (h *pinnedHook) close() {
	if h.program != nil {
		h.program.Close()
	}
	h.link.Close()
}

// take gives a hook its link: the pinned one if it is attached to the same
// place, else a new one. fresh says that it is, or runs another program than the
// hook's, so that the set is to be made anew.
func (o *pinnedObjects) take(h *hook) (l link.Link, fresh bool, err error) {
	old := o.links[h.name]
	if old != nil && !h.here(old.info) {
		o.why = append(o.why, fmt.Sprintf("hook %s: attached elsewhere", h.name))
		old.close()
		delete(o.links, h.name)
		old = nil
	}
	if old == nil {
		l, err := h.attach()
		return l, true, err
	}
	delete(o.links, h.name)
	defer old.program.Close()
	same, why, err := old.runs(h.program)
	if err != nil {
		old.link.Close()
		return nil, false, fmt.Errorf("compare hook %s: %w", h.name, err)
	}
	if same {
		return old.link, false, nil
	}
	o.why = append(o.why, fmt.Sprintf("hook %s: %s", h.name, why))
	return old.link, true, nil
}

// runs tells whether a link's program is p: the same instructions on the same
// maps.
func (h *pinnedHook) runs(p *ebpf.Program) (bool, string, error) {
	was, err := h.program.Info()
	if err != nil {
		return false, "", err
	}
	now, err := p.Info()
	if err != nil {
		return false, "", err
	}
	if id, ok := was.ID(); !ok || id != h.info.Program {
		return false, "it does not run the program that is pinned beside it", nil
	}
	if was.Tag != now.Tag {
		return false, fmt.Sprintf("program tag %s, not %s", was.Tag, now.Tag), nil
	}
	a, _ := was.MapIDs()
	b, _ := now.MapIDs()
	slices.Sort(a)
	slices.Sort(b)
	if !slices.Equal(a, b) {
		return false, "its program has other maps", nil
	}
	return true, "", nil
}

func (o *pinnedObjects) closeMaps() {
	for _, m := range o.maps {
		m.Close()
	}
	o.maps = nil
}

// close lets go of what was not taken.
func (o *pinnedObjects) close() {
	o.closeMaps()
	for _, h := range o.links {
		h.close()
	}
	o.links = nil
}

func (o *pinnedObjects) reason() string { return strings.Join(o.why, "; ") }

// pinAll pins maps, and each hook with its link. The objects' own handles stay
// unpinned, as the library would move a pin that it knows of.
func pinAll(set string, maps map[string]*ebpf.Map, hooks []hook, links []link.Link) error {
	for name, m := range maps {
		handle, err := m.Clone()
		if err == nil {
			err = errors.Join(handle.Pin(pinnedMap(set, name)), handle.Close())
		}
		if err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	for i := range hooks {
		handle, err := hooks[i].program.Clone()
		if err == nil {
			err = errors.Join(handle.Pin(pinnedProgram(set, hooks[i].name)), handle.Close())
		}
		if err == nil {
			err = pinLink(links[i], pinnedLink(set, hooks[i].name))
		}
		if err != nil {
			return fmt.Errorf("pin hook %s: %w", hooks[i].name, err)
		}
	}
	return nil
}

func pinLink(l link.Link, path string) error {
	raw, ok := l.(interface{ FD() int })
	if !ok {
		return link.ErrNotSupported // attached without a link, before Linux 5.7
	}
	fd, err := unix.FcntlInt(uintptr(raw.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	handle, err := link.NewFromFD(fd)
	if err != nil {
		return err
	}
	return errors.Join(handle.Pin(path), handle.Close())
}
