package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Workers stands for the workers of all workqueues together: they are who moves
// the bytes of a spliced pair.
const Workers = 0

// Cost is what a process has spent on moving bytes.
type Cost struct {
	Wakeups uint64
	// Received and Sent are bytes that the kernel copied for it to and from
	// user space. Moved were handed to a socket as pages, without a copy, but
	// for the linear heads that workers copy.
	Received, Sent, Moved uint64
}

// Arrival is what came in for a port, in bytes, and how much of it lay in the
// linear heads of its skbs.
type Arrival struct{ Payload, Linear uint64 }

// Costs counts the wake-ups and copies of chosen processes at tracepoints.
// Counting costs about as much as what is counted.
type Costs struct {
	objects costsObjects
	links   []link.Link
}

// CountCosts starts counting; it needs CAP_BPF, CAP_PERFMON and BTF.
func CountCosts() (c *Costs, err error) {
	spec, err := loadCosts()
	if err != nil {
		return nil, fmt.Errorf("read cost counter: %w", err)
	}
	if err := spec.Variables["splice_call"].Set(uint64(unix.SYS_SPLICE)); err != nil {
		return nil, fmt.Errorf("set up cost counter: %w", err)
	}
	c = new(Costs)
	if err := spec.LoadAndAssign(&c.objects, nil); err != nil {
		return nil, fmt.Errorf("load cost counter: %w", err)
	}
	o := &c.objects
	for _, p := range []*ebpf.Program{o.NoteCall, o.CountWakeup, o.CountReceive, o.CountSend, o.CountArrival} {
		l, err := link.AttachTracing(link.TracingOptions{Program: p})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach cost counter %s: %w", p, err), c.Close())
		}
		c.links = append(c.links, l)
	}
	return c, nil
}

// Watch starts a count for a process, or for the Workers, from 0.
func (c *Costs) Watch(pid int) error {
	if err := c.objects.Costs.Put(uint32(pid), costsCost{}); err != nil {
		return fmt.Errorf("watch costs of process %d: %w", pid, err)
	}
	return nil
}

// Read is what the process has spent since Watch.
func (c *Costs) Read(pid int) (Cost, error) {
	var v costsCost
	if err := c.objects.Costs.Lookup(uint32(pid), &v); err != nil {
		return Cost{}, fmt.Errorf("read costs of process %d: %w", pid, err)
	}
	return Cost{Wakeups: v.Wakeups, Received: v.Received, Sent: v.Sent, Moved: v.Moved}, nil
}

// WatchPort starts a count of what arrives for a local port, from 0.
func (c *Costs) WatchPort(port uint16) error {
	if err := c.objects.Arrivals.Put(uint32(port), costsArrival{}); err != nil {
		return fmt.Errorf("watch port %d: %w", port, err)
	}
	return nil
}

// ReadPort is what arrived for the port since WatchPort.
func (c *Costs) ReadPort(port uint16) (Arrival, error) {
	var v costsArrival
	if err := c.objects.Arrivals.Lookup(uint32(port), &v); err != nil {
		return Arrival{}, fmt.Errorf("read arrivals at port %d: %w", port, err)
	}
	return Arrival{Payload: v.Payload, Linear: v.Linear}, nil
}

// Close stops counting.
func (c *Costs) Close() error {
	var errs []error
	for _, l := range c.links {
		errs = append(errs, l.Close())
	}
	return errors.Join(append(errs, c.objects.Close())...)
}
