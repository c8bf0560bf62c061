package dataplane

import (
	"fmt"

	"github.com/sluice-proxy/sluice/api/stats"
)

// threadFigures are Envoy's of its threads: each counts the clusters that it has. Here
// they share one set.
type threadFigures []*stats.Gauge

func newThreadFigures(store *stats.Store, workers int) threadFigures {
	names := []string{"main_thread"}
	for i := range workers {
		names = append(names, fmt.Sprintf("worker_%d", i))
	}
	var f threadFigures
	for i, name := range names {
		path := []any{"thread_local_cluster_manager", name}
		if i > 0 {
			path[1] = stats.Infix{Prefix: "worker_", Tag: stats.Tag{Name: "envoy.worker_id", Value: name[len("worker_"):]}}
		}
		f = append(f, store.Scope(path...).Gauge("clusters_inflated"))
		f[i].Set(0)
	}
	store.Scope("listener_manager").Gauge("workers_pinned").Set(0) // none is bound to a processor
	return f
}

func (f threadFigures) clusters(n int) {
	for _, g := range f {
		g.Set(uint64(n))
	}
}
