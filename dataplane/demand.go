package dataplane

import (
	"sync"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/loop"
)

// demands are the connections that wait for clusters which are not in force.
type demands struct {
	mu      sync.Mutex
	ask     func(api.Demand) // nil: nobody can be asked
	waiting map[string]map[*waiter]struct{}
}

// waiter belongs to its worker.
type waiter struct {
	worker *loop.Worker
	done   func(api.DemandOutcome) // nil once it is told, or has given up
}

// OnDemand says who is asked for clusters, from any goroutine; ask must not wait.
// The answer is Discovered.
func (p *Plane) OnDemand(ask func(api.Demand)) {
	p.demands.mu.Lock()
	defer p.demands.mu.Unlock()
	p.demands.ask = ask
}

// Discovered tells all that wait for a cluster what became of it. One that is
// Available is in force.
func (p *Plane) Discovered(cluster string, d api.DemandOutcome) {
	p.demands.mu.Lock()
	waiting := p.demands.waiting[cluster]
	delete(p.demands.waiting, cluster)
	p.demands.mu.Unlock()
	for w := range waiting {
		w.worker.Post(func() {
			if done := w.done; done != nil {
				w.done = nil
				done(d)
			}
		})
	}
}

// demand calls done on the worker, whose thread this is, when it is known what
// became of d, unless cancel is called before.
func (p *Plane) demand(d api.Demand, on *loop.Worker, done func(api.DemandOutcome)) (cancel func()) {
	w := &waiter{worker: on, done: done}
	m := &p.demands
	m.mu.Lock()
	if m.waiting == nil {
		m.waiting = map[string]map[*waiter]struct{}{}
	}
	if m.waiting[d.Cluster] == nil {
		m.waiting[d.Cluster] = map[*waiter]struct{}{}
	}
	m.waiting[d.Cluster][w] = struct{}{}
	ask := m.ask
	m.mu.Unlock()
	if ask != nil {
		ask(d)
	}
	return func() {
		w.done = nil
		m.mu.Lock()
		defer m.mu.Unlock()
		if delete(m.waiting[d.Cluster], w); len(m.waiting[d.Cluster]) == 0 {
			delete(m.waiting, d.Cluster)
		}
	}
}
