package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// attachment is hooks in the kernel, and what is pinned of them.
type attachment struct {
	pins   *pinDirectory // nil: nothing is pinned
	onExit OnExit
	links  []link.Link
	life   int // fd of the socket that tells that this process lives; -1: none

	// read-only once the hooks hang
	status []HookStatus
	taken  string // what became of the process before's pins
}

// open takes the lock of a part of the pins, and loads what the process before
// left there.
func (a *attachment) open(dir, part string, load func(*pinDirectory) (*pinnedObjects, error)) (*pinnedObjects, error) {
	if dir == "" {
		if a.onExit != ExitOpen {
			return nil, ErrNeedsPins
		}
		return new(pinnedObjects), nil
	}
	var err error
	if a.pins, err = openPins(dir, part, true); err != nil {
		return nil, err
	}
	return load(a.pins)
}

// live puts a socket into a map where it is seen as long as this process has it
// open. It never carries anything.
func (a *attachment) live(life *ebpf.Map) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make socket of life: %w", err)
	}
	if err := life.Put(uint32(0), uint64(fd)); err != nil {
		unix.Close(fd)
		return fmt.Errorf("show socket of life: %w", err)
	}
	a.life = fd
	return nil
}

// hang attaches hooks, or takes over the ones of the process before, and pins
// what is new. Old hooks go only once the new ones are there.
func (a *attachment) hang(maps map[string]*ebpf.Map, hooks []hook, old *pinnedObjects) error {
	found := old.maps != nil || len(old.why) > 0
	changed := old.maps == nil || old.extra
	for i := range hooks {
		l, fresh, err := old.take(&hooks[i])
		if err != nil {
			return err
		}
		a.links = append(a.links, l)
		status, err := hookStatus(hooks[i].name, l)
		if err != nil {
			return err
		}
		status.At = hooks[i].at
		a.status = append(a.status, status)
		changed = changed || fresh
	}
	if a.pins == nil {
		return nil
	}
	changed = changed || len(old.links) > 0
	switch {
	case !found:
		a.taken = "no pins were there"
	case !changed:
		a.taken = "taken over"
	case old.maps == nil:
		a.taken = "replaced: " + old.reason()
	default:
		a.taken = "maps taken over, hooks replaced: " + old.reason()
	}
	if !changed {
		return a.pins.removeBuilds()
	}
	// Each link is to run the program that is pinned beside it.
	for i, l := range a.links {
		if err := l.Update(hooks[i].program); err != nil {
			return fmt.Errorf("replace program of hook %s: %w", hooks[i].name, err)
		}
	}
	return a.pins.commit(func(set string) error { return pinAll(set, maps, hooks, a.links) })
}

// detach ends what hang began: under ExitOpen hooks and pins go, else they stay
// and the policy decides.
func (a *attachment) detach() error {
	var errs []error
	if a.life >= 0 {
		errs = append(errs, unix.Close(a.life))
		a.life = -1
	}
	if a.pins != nil && a.onExit == ExitOpen {
		errs = append(errs, a.pins.remove())
	}
	for i := len(a.links) - 1; i >= 0; i-- {
		errs = append(errs, a.links[i].Close())
	}
	a.links = nil
	if a.pins != nil {
		errs = append(errs, a.pins.close())
		a.pins = nil
	}
	return errors.Join(errs...)
}
