package dataplane

import (
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/dataplane/pair"
	"github.com/sluice-proxy/sluice/dataplane/selftest"
	"golang.org/x/sys/unix"
)

// prepareSplice loads the kernel path and tests it. Nil means that every pair
// relays, for the reason in the status.
func prepareSplice(o *Options, mode pair.Mode) (*bpf.Splice, api.SpliceStatus) {
	log := o.Log
	status := api.SpliceStatus{Mode: mode.String()}
	if mode == pair.Off {
		status.Reason = "operator: splice off"
		return nil, status
	}
	splice, err := bpf.Load(o.Concurrency)
	if err != nil {
		status.Reason = err.Error()
		log.Warn("splice is unavailable, every connection is relayed", "reason", err)
		return nil, status
	}
	var ok bool
	if status.SelfTest, ok = selftest.Run(splice, log); !ok {
		last := status.SelfTest[len(status.SelfTest)-1]
		status.Reason = "self-test: " + last.Name + ": " + last.Detail
		log.Error("splice failed its self-test, every connection is relayed", "step", last.Name, "detail", last.Detail)
		splice.Close()
		return nil, status
	}
	budget := o.SpliceMemory
	if budget == 0 {
		budget = totalMemory() / memoryShare
	}
	splice.SetBudget(budget)
	status.Available = true
	return splice, status
}

// memoryShare of the machine's memory may be in backlogs, unless the operator
// says otherwise.
const memoryShare = 8

// totalMemory is the machine's, in bytes. What the verdict hands over is charged
// to no cgroup, so that no cgroup's limit would be the right one.
func totalMemory() uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 8 << 30
	}
	return info.Totalram * uint64(info.Unit)
}

// flushSplice copies what the verdict and the pairs counted to the store, under
// `splice.`.
func (p *Plane) flushSplice() {
	p.flushGraft()
	sc := p.spliceStats
	var total pair.Totals
	for _, c := range p.cores {
		total.Add(&c.Pairs.Counters)
	}
	for name, n := range total.Named() {
		sc.Gauge(name).Set(n)
	}
	if m, err := pair.TCPMemory(); err != nil {
		p.log.Error("read TCP's memory", "error", err)
	} else {
		sc.Gauge("tcp_memory_pages").Set(m.Used)
		sc.Gauge("tcp_memory_pressure_pages").Set(m.Pressure)
	}
	if p.splice == nil {
		return
	}
	limit, charged := p.splice.Budget()
	sc.Gauge("backlog_bytes").Set(charged)
	sc.Gauge("backlog_limit_bytes").Set(limit)
	counted, err := p.splice.Counters()
	if err != nil {
		p.log.Error("read splice counters", "error", err)
		return
	}
	for name, n := range counted {
		sc.Gauge(name).Set(n)
	}
}
