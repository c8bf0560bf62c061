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

// StartInbound attaches the program to the calling thread's network namespace;
// until the first Swap everything passes.
func StartInbound(p InboundPolicy, log *slog.Logger) (c *Inbound, err error) {
	c = &Inbound{policy: p}
	c.force.Store(&inboundInForce{table: &InboundTable{Idle: NoInboundListener}})
	if c.program, err = bpf.LoadInbound(); err != nil {
		return nil, fmt.Errorf("start inbound capture: %w", err)
	}
	if c.own, err = watchAddresses(c.program.SetOwn, log); err != nil {
		c.program.Close()
		return nil, fmt.Errorf("start inbound capture: %w", err)
	}
	return c, nil
}

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
	s.Outcomes, _ = c.program.Counters()
	return s
}
