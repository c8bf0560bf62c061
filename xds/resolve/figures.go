package resolve

import (
	"errors"
	"sync"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
)

// Figures are Envoy's `dns.cares.*`, of the questions to DNS servers; they are shown
// from the first one on. Nil counts nothing.
type Figures struct {
	store *stats.Store
	once  sync.Once

	total, notFound, failure, timeouts *stats.Counter
	pending                            *stats.Gauge
}

// NewFigures makes them.
func NewFigures(store *stats.Store) *Figures { return &Figures{store: store} }

func (f *Figures) show() {
	sc := f.store.Scope("dns", "cares")
	sc.Counter("reinits") // there is no channel that would have to be made anew
	f.total, f.notFound, f.failure = sc.Counter("resolve_total"), sc.Counter("not_found"), sc.Counter("get_addr_failure")
	f.timeouts, f.pending = sc.Counter("timeouts"), sc.Gauge("pending_resolutions")
}

// New returns the resolver that c asks for, and counts what it does.
func (f *Figures) New(c api.Resolver) Resolver {
	if c.System {
		return byFamily{ask: system{retries: c.Retries}.addresses}
	}
	return byFamily{ask: newServers(c).addresses, figures: f}
}

// counted counts a question, and how it was answered.
func (f *Figures) counted(ask func() ([]Address, error)) ([]Address, error) {
	if f == nil {
		return ask()
	}
	f.once.Do(f.show)
	f.pending.Inc()
	defer f.pending.Dec()
	all, err := ask()
	f.total.Inc()
	switch late := (*timedOut)(nil); {
	case errors.As(err, &late):
		f.timeouts.Add(uint64(late.times))
	case err != nil:
		f.failure.Inc()
	case len(all) == 0:
		f.notFound.Inc()
	}
	return all, err
}

// timedOut is the error of a question that nobody answered in time, however often it
// was asked.
type timedOut struct {
	error
	times int
}

func (t *timedOut) Unwrap() error { return t.error }
