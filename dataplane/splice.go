package dataplane

import (
	"log/slog"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/dataplane/pair"
	"github.com/sluice-proxy/sluice/dataplane/selftest"
)

// prepareSplice loads the kernel path and tests it. Nil means that every pair
// relays, for the reason in the status.
func prepareSplice(workers int, mode pair.Mode, log *slog.Logger) (*bpf.Splice, api.SpliceStatus) {
	status := api.SpliceStatus{Mode: mode.String()}
	if mode == pair.Off {
		status.Reason = "operator: splice off"
		return nil, status
	}
	splice, err := bpf.Load(workers)
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
	status.Available = true
	return splice, status
}

// flushSplice copies what the verdict and the pairs counted to the store, under
// `splice.`.
func (p *Plane) flushSplice() {
	sc := p.spliceStats
	var total pair.Totals
	for _, c := range p.cores {
		total.Add(&c.Pairs.Counters)
	}
	for name, n := range total.Named() {
		sc.Gauge(name).Set(n)
	}
	if p.splice == nil {
		return
	}
	counted, err := p.splice.Counters()
	if err != nil {
		p.log.Error("read splice counters", "error", err)
		return
	}
	for name, n := range counted {
		sc.Gauge(name).Set(n)
	}
}
