package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Errors about pins that callers may tell apart.
var (
	// ErrNoBPFFS says that pins were asked for where no bpffs is.
	ErrNoBPFFS = errors.New("not on a bpffs")
	// ErrPinsInUse says that the process that pins there lives.
	ErrPinsInUse = errors.New("another process has them in use")
	// ErrForeignPins says that what is pinned there is not ours to trust.
	ErrForeignPins = errors.New("foreign pins")
	// ErrNoPins says that nothing is pinned there.
	ErrNoPins = errors.New("nothing is pinned")
)

// pinDirectory is the directory of one part's pins, with its lock held.
type pinDirectory struct {
	path string
	lock *os.File
}

// openPins takes the lock of a part of a directory of pins. Before it trusts
// anything in there it makes sure that only this user can have put it there.
func openPins(dir, part string, create bool) (*pinDirectory, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open pins: %w", err)
	}
	if err := checkBPFFS(filepath.Dir(dir)); err != nil {
		return nil, fmt.Errorf("open pins %s: %w", dir, err)
	}
	for {
		if create {
			for _, path := range []string{dir, pinnedPart(dir, part)} {
				// What is missing below has just been taken away by whoever ended.
				if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
					return nil, fmt.Errorf("open pins: %w", err)
				}
			}
		}
		err := checkParts(dir)
		var p *pinDirectory
		if err == nil {
			p, err = lockPins(pinnedPart(dir, part))
		}
		if errors.Is(err, errPinsRemoved) || create && errors.Is(err, ErrNoPins) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open pins %s: %w", dir, err)
		}
		return p, nil
	}
}

// checkParts looks at the directory that the parts are in.
func checkParts(dir string) error {
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrNoPins
	case err != nil:
		return fmt.Errorf("read pins: %w", err)
	case !info.IsDir():
		return fmt.Errorf("%w: no directory", ErrForeignPins)
	}
	if err := checkOwn(info); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read pins: %w", err)
	}
	for _, e := range entries {
		if e.Name() != partOutbound && e.Name() != partInbound {
			return fmt.Errorf("%w: %s is none of ours: remove it", ErrForeignPins, filepath.Join(dir, e.Name()))
		}
	}
	return nil
}

var errPinsRemoved = errors.New("removed")

func lockPins(path string) (*pinDirectory, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, ErrNoPins
	case errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("%w: no directory", ErrForeignPins)
	case err != nil:
		return nil, err
	}
	p := &pinDirectory{path: path, lock: os.NewFile(uintptr(fd), path)}
	info, err := p.lock.Stat()
	if err == nil {
		err = checkOwn(info)
	}
	if err == nil {
		if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrPinsInUse
		}
	}
	if err == nil {
		if now, statErr := os.Lstat(path); statErr != nil || !os.SameFile(now, info) {
			err = errPinsRemoved
		}
	}
	if err != nil {
		p.lock.Close()
		return nil, err
	}
	return p, nil
}

// checkBPFFS looks at the directory that the pins' one is in.
func checkBPFFS(parent string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(parent, &st); err != nil {
		return fmt.Errorf("look at %s: %w", parent, err)
	}
	if st.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("%s is %w: mount one (mount -t bpf bpf /sys/fs/bpf), and name a directory in it", parent, ErrNoBPFFS)
	}
	info, err := os.Stat(parent)
	if err != nil {
		return fmt.Errorf("look at %s: %w", parent, err)
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&os.ModeSticky == 0 {
		return fmt.Errorf("%w: others may rename what is in %s (mode %v)", ErrForeignPins, parent, info.Mode())
	}
	return nil
}

// checkOwn refuses what another user owns or may open.
func checkOwn(info fs.FileInfo) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: %s belongs to uid %d, not to %d", ErrForeignPins, info.Name(), st.Uid, os.Geteuid())
	}
	if open := info.Mode().Perm() & 0o077; open != 0 {
		return fmt.Errorf("%w: %s has mode %#o, which lets others in", ErrForeignPins, info.Name(), info.Mode().Perm())
	}
	return nil
}

