package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/test/bench/forwarder"
	"github.com/sluice-proxy/sluice/test/bench/load"
	"github.com/sluice-proxy/sluice/test/bench/peers"
)

// The field's own table: what a forwarded message costs by nature of the call
// that forwards it. One connection, 1 KiB there and 1 KiB back.

var fieldCell = Cell{Setting{loopback, 2}, load.Requests, 1 << 10, 1}

var fieldLabels = map[string]string{
	"readwrite": "read(2), write(2)", "splice": "splice(2)", "aio": "AIO, io_submit", "uring": "io_uring",
	"sluice-off": "Sluice, relay", "sluice-always": "Sluice, sockmap",
}

func fieldKinds() (list []kind) {
	for _, name := range forwarder.Names() {
		list = append(list, kind{name: name, label: fieldLabels[name], env: leanly, needs: func(t tools) string { return t.self },
			args: func(t tools, v peers.Values, _ string) []string {
				return []string{t.self, "forward", name, v.Listen.String(), v.Server.String()}
			}})
	}
	for _, k := range kinds() {
		if label, ok := fieldLabels[k.name]; ok {
			k.label = label
			list = append(list, k)
		}
	}
	return list
}

// Spent is what was counted of one forwarder per message and per byte.
type Spent struct {
	// Wakeups of the forwarder's threads and of the kernel's workers, per message.
	Wakeups, WorkerWakeups float64
	// Of each forwarded byte: copied to user space, copied from it, and handed
	// on as a page.
	Received, Sent, Moved float64
	// Linear is the share of what the clients sent that lay in linear heads.
	Linear float64
}

// field measures the forwarders.
func (b *bench) field(ctx context.Context) (runs []Run, err error) {
	w, err := newWorld(ctx, fieldCell.Setting, filepath.Join(b.scratch, "field"), b.cpus, b.spawn, fieldKinds(), b.tools)
	if err != nil {
		return nil, err
	}
	defer w.close()
	costed := *b
	costed.costs = true
	err = costed.measure(ctx, w, fieldCell, func(r Run) { runs = append(runs, r) })
	return runs, err
}

// spend counts wake-ups and copies, in a window of their own.
func (b *bench) spend(ctx context.Context, client *process, p *proxy, r *Run) error {
	c, err := bpf.CountCosts()
	if err != nil {
		return err
	}
	defer c.Close()
	port := p.address.Port()
	pids := append([]int{bpf.Workers}, p.process.family...)
	if err := client.say("begin"); err != nil {
		return err
	}
	for _, pid := range pids {
		if err := c.Watch(pid); err != nil {
			return err
		}
	}
	if err := c.WatchPort(port); err != nil {
		return err
	}
	if err := pause(ctx, b.plan.Count); err != nil {
		return err
	}
	if err := client.say("end"); err != nil {
		return err
	}
	var sum [2]bpf.Cost // workers, forwarder
	for i, pid := range pids {
		n, err := c.Read(pid)
		if err != nil {
			return err
		}
		s := &sum[min(i, 1)]
		s.Wakeups += n.Wakeups
		s.Received, s.Sent, s.Moved = s.Received+n.Received, s.Sent+n.Sent, s.Moved+n.Moved
	}
	arrived, err := c.ReadPort(port)
	if err != nil {
		return err
	}
	if _, err := client.hear(ctx, answerLimit); err != nil {
		return err
	}
	// What the requests carried, seen at the same place and in the same moment.
	bytes := 2 * float64(arrived.Payload)
	if bytes == 0 {
		return fmt.Errorf("nothing came through in %v", b.plan.Count)
	}
	messages := bytes / float64(fieldCell.Size)
	r.Spent = &Spent{
		Wakeups: float64(sum[1].Wakeups) / messages, WorkerWakeups: float64(sum[0].Wakeups) / messages,
		Received: float64(sum[1].Received) / bytes, Sent: float64(sum[1].Sent) / bytes, Moved: float64(sum[0].Moved+sum[1].Moved) / bytes,
		Linear: quotient(float64(arrived.Linear), float64(arrived.Payload)),
	}
	return nil
}

// fieldTable shows it.
func (r *Result) fieldTable(b *strings.Builder) {
	m := &Measured{Cell: fieldCell, Runs: r.Field}
	if len(m.Runs) == 0 {
		return
	}
	fmt.Fprintf(b, "\n### What forwarding a message costs\n\n")
	fmt.Fprintf(b, "1 KiB there and 1 KiB back on one connection, by forwarders that do nothing else (`test/bench/forwarder`), and by Sluice on both of its paths. Per message; in the last three columns bytes per forwarded byte, by BPF at tracepoints.\n\n")
	fmt.Fprintf(b, "| | system calls | wake-ups of the forwarder | of kernel workers | CPU of the forwarder us | k op/s | copied to user space | copied from it | handed on as pages |\n|---|---|---|---|---|---|---|---|---|\n")
	var linear float64
	for _, k := range fieldKinds() {
		get := func(f func(Run) float64) float64 { return m.median(k.name, f) }
		spent := func(f func(Spent) float64) float64 {
			return get(func(r Run) float64 {
				if r.Spent == nil {
					return 0
				}
				return f(*r.Spent)
			})
		}
		if len(m.all(k.name, perSecond)) == 0 {
			fmt.Fprintf(b, "| %s | failed: %s |\n", k.label, strings.Join(m.errorsOf(k.name), "; "))
			continue
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %.1f | %s | %.2f | %.2f | %.2f |\n", k.label,
			m.perCall(get(func(r Run) float64 { return r.SystemCalls })),
			small(spent(func(s Spent) float64 { return s.Wakeups })), small(spent(func(s Spent) float64 { return s.WorkerWakeups })),
			get(func(r Run) float64 { return r.ProxyCPU })/2e3, m.rate(get(perSecond)),
			spent(func(s Spent) float64 { return s.Received }), spent(func(s Spent) float64 { return s.Sent }), spent(func(s Spent) float64 { return s.Moved }))
		linear = max(linear, spent(func(s Spent) float64 { return s.Linear }))
	}
	fmt.Fprintf(b, "\nA worker that forwards for sockmap copies the linear head of an skb and hands on the pages of the rest (`__skb_send_sock`); splice(2) copies the linear head into a page. On this link %.1f %% of the bytes lay in linear heads; a network card's driver may put all of a small packet there.\n", 100*linear)
}

func small(n float64) string {
	if n >= 0.1 || n == 0 {
		return fmt.Sprintf("%.2f", n)
	}
	return fmt.Sprintf("%.4f", n)
}
