// Package torture drives pairs through everything that peers and networks do to
// them, while their paths are changed under them at random moments, and checks
// every byte by its position. A seed says what each connection does; what the
// scheduler makes of it, it cannot say.
package torture

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/dataplane/pair"
)

// Config says what to do.
type Config struct {
	Seed uint64
	Time time.Duration
	// Connections at once.
	Connections int
	// Graft has pairs grafted, and never spliced.
	Graft bool
	// Soak has many short connections over wires that lose nothing, and asks for
	// grafts only.
	Soak bool
	// Wires are those whose name has it in; all by default.
	Wires string
	Log   *slog.Logger
	// Progress, if set, is told of the state every ten seconds.
	Progress func(string)
}

// workers of the proxy under torture: the rule has its say on the one, and the
// kernel path is always wanted on the other.
var workerModes = []pair.Mode{pair.Auto, pair.Always}

// run is one torture.
type run struct {
	Config
	splice *bpf.Splice
	wires  []*wire
	proxy  *proxy
	tally  tally
	failed atomic.Bool

	mu       sync.Mutex
	failures []string
	watched  map[*connection]*sight
}

// maxFailures are told; then the run is stopped.
const maxFailures = 10

// Run tortures. An error says that it could not; failures are in the report.
func Run(cfg Config) (_ *Report, err error) {
	r := &run{Config: cfg}
	if !r.Graft {
		if r.splice, err = bpf.Load(len(workerModes)); err != nil {
			return nil, err
		}
		defer r.splice.Close()
		if r.proxy, err = newProxy(r, nil); err != nil {
			return nil, err
		}
		defer r.proxy.close()
	}
	if r.wires, err = r.makeWires(); err != nil {
		return nil, err
	}
	began := time.Now()
	over := r.watchdog()
	r.everything(began.Add(cfg.Time))
	over()
	report := &Report{Seed: cfg.Seed, Time: time.Since(began), Pairs: map[string]uint64{}, Programs: map[string]uint64{}}
	if r.proxy != nil {
		r.proxy.into(report)
	}
	for _, w := range r.wires {
		if w.via != r.proxy {
			w.via.into(report)
			w.via.close()
		}
		report.Faults = append(report.Faults, w.close()...)
	}
	r.check(report)
	r.mu.Lock()
	report.Failures = r.failures
	r.mu.Unlock()
	r.tally.into(report)
	return report, nil
}

// everything keeps so many connections going until the time is over.
func (r *run) everything(until time.Time) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, r.Connections)
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for n := uint64(0); time.Now().Before(until) && !r.failed.Load(); n++ {
		select {
		case slots <- struct{}{}:
		case <-tick.C:
			if r.Progress != nil {
				r.Progress(r.tally.line())
			}
			n--
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			random := rand.New(rand.NewPCG(r.Seed, n))
			w := r.wires[random.IntN(len(r.wires))]
			s := draw
			if r.Soak {
				s = brief
			}
			r.connection(n, w, s(random, w), random)
		})
	}
	wg.Wait()
}

// fail notes what went wrong.
func (r *run) fail(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.failures) < maxFailures {
		r.failures = append(r.failures, fmt.Sprintf(format, args...))
	}
	if len(r.failures) == maxFailures {
		r.failed.Store(true)
	}
}

// check looks at what is left when every connection has ended.
func (r *run) check(report *Report) {
	// A pair whose one end has died may owe the other what waits in the kernel
	// behind bytes for the dead one; after a time it is reset. Nothing else may
	// make the ledger differ.
	if faults, stuck := report.Pairs["faults"], report.Pairs["stuck"]; faults != stuck {
		r.fail("%d pairs were reset because bytes did not add up, %d of them stuck", faults, stuck)
	}

	if r.splice == nil {
		return
	}
	intercepted, targets, slots := r.splice.Sizes()
	if intercepted+targets+slots+r.splice.InUse() != 0 {
		r.fail("left over: intercepted %d, targets %d, slots %d, in use %d", intercepted, targets, slots, r.splice.InUse())
	}
}
