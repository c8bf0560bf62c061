package route

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
)

// InboundOptions say what of the connections from outside is captured.
type InboundOptions struct {
	InboundPolicy
	// OnExit and Pin are as of bpf.InboundOptions.
	OnExit bpf.OnExit
	Pin    string
}

// Inbound keeps what the kernel captures of incoming connections as the listeners
// want it. Swap is for one goroutine at a time, the rest for any.
type Inbound struct {
	// read-only after StartInbound
	policy  InboundPolicy
	program *bpf.Inbound
	own     *addresses

	force atomic.Pointer[inboundInForce]
}

// inboundInForce is the table in the kernel, and how it got there.
type inboundInForce struct {
	table *InboundTable
	swaps uint64
	took  time.Duration
}

// StartInbound attaches the program to the calling thread's network namespace, or
// takes over that of a process before. Until the first Swap everything passes, or
// is refused if OnExit says so.
func StartInbound(o InboundOptions, log *slog.Logger) (c *Inbound, err error) {
	c = &Inbound{policy: o.InboundPolicy}
	c.policy.RefuseIdle = o.OnExit == bpf.ExitClosed
	first := BuildInbound(0, nil, nil, &c.policy)
	c.force.Store(&inboundInForce{table: first})
	if c.program, err = bpf.LoadInbound(bpf.InboundOptions{OnExit: o.OnExit, Pin: o.Pin, First: &first.kernel}); err != nil {
		return nil, fmt.Errorf("start inbound capture: %w", err)
	}
	known, err := c.program.Own()
	if err == nil {
		c.own, err = watchAddresses(known, c.program.SetOwn, log)
	}
	if err != nil {
		c.program.Close()
		return nil, fmt.Errorf("start inbound capture: %w", err)
	}
	return c, nil
}

// Taken says what became of the pins that were there at the start; empty without
// pins.
func (c *Inbound) Taken() string { return c.program.Taken() }

// Detach takes the program away: what comes from then on finds whoever listens
// there.
func (c *Inbound) Detach() error { return c.program.Detach() }

// Close detaches and frees; nothing else may be running.
func (c *Inbound) Close() error {
	c.own.close()
	return c.program.Close()
}

// Swap captures for the listeners in force, of which those matter that are bound,
// unless that is so already. sockets holds one for each bound address. With an error the old table
// stays.
func (c *Inbound) Swap(generation uint64, ls []*Listener, sockets map[netip.AddrPort]bpf.ListeningSocket) error {
	t := BuildInbound(generation, ls, sockets, &c.policy)
	old := c.force.Load()
	if old.swaps > 0 && t.Equal(old.table) {
		return nil
	}
	start := time.Now()
	if err := c.program.Swap(&t.kernel); err != nil {
		return err
	}
	c.force.Store(&inboundInForce{table: t, swaps: old.swaps + 1, took: time.Since(start)})
	return nil
}

// Find says what becomes of a connection from outside to an address.
func (c *Inbound) Find(to netip.AddrPort) api.RouteDecision { return c.force.Load().table.Find(to) }

// Status shows the table in force. Counts that cannot be read are left out.
func (c *Inbound) Status() api.InboundStatus {
	f := c.force.Load()
	s := api.InboundStatus{
		Namespace: c.program.Namespace(), Generation: f.table.generation, Idle: f.table.Idle,
		Entries: f.table.status(), Swaps: f.swaps, LastSwap: f.took,
	}
	for _, h := range c.program.Hooks() {
		s.Hooks = append(s.Hooks, api.HookStatus{Name: h.Name, Link: h.LinkID, At: h.At})
	}
	s.Pins = c.program.Taken()
	s.Outcomes, _ = c.program.Counters()
	return s
}