// check refuses a directory in which anything lies that we would not have put
// there. Whether a set fits is another question.
func (p *pinDirectory) check() error {
	entries, err := os.ReadDir(p.path)
	if err != nil {
		return fmt.Errorf("read pins: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(p.path, e.Name())
		building, _ := filepath.Match(pinnedBuild(p.path), path)
		if !e.IsDir() || path != pinnedSet(p.path) && !building {
			return fmt.Errorf("%w: %s is none of ours: remove it", ErrForeignPins, path)
		}
		if err := checkSet(path); err != nil {
			return err
		}
	}
	return nil
}

func checkSet(set string) error {
	info, err := os.Lstat(set)
	if err != nil {
		return fmt.Errorf("read pins: %w", err)
	}
	if err := checkOwn(info); err != nil {
		return err
	}
	entries, err := os.ReadDir(set)
	if err != nil {
		return fmt.Errorf("read pins: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(set, e.Name())
		if !e.Type().IsRegular() || !isPin(set, path) {
			return fmt.Errorf("%w: %s is none of ours: remove it", ErrForeignPins, path)
		}
		info, err := e.Info()
		if err != nil {
			return fmt.Errorf("read pins: %w", err)
		}
		if err := checkOwn(info); err != nil {
			return err
		}
	}
	return nil
}

func isPin(set, path string) bool {
	for _, prefix := range []string{pinnedMap(set, ""), pinnedProgram(set, ""), pinnedLink(set, "")} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

// commit pins a set beside the current one and puts it in its place by one
// rename. The set that was there goes afterwards, and what hangs on it alone.
func (p *pinDirectory) commit(pin func(set string) error) (err error) {
	next, err := os.MkdirTemp(p.path, filepath.Base(pinnedBuild(p.path)))
	if err != nil {
		return fmt.Errorf("make pins: %w", err)
	}
	defer func() { err = errors.Join(err, p.removeBuilds()) }()
	if err := pin(next); err != nil {
		return err
	}
	// From here on a restart finds the new set.
	current := pinnedSet(p.path)
	err = unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, current, unix.RENAME_EXCHANGE)
	switch {
	case errors.Is(err, unix.ENOENT):
		err = os.Rename(next, current)
	case errors.Is(err, unix.EINVAL): // a bpffs of before Linux 5.17; a crash in between leaves both as builds
		if err = os.Rename(current, next+"-old"); err == nil {
			err = os.Rename(next, current)
		}
	}
	if err != nil {
		return fmt.Errorf("put pins in place: %w", err)
	}
	return nil
}

// removeBuilds takes away what is not the current set.
func (p *pinDirectory) removeBuilds() error {
	builds, err := filepath.Glob(pinnedBuild(p.path))
	for _, b := range builds {
		err = errors.Join(err, removeSet(b))
	}
	return err
}

// remove detaches the hooks and takes all pins of the part away, and the
// directory if no other part is left.
func (p *pinDirectory) remove() error {
	// A link whose last pin goes is detached by a worker of the kernel, a little
	// later.
	err := detachAll(pinnedSet(p.path))
	err = errors.Join(err, p.removeBuilds())
	if e := removeSet(pinnedSet(p.path)); !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	if err != nil {
		return err
	}
	if err := os.Remove(p.path); err != nil {
		return err
	}
	if err := os.Remove(filepath.Dir(p.path)); !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return nil
}

// removeSet takes links away first: no hook may run without what it needs.
func removeSet(set string) error {
	entries, err := os.ReadDir(set)
	if err != nil {
		return err
	}
	var links, rest []string
	for _, e := range entries {
		path := filepath.Join(set, e.Name())
		if strings.HasPrefix(path, pinnedLink(set, "")) {
			links = append(links, path)
		} else {
			rest = append(rest, path)
		}
	}
	var errs []error
	for _, path := range append(links, rest...) {
		errs = append(errs, os.Remove(path))
	}
	return errors.Join(append(errs, os.Remove(set))...)
}

func detachAll(set string) error {
	paths, err := filepath.Glob(pinnedLink(set, "*"))
	for _, path := range paths {
		l, e := link.LoadPinnedLink(path, nil)
		if e != nil {
			continue // no link: its pin is all there is to take away
		}
		e = errors.Join(l.Detach(), l.Close())
		if !errors.Is(e, link.ErrNotSupported) { // before Linux 5.9
			err = errors.Join(err, e)
		}
	}
	return err
}

// close lets the lock go; the pins stay.
func (p *pinDirectory) close() error { return p.lock.Close() }
