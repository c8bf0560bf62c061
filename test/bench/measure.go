package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/test/bench/load"
	"github.com/sluice-proxy/sluice/test/bench/meter"
)

// direct is the name of the traffic that goes through no proxy.
const direct = "direct"

// Run is one proxy in one round of one cell. Times are in ns unless they say
// otherwise; an operation is a request with its answer, a connection, or a byte
// of bulk.
type Run struct {
	Proxy string
	Round int
	Error string `json:",omitempty"`

	PerSecond      float64
	P50, P99, P999 float64 `json:",omitempty"`

	// CPU per operation: of the proxy, of the whole machine, and of the load.
	ProxyCPU, MachineCPU, LoadCPU float64
	// Per operation, of the proxy: system calls are counted in a window of
	// their own at sys_enter, by BPF, from outside of the process.
	SystemCalls            float64
	Voluntary, Involuntary float64
	// Memory of the proxy in bytes, under this load.
	RSS, PSS float64
	// Spent is counted for the field's table only.
	Spent *Spent `json:",omitempty"`
}

// bench runs cells.
type bench struct {
	plan         plan
	spawn        spawner
	tools        tools
	kinds        []kind
	cpus         []int
	scratch, out string
	costs        bool // count them, too
	// timing is called in the timed window and, if set, ends it.
	timing func(client *process) error
}

// answerLimit is how long a load process may take for a reply.
const answerLimit = 5 * time.Second

// warmUps are the runs of each that are not measured, before the first of a setting:
// what a proxy loads with its first connections is not to be in a cell's figures.
const warmUps = 2

func (b *bench) warm(ctx context.Context, w *world, c Cell, names []*proxy) error {
	if w.warm {
		return nil
	}
	for range warmUps {
		for _, p := range names {
			// What fails here fails again when it is measured.
			if _, err := b.run(ctx, w, c, p, false); err != nil && ctx.Err() == nil {
				if err := w.revive(ctx); err != nil {
					return err
				}
			}
		}
	}
	w.warm = true
	return ctx.Err()
}

// measure runs every round of a cell, the proxies in another order each time.
func (b *bench) measure(ctx context.Context, w *world, c Cell, report func(Run)) error {
	names := []*proxy{nil}
	names = append(names, w.proxies...)
	if err := b.warm(ctx, w, c, names); err != nil {
		return err
	}
	for round := range b.plan.Rounds {
		rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		for _, p := range names {
			r, err := b.run(ctx, w, c, p, false)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			r.Round, r.Proxy = round, direct
			if p != nil {
				r.Proxy = p.name
			}
			if err != nil {
				r = Run{Proxy: r.Proxy, Round: round, Error: err.Error()}
				if err := w.revive(ctx); err != nil {
					return err
				}
			}
			report(r)
		}
	}
	return nil
}

// revive starts the server anew if it found a corrupt stream.
func (w *world) revive(ctx context.Context) error {
	select {
	case <-w.backend.ended:
		return w.startBackend(ctx)
	default:
		return nil
	}
}

// run lets a client work on one proxy (nil: direct).
func (b *bench) run(ctx context.Context, w *world, c Cell, p *proxy, unchecked bool) (r Run, err error) {
	to := p.target(w)
	var pids []int
	if p != nil {
		if err := p.wake(ctx); err != nil {
			return r, err
		}
		defer p.sleep()
		pids = p.process.family
	}
	config, err := json.Marshal(load.Config{To: to, Kind: c.Kind, Size: c.Size, Connections: c.Connections, Threads: c.threads(), Unchecked: unchecked})
	if err != nil {
		return r, fmt.Errorf("write configuration of the load: %w", err)
	}
	client, err := b.spawn.launch("client", w.dir, w.client, leanly, true, b.tools.self, "load", string(config))
	if err != nil {
		return r, err
	}
	defer b.hangUp(client)
	if _, err := client.hear(ctx, 25*time.Second); err != nil {
		return r, err
	}
	if err := pause(ctx, b.plan.Warm); err != nil {
		return r, err
	}
	ends := append(append([]int{}, client.family...), w.backend.family...)
	if err := b.timed(ctx, client, pids, ends, &r); err != nil {
		return r, err
	}
	if p == nil {
		return r, nil
	}
	m, err := meter.ReadMemory(pids)
	if err != nil {
		return r, err
	}
	r.RSS, r.PSS = float64(m.RSS), float64(m.PSS)
	if err := b.counted(ctx, client, pids, &r); err != nil || !b.costs {
		return r, err
	}
	return r, b.spend(ctx, client, p, &r)
}

func (p *proxy) target(w *world) netip.AddrPort {
	if p == nil {
		return w.backendAddr()
	}
	return p.address
}

// hangUp ends the client and lets the proxy see that.
func (b *bench) hangUp(client *process) {
	client.kill()
	time.Sleep(30 * time.Millisecond)
}

// timed is the window in which nothing is traced.
func (b *bench) timed(ctx context.Context, client *process, pids, ends []int, r *Run) error {
	if err := client.say("begin"); err != nil {
		return err
	}
	busy, err := meter.Busy()
	if err != nil {
		return err
	}
	used, err := meter.Read(pids)
	if err != nil {
		return err
	}
	endsUsed, err := meter.Read(ends)
	if err != nil {
		return err
	}
	wait := func() error { return pause(ctx, b.plan.Window) }
	if b.timing != nil {
		wait = func() error { return b.timing(client) }
	}
	if err := wait(); err != nil {
		return err
	}
	if err := client.say("end"); err != nil {
		return err
	}
	usedAfter, err := meter.Read(pids)
	if err != nil {
		return err
	}
	endsAfter, err := meter.Read(ends)
	if err != nil {
		return err
	}
	busyAfter, err := meter.Busy()
	if err != nil {
		return err
	}
	got, err := client.hear(ctx, answerLimit)
	if err != nil {
		return err
	}
	if got.Operations == 0 {
		return fmt.Errorf("nothing came through in %v", b.plan.Window)
	}
	n := float64(got.Operations)
	u := usedAfter.Sub(used)
	r.PerSecond = n / got.Elapsed
	r.P50, r.P99, r.P999 = float64(got.P50), float64(got.P99), float64(got.P999)
	r.ProxyCPU, r.MachineCPU, r.LoadCPU = float64(u.CPU)/n, float64(busyAfter-busy)/n, float64(endsAfter.Sub(endsUsed).CPU)/n
	r.Voluntary, r.Involuntary = float64(u.Voluntary)/n, float64(u.Involuntary)/n
	return nil
}

// counted is the window in which system calls are counted: apart, for counting
// slows each of them down, which would flatter whoever makes few.
func (b *bench) counted(ctx context.Context, client *process, pids []int, r *Run) error {
	calls, err := bpf.CountSyscalls()
	if err != nil {
		return err
	}
	defer calls.Close()
	if err := client.say("begin"); err != nil {
		return err
	}
	for _, pid := range pids {
		if err := calls.Watch(pid); err != nil {
			return err
		}
	}
	if err := pause(ctx, b.plan.Count); err != nil {
		return err
	}
	if err := client.say("end"); err != nil {
		return err
	}
	var sum uint64
	for _, pid := range pids {
		n, err := calls.Count(pid)
		if err != nil {
			return err
		}
		sum += n
	}
	got, err := client.hear(ctx, answerLimit)
	if err != nil {
		return err
	}
	if got.Operations == 0 {
		return fmt.Errorf("nothing came through in %v", b.plan.Count)
	}
	r.SystemCalls = float64(sum) / float64(got.Operations)
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
