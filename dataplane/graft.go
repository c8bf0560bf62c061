package dataplane

import (
	"fmt"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/dataplane/selftest"
)

// The modes of --graft.
const (
	graftOff  = "off"
	graftAuto = "auto"
)

// prepareGraft loads the graft and tests it. Nil means that no pair is grafted, for
// the reason in the status. The thread is in the namespace of the pairs to come.
func prepareGraft(o *Options) (*bpf.Graft, api.GraftStatus, error) {
	status := api.GraftStatus{Mode: o.Graft}
	switch o.Graft {
	case "", graftOff:
		status.Mode, status.Reason = graftOff, "operator: graft off"
		return nil, status, nil
	case graftAuto:
	default:
		return nil, status, fmt.Errorf("read graft mode: %q is none of auto, off", o.Graft)
	}
	log := o.Log
	graft, err := bpf.LoadGraft(o.Concurrency)
	if err != nil {
		status.Reason = err.Error()
		log.Warn("graft is unavailable, no pair is grafted", "reason", err)
		return nil, status, nil
	}
	var ok bool
	if status.SelfTest, ok = selftest.RunGraft(graft, log); !ok {
		last := status.SelfTest[len(status.SelfTest)-1]
		status.Reason = "self-test: " + last.Name + ": " + last.Detail
		log.Error("graft failed its self-test, no pair is grafted", "step", last.Name, "detail", last.Detail)
		graft.Close()
		return nil, status, nil
	}
	status.Available = true
	return graft, status, nil
}

// flushGraft copies what the programs counted to the store, under `graft.`.
func (p *Plane) flushGraft() {
	if p.graft == nil {
		return
	}
	counted, err := p.graft.Counters()
	if err != nil {
		p.log.Error("read graft counters", "error", err)
		return
	}
	sc := p.stats.Scope("graft")
	for name, n := range counted {
		sc.Gauge(name).Set(n)
	}
	_, used, resting := p.graft.Sizes()
	sc.Gauge("grafts").Set(uint64(used))
	sc.Gauge("resting").Set(uint64(resting))
}
