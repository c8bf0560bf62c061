package bpf

import (
	"fmt"

	"github.com/cilium/ebpf/link"
)

// Syscalls counts the system calls of chosen processes at raw_syscalls/sys_enter.
type Syscalls struct {
	objects syscallsObjects
	attach  link.Link
}

// CountSyscalls starts counting; it needs CAP_BPF and CAP_PERFMON.
func CountSyscalls() (*Syscalls, error) {
	c := new(Syscalls)
	if err := loadSyscallsObjects(&c.objects, nil); err != nil {
		return nil, fmt.Errorf("load syscall counter: %w", err)
	}
	var err error
	c.attach, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_enter", Program: c.objects.CountSyscall})
	if err != nil {
		c.objects.Close()
		return nil, fmt.Errorf("attach syscall counter: %w", err)
	}
	return c, nil
}

// Watch starts a count for a process, from 0.
func (c *Syscalls) Watch(pid int) error {
	if err := c.objects.Calls.Put(uint32(pid), uint64(0)); err != nil {
		return fmt.Errorf("watch process %d: %w", pid, err)
	}
	return nil
}

// Count is the number of system calls that the process entered since Watch.
func (c *Syscalls) Count(pid int) (uint64, error) {
	var n uint64
	if err := c.objects.Calls.Lookup(uint32(pid), &n); err != nil {
		return 0, fmt.Errorf("read system calls of process %d: %w", pid, err)
	}
	return n, nil
}

// Close stops counting.
func (c *Syscalls) Close() error {
	c.attach.Close()
	return c.objects.Close()
}
