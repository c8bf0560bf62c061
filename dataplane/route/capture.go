package route

import (
	"fmt"
	"net/netip"
	"sync/atomic"
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
	Policy
}

// Capture keeps the kernel's routes as the listeners want them. Set, Remove and
// Swap are for one goroutine at a time, the rest for any.
type Capture struct {
	// read-only after Start
	policy Policy
	cgroup string
	hooks  *bpf.Capture

	wanted *Wanted
	force  atomic.Pointer[inForce]
}

// inForce is the table in the kernel, and how it got there.
type inForce struct {
	table *Table
	swaps uint64
	took  time.Duration
}

// Start attaches the hooks; until the first Swap everything passes.
func Start(o Options) (*Capture, error) {
	dir, err := bpf.Cgroup(o.Cgroup)
	if err != nil {
		return nil, fmt.Errorf("start capture: %w", err)
	}
	hooks, err := bpf.LoadCapture(bpf.CaptureOptions{Cgroup: dir, AcceptCgroup: o.AcceptCgroup})
	if err != nil {
		return nil, fmt.Errorf("start capture: %w", err)
	}
	c := &Capture{policy: o.Policy, cgroup: dir, hooks: hooks}
	c.wanted = NewWanted(&c.policy)
	c.force.Store(&inForce{table: &Table{Idle: NoListener}})
	return c, nil
}

// Detach takes the hooks away: what captured programs open from then on passes.
func (c *Capture) Detach() error { return c.hooks.Detach() }

// Close detaches and frees; nothing else may be running.
func (c *Capture) Close() error { return c.hooks.Close() }

// Set takes down a listener that is in force, or a new version of it; Remove one
// that is to go. Swap puts that in force.
func (c *Capture) Set(l *Listener)    { c.wanted.Set(l) }
func (c *Capture) Remove(name string) { c.wanted.Remove(name) }

// Swap puts the routes that are wanted in force, unless they are so already.
// With an error the old ones stay, and the next Swap tries again.
func (c *Capture) Swap(generation uint64) error {
	if !c.wanted.changed {
		return nil
	}
	start := time.Now()
	t := c.wanted.Build(generation)
	if err := c.hooks.Swap(&t.kernel); err != nil {
		c.wanted.changed = true
		return err
	}
	c.force.Store(&inForce{table: t, swaps: c.force.Load().swaps + 1, took: time.Since(start)})
	return nil
}

// Origin is what the client of an accepted connection meant, by the
// connection's two ends; see bpf.Capture.Origin.
func (c *Capture) Origin(remote, local netip.AddrPort) (netip.AddrPort, bool) {
	o, ok, err := c.hooks.Origin(remote, local)
	return o.Addr, ok && err == nil
}

// Find says what becomes of a connection to a destination.
func (c *Capture) Find(to netip.AddrPort) api.RouteDecision { return c.force.Load().table.Find(to) }

// Status shows the routes in force. Counts that cannot be read are left out.
func (c *Capture) Status() api.CaptureStatus {
	f := c.force.Load()
	s := api.CaptureStatus{
		Cgroup: c.cgroup, Generation: f.table.kernel.Generation, Idle: f.table.Idle,
		Exclude: f.table.kernel.Exclude, Routes: f.table.routes(), Swaps: f.swaps, LastSwap: f.took,
	}
	s.Outcomes, _ = c.hooks.Counters()
	return s
}

// Counters are the ends of the hooks' calls, by name.
func (c *Capture) Counters() (map[string]uint64, error) { return c.hooks.Counters() }
