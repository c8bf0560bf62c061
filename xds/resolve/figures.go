package resolve

import (
	"context"
	"errors"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
)

// Figures are Envoy's `dns.cares.*`, of the questions to DNS servers. Nil counts
// nothing.
type Figures struct {
	total, notFound, failure, timeouts *stats.Counter
	pending                            *stats.Gauge
}

// NewFigures makes them.
func NewFigures(store *stats.Store) *Figures {
	sc := store.Scope("dns", "cares")
	sc.Counter("reinits") // there is no channel that would have to be made anew
	return &Figures{
		total: sc.Counter("resolve_total"), notFound: sc.Counter("not_found"), failure: sc.Counter("get_addr_failure"),
		timeouts: sc.Counter("timeouts"), pending: sc.Gauge("pending_resolutions"),
	}
}

// New returns the resolver that c asks for, and counts what it does.
func (f *Figures) New(c api.Resolver) Resolver {
	if c.System {
		return byFamily(system{retries: c.Retries}.addresses)
	}
	return byFamily(f.counted(newServers(c).addresses))
}

// counted counts the questions for one family, as c-ares answers them.
func (f *Figures) counted(ask byFamily) byFamily {
	if f == nil {
		return ask
	}
	return func(ctx context.Context, name string, six bool) ([]Address, error) {
		f.pending.Inc()
		defer f.pending.Dec()
		all, err := ask(ctx, name, six)
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
}

// timedOut is the error of a question that nobody answered in time, however often it
// was asked.
type timedOut struct {
	error
	times int
}

func (t *timedOut) Unwrap() error { return t.error }
