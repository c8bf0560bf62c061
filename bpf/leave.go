package bpf

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// leaver takes verdicts away under their sockets' locks: programs at this
// process's own cgroup, which its sockets are made in.
type leaver struct {
	objects leaveObjects
	links   []link.Link
}

// newLeaver loads the programs onto the maps of the splice, and attaches them. It
// needs cgroup v2, and bpf_setsockopt for TCP_BPF_SOCK_OPS_CB_FLAGS (Linux 6.12).
func newLeaver(splice *spliceObjects) (l *leaver, err error) {
	dir, err := ownCgroup()
	if err != nil {
		return nil, err
	}
	l = new(leaver)
	defer func() {
		if err != nil {
			l.close()
			l = nil
		}
	}()
	if err := loadLeaveObjects(&l.objects, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		"intercepted": splice.Intercepted, "slots": splice.Slots, "directions": splice.Directions, "events": splice.Events,
	}}); err != nil {
		return l, fmt.Errorf("load leave: %w", err)
	}
	p := &l.objects.leavePrograms
	for _, a := range []struct {
		attach  ebpf.AttachType
		program *ebpf.Program
	}{
		{ebpf.AttachCGroupSockOps, p.LeaveSockops},
		{ebpf.AttachCgroupInet4GetSockname, p.LeaveGetsockname4},
		{ebpf.AttachCgroupInet6GetSockname, p.LeaveGetsockname6},
	} {
		at, err := link.AttachCgroup(link.CgroupOptions{Path: dir, Attach: a.attach, Program: a.program})
		if err != nil {
			return l, fmt.Errorf("attach %v to cgroup %s: %w", a.attach, dir, err)
		}
		l.links = append(l.links, at)
	}
	return l, nil
}

func (l *leaver) close() error {
	var errs []error
	for _, at := range l.links {
		errs = append(errs, at.Close())
	}
	return errors.Join(append(errs, l.objects.Close())...)
}

// ownCgroup is the directory of this process's cgroup of the v2 hierarchy
// (cgroups(7): the line of /proc/self/cgroup that begins with "0::").
func ownCgroup() (string, error) {
	lines, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("find own cgroup: %w", err)
	}
	for line := range strings.Lines(string(lines)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return Cgroup(name)
		}
	}
	return "", fmt.Errorf("find own cgroup: %w", ErrNoCgroup2)
}
