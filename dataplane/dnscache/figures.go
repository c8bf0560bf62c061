package dnscache

import "github.com/sluice-proxy/sluice/api/stats"

// figures are a cache's, under Envoy's names.
type figures struct {
	scope, breakers                                            *stats.Scope
	attempt, success, failure, timeout                         *stats.Counter
	added, removed, changed, overflow, denied, pendingOverflow *stats.Counter
	hosts, open, remaining                                     *stats.Gauge
}

func newFigures(store *stats.Store, name string) *figures {
	sc, cb := store.Scope("dns_cache", name), store.Scope("dns_cache", name, "circuit_breakers")
	sc.Counter("cache_load") // of what a restart remembers
	return &figures{scope: sc, breakers: cb,
		attempt: sc.Counter("dns_query_attempt"), success: sc.Counter("dns_query_success"), failure: sc.Counter("dns_query_failure"), timeout: sc.Counter("dns_query_timeout"),
		added: sc.Counter("host_added"), removed: sc.Counter("host_removed"), changed: sc.Counter("host_address_changed"), overflow: sc.Counter("host_overflow"),
		denied: sc.Counter("dns_address_filter_out"), pendingOverflow: sc.Counter("dns_rq_pending_overflow"),
		hosts: sc.Gauge("num_hosts"), open: cb.Gauge("rq_pending_open"), remaining: cb.Gauge("rq_pending_remaining"),
	}
}

// show shows that n connections wait.
func (f *figures) show(n, limit uint32) {
	f.remaining.Set(uint64(limit - n))
	var open uint64
	if n == limit {
		open = 1
	}
	f.open.Set(open)
}
