package dataplane

import (
	"fmt"
	"sync"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/selftest"
)

// The modes of --graft.
const (
	graftOff  = "off"
	graftAuto = "auto"
)

// grafter loads the graft, and tests it, when the first pair has shown that it lasts:
// that takes some tenths of a second of CPU, which a proxy that has no such pair is
// spared.
type grafter struct {
	o    *Options
	low  *bpf.Low
	once sync.Once
	done sync.WaitGroup

	mu     sync.Mutex
	graft  *bpf.Graft // nil: not loaded, or unfit
	status api.GraftStatus
}

// newGrafter reads the mode. It is for the network namespace of the process.
func newGrafter(o *Options) (*grafter, error) {
	g := &grafter{o: o, status: api.GraftStatus{Mode: graftOff, Reason: "operator: graft off"}}
	switch o.Graft {
	case "", graftOff:
		return g, nil
	case graftAuto:
	default:
		return nil, fmt.Errorf("read graft mode: %q is none of auto, off", o.Graft)
	}
	g.status = api.GraftStatus{Mode: graftAuto, Reason: "no connection has lasted long enough to ask for it"}
	var err error
	if g.low, err = bpf.KeepLow(); err != nil {
		return nil, fmt.Errorf("prepare graft: %w", err)
	}
	return g, nil
}

// wanted tells whether pairs are grafted once the graft is there.
func (g *grafter) wanted() bool { return g.low != nil }

// want loads the graft beside the workers, once, and tells each of them of it, or that
// there is none.
func (g *grafter) want(cores []*filter.Core) {
	g.once.Do(func() {
		g.done.Go(func() {
			graft, status := g.load()
			g.mu.Lock()
			g.graft, g.status = graft, status
			g.mu.Unlock()
			for _, c := range cores {
				c.Worker.Do(func() {
					if graft == nil {
						c.Pairs.NoGraft()
					} else if err := c.Pairs.UseGraft(graft, true); err != nil {
						g.o.Log.Error("use graft", "worker", c.Worker.ID, "error", err)
					}
				})
			}
		})
	})
}

// selfTests is how often the self-test is tried: a machine that stood still, or a
// process that was stopped in the middle of it, says nothing of the kernel.
const selfTests = 3

func (g *grafter) load() (*bpf.Graft, api.GraftStatus) {
	status, log := api.GraftStatus{Mode: graftAuto}, g.o.Log
	graft, err := bpf.LoadGraft(g.o.Concurrency, g.low)
	if err != nil {
		status.Reason = err.Error()
		log.Warn("graft is unavailable, no pair is grafted", "reason", err)
		return nil, status
	}
	ok := false
	for range selfTests {
		if status.SelfTest, ok = selftest.RunGraft(graft, log); ok {
			break
		}
	}
	if !ok {
		last := status.SelfTest[len(status.SelfTest)-1]
		status.Reason = "self-test: " + last.Name + ": " + last.Detail
		log.Error("graft failed its self-test, no pair is grafted", "step", last.Name, "detail", last.Detail)
		graft.Close()
		return nil, status
	}
	status.Available = true
	return graft, status
}

// now is the graft, if it is loaded, and what there is to say of it.
func (g *grafter) now() (*bpf.Graft, api.GraftStatus) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.graft, g.status
}

// close takes the programs away, after the workers were closed.
func (g *grafter) close() error {
	g.once.Do(func() {}) // nobody wants it any more
	g.done.Wait()
	if graft, _ := g.now(); graft != nil {
		return graft.Close()
	}
	if g.low != nil {
		g.low.Close()
	}
	return nil
}

// flushGraft copies what the programs counted to the store, under `graft.`.
func (p *Plane) flushGraft() {
	graft, _ := p.graft.now()
	if graft == nil {
		return
	}
	counted, err := graft.Counters()
	if err != nil {
		p.log.Error("read graft counters", "error", err)
		return
	}
	sc := p.stats.Scope("graft")
	for name, n := range counted {
		sc.Gauge(name).Set(n)
	}
	_, used, resting := graft.Sizes()
	sc.Gauge("grafts").Set(uint64(used))
	sc.Gauge("resting").Set(uint64(resting))
}
