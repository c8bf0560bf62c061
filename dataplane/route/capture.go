package route

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
)

// Options say whose connections are captured, and which.
type Options struct {
	// Cgroup is the captured programs', as bpf.Cgroup takes it.
	Cgroup string
	// AcceptCgroup, if set, is that of other programs that accept what is captured.
	AcceptCgroup string
	// OnExit and Pin are as of bpf.CaptureOptions.
	OnExit bpf.OnExit
	Pin    string
	// MaxRoutes is how many entries a table may have; 0: bpf.MaxRoutes.
	MaxRoutes int
	Policy
}

// Capture keeps the kernel's routes as the listeners want them. Set, Remove and
// Swap are for one goroutine at a time, the rest for any.
type Capture struct {
	// read-only after Start
	policy  Policy
	options Options
	cgroup  string
	hooks   *bpf.Capture
	// unknown counts accepted connections that Origin knew nothing of.
	unknown atomic.Uint64

	wanted *Wanted
	force  atomic.Pointer[inForce]
}

// inForce is the table in the kernel, and how it got there.
type inForce struct {
	table *Table
	swaps uint64
	full  uint64 // of swaps, those whose routes did not fit
	took  time.Duration
}

// Start attaches the hooks, or takes over those of a process before. Until the
// first Swap everything passes, or is refused if OnExit says so.
func Start(o Options) (*Capture, error) {
	dir, err := bpf.Cgroup(o.Cgroup)
	if err != nil {
		return nil, fmt.Errorf("start capture: %w", err)
	}
	c := &Capture{policy: o.Policy, options: o, cgroup: dir}
	c.policy.RefuseIdle = o.OnExit == bpf.ExitClosed
	c.wanted = NewWanted(&c.policy)
	first := c.wanted.Build(0)
	c.wanted.changed = true
	c.hooks, err = bpf.LoadCapture(bpf.CaptureOptions{
		Cgroup: dir, AcceptCgroup: o.AcceptCgroup, OnExit: o.OnExit, Pin: o.Pin, First: &first.kernel,
		MaxRoutes: o.MaxRoutes, RefuseWhenFull: o.WhenFull == FullCapture,
	})
	if err != nil {
		return nil, fmt.Errorf("start capture: %w", err)
	}
	c.force.Store(&inForce{table: first})
	return c, nil
}

// Taken says what became of the pins that were there at the start; empty without
// pins.
func (c *Capture) Taken() string { return c.hooks.Taken() }

// Detach ends the capture of what programs open from then on: it passes, or what
// OnExit says.
func (c *Capture) Detach() error { return c.hooks.Detach() }

// Close detaches and frees; nothing else may be running.
func (c *Capture) Close() error { return c.hooks.Close() }

// Set takes down a listener that is in force, or a new version of it; Remove one
// that is to go. Swap puts that in force.
func (c *Capture) Set(l *Listener)    { c.wanted.Set(l) }
func (c *Capture) Remove(name string) { c.wanted.Remove(name) }

// Swap puts the routes that are wanted in force, unless they are so already.
// Routes that do not fit are replaced by fewer, as WhenFull says: never is a part
// of a table in force. With an error the old ones stay, and the next Swap tries
// again.
func (c *Capture) Swap(generation uint64) error {
	if !c.wanted.changed {
		return nil
	}
	start := time.Now()
	t, was := c.wanted.Build(generation), c.force.Load()
	next := inForce{swaps: was.swaps + 1, full: was.full}
	err := c.hooks.Swap(&t.kernel)
	if errors.Is(err, bpf.ErrTooManyRoutes) || errors.Is(err, syscall.ENOMEM) {
		next.full++
		t = c.wanted.Coarse(generation)
		err = c.hooks.Swap(&t.kernel)
	}
	if err != nil {
		c.wanted.changed = true
		return err
	}
	next.table, next.took = t, time.Since(start)
	c.force.Store(&next)
	return nil
}

// Full says which routes do not fit, if so.
func (c *Capture) Full() string { return c.force.Load().table.Full }

// Origin is what the client of an accepted connection meant, by the
// connection's two ends; see bpf.Capture.Origin.
func (c *Capture) Origin(remote, local netip.AddrPort) (netip.AddrPort, bool) {
	o, ok, err := c.hooks.Origin(remote, local)
	if !ok || err != nil {
		c.unknown.Add(1)
		return netip.AddrPort{}, false
	}
	return o.Addr, true
}

// Find says what becomes of a connection to a destination.
func (c *Capture) Find(to netip.AddrPort) api.RouteDecision { return c.force.Load().table.Find(to) }

// Status shows the routes in force. Counts that cannot be read are left out.
func (c *Capture) Status() api.CaptureStatus {
	f := c.force.Load()
	s := api.CaptureStatus{
		Cgroup: c.cgroup, Generation: f.table.kernel.Generation, Idle: f.table.Idle,
		Exclude: f.table.kernel.Exclude, Routes: f.table.routes(), Swaps: f.swaps, LastSwap: f.took,
		Full: f.table.Full, FullSwaps: f.full, OnExit: c.options.OnExit.String(), Pin: c.options.Pin, Pins: c.hooks.Taken(),
	}
	for _, h := range c.hooks.Hooks() {
		s.Hooks = append(s.Hooks, api.HookStatus{Name: h.Name, Link: h.LinkID, At: h.At})
	}
	if s.Outcomes, _ = c.hooks.Counters(); s.Outcomes != nil {
		s.Outcomes["origin.unknown"] = c.unknown.Load()
	}
	return s
}

// Counters are the ends of the hooks' calls, by name.
func (c *Capture) Counters() (map[string]uint64, error) { return c.hooks.Counters() }
