package xds

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/xds/ads"
	"github.com/sluice-proxy/sluice/xds/transport"
)

// Demander is a Sink whose connections may want clusters that it does not have. It
// asks from any goroutine, and is told what became of each.
type Demander interface {
	OnDemand(ask func(api.Demand))
	Discovered(cluster string, d api.DemandOutcome)
}

// What fetches calls the waits for clusters on demand: of connections, and of the
// subscription.
const (
	demandWait  = "on demand"
	demandFetch = "on demand, first"
)

// demands are the clusters that connections asked for (ODCDS). Each name has a
// subscription, which is never given up, as in Envoy.
type demands struct {
	sink Demander // nil: nobody asks
	wake chan struct{}

	mu   sync.Mutex
	told []api.Demand

	// Run only from here.
	names   map[string]*demanded
	waiting int // of names
	figures *subscription
}

type demanded struct {
	own     ads.Source // a stream of its own; nil: the aggregated one
	waiting bool       // somebody waits
}

func (c *Client) followDemands() {
	c.demands = demands{wake: make(chan struct{}, 1), names: map[string]*demanded{}}
	d, ok := c.o.Sink.(Demander)
	if !ok {
		return
	}
	c.demands.sink = d
	d.OnDemand(func(q api.Demand) {
		n := &c.demands
		n.mu.Lock()
		n.told = append(n.told, q)
		n.mu.Unlock()
		select {
		case n.wake <- struct{}{}:
		default:
		}
	})
}

// demanded asks for what connections want.
func (c *Client) demanded() {
	n := &c.demands
	n.mu.Lock()
	told := n.told
	n.told = nil
	n.mu.Unlock()
	for _, q := range told {
		c.demand(q)
	}
	c.settleDemands()
}

func (c *Client) demand(q api.Demand) {
	d := c.demands.names[q.Cluster]
	if d == nil {
		d = &demanded{}
		c.demands.names[q.Cluster] = d
		c.demandFigures().started()
		if wait := q.Source.InitialFetchTimeout; wait > 0 {
			c.fetches.start(fetch{demandFetch, q.Cluster}, wait)
		}
		c.askOnDemand(q, d)
	}
	if !d.waiting {
		d.waiting = true
		c.demands.waiting++
		c.fetches.start(fetch{demandWait, q.Cluster}, max(q.Timeout, 1))
	}
}

// demandFigures are made when a listener first asks for them.
func (c *Client) demandFigures() *subscription {
	if c.demands.figures == nil {
		c.demands.figures = newSubscription(c.o.Stats.Scope("cluster_manager", "odcds"))
	}
	return c.demands.figures
}

func (c *Client) askOnDemand(q api.Demand, d *demanded) {
	if q.Source.Kind == api.FromGRPC {
		s, err := c.source(q.Source, transport.Service{}, clusterURL, "cluster_manager", "odcds", "control_plane")
		if err != nil {
			c.o.Log.Error("subscribe to a cluster on demand", "cluster", q.Cluster, "err", err)
			return
		}
		d.own = s
		s.Subscribe(clusterURL, []string{q.Cluster})
		c.run(s)
		return
	}
	if c.ads != nil {
		c.ads.Demand(clusterURL, q.Cluster)
	}
}

// settleDemands tells who waits for clusters that are in force now.
func (c *Client) settleDemands() {
	s := c.model.Published()
	if c.demands.waiting == 0 || s == nil {
		return
	}
	for name, d := range c.demands.names {
		if d.waiting && s.Clusters.Get(name) != nil {
			c.settleDemand(name, api.Available)
		}
	}
}

func (c *Client) settleDemand(name string, to api.DemandOutcome) {
	d := c.demands.names[name]
	if d == nil || !d.waiting {
		return
	}
	d.waiting = false
	c.demands.waiting--
	c.fetches.cancel(fetch{demandWait, name})
	c.demands.sink.Discovered(name, to)
}

// demandedFrom tells whether r came by a stream that is for a cluster on demand
// alone.
func (c *Client) demandedFrom(from ads.Source) bool {
	for _, d := range c.demands.names {
		if d.own == from && from != nil {
			return true
		}
	}
	return false
}

// countDemands counts a response for every cluster on demand that it is about, and
// tells who waits for one that is missing.
func (c *Client) countDemands(r *ads.Response, took time.Duration, err error) {
	about := func(name string) {
		d := c.demands.names[name]
		if d == nil || d.own != nil && d.own != r.From {
			return
		}
		c.fetches.cancel(fetch{demandFetch, name})
		if err == nil {
			c.demands.figures.accepted(r.Version, took)
		} else {
			c.demands.figures.attempt.Inc() // see count
		}
	}
	if len(c.demands.names) == 0 {
		return
	}
	for _, res := range r.Resources {
		about(res.Name)
	}
	for _, name := range r.Removed {
		about(name)
		c.settleDemand(name, api.Missing)
	}
	if err != nil {
		for _, d := range c.demands.names {
			if d.own == nil || d.own == r.From {
				c.demands.figures.rejection()
			}
		}
	}
}

// demandsDisconnected counts what the end of a stream is to clusters on demand.
func (c *Client) demandsDisconnected(from ads.Source) {
	for _, d := range c.demands.names {
		if d.own == from || d.own == nil && c.ads != nil && from == ads.Source(c.ads) {
			c.demands.figures.disconnected()
		}
	}
}

// demandLate is the end of a wait.
func (c *Client) demandLate(f fetch) {
	if f.url == demandFetch {
		c.demands.figures.timedOut()
		return
	}
	c.o.Log.Warn("cluster was not there in time", "cluster", f.name)
	c.settleDemand(f.name, api.Late)
}

// placeDemands says why the clusters on demand of a listener can come from
// nowhere.
func (c *Client) placeDemands(l *api.Listener) error {
	chains := l.FilterChains
	if l.DefaultFilterChain != nil {
		chains = append(slices.Clone(chains), l.DefaultFilterChain)
	}
	for _, fc := range chains {
		for i := range fc.Filters {
			p := fc.Filters[i].TCPProxy
			if p == nil || p.OnDemand == nil {
				continue
			}
			switch s := p.OnDemand.Source; s.Kind {
			case api.FromPath:
				if _, err := os.Stat(s.Path); err != nil {
					return fmt.Errorf("paths must refer to an existing path in the system: '%s' does not exist", s.Path)
				}
				return fmt.Errorf("on_demand.odcds_config: on-demand clusters come by DELTA_GRPC only")
			case api.FromGRPC:
				if c.o.Bootstrap.ControlPlanes[s.Cluster] == nil {
					return fmt.Errorf("envoy.config.core.v3.ApiConfigSource must have a statically defined non-EDS cluster: '%s' does not exist, was added via api, or is an EDS cluster", s.Cluster)
				}
			}
			c.demandFigures()
		}
	}
	return nil
}
