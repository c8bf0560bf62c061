package upstream

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/balance"
	"github.com/sluice-proxy/sluice/dataplane/tls"
)

// Pick chooses the host of a new connection and counts the connection as being
// opened, or as waiting for that (Connection.Waits); the caller calls Connected,
// Failed or GivenUp on what it gets. worker is the number of the worker whose thread
// this is: workers do not wait for each other. For others there is PickAside.
func (u *Cluster) Pick(worker int, a *balance.Asked) (Picked, error) {
	return u.Choose(worker, a).Open()
}

// Choice is a host that was chosen, and not yet connected to; without a Host there
// is none that could be.
type Choice struct {
	Host   *Host
	err    error // why there is none
	view   *view
	worker int
	member bool // of the cluster that was asked, whose own limit is not the host's
}

// Choose is the choice of Pick alone.
func (u *Cluster) Choose(worker int, a *balance.Asked) Choice {
	v := u.view.Load()
	if v.resources.full() { // before there is a host, as in Envoy
		return u.overflow()
	}
	picked, ok := u.choose(worker, v.set, a)
	if !ok || v.config.ByName != nil { // whoever has no name to call a host by gets none
		return u.none()
	}
	h, _ := picked.(*Host)
	return Choice{Host: h, view: v, worker: worker}
}

// none counts that there is no host.
func (u *Cluster) none() Choice {
	u.Stats.NoneHealthy.Inc()
	return Choice{err: ErrNoHealthyHost}
}

// overflow counts a connection that the cluster's limit does not let in.
func (u *Cluster) overflow() Choice {
	u.Stats.Overflow.Inc()
	return Choice{err: ErrConnectionOverflow}
}

// TLS is what originates it; nil: it is in the clear.
func (c Choice) TLS() *tls.Client { return c.view.sockets.of(c.Host) }

// Open counts a connection to the host as being opened, or as waiting for that.
func (c Choice) Open() (Picked, error) {
	switch {
	case c.Host == nil:
		return Picked{}, c.err
	case c.member:
		return c.Host.cluster.enter(c.view, c.Host, c.worker, false)
	}
	return c.Host.cluster.open(c.view, c.Host, c.worker)
}

// open counts a connection to h. No other worker may have taken the last that the
// cluster's limit leaves.
func (u *Cluster) open(v *view, h *Host, worker int) (Picked, error) {
	if !v.resources.takeActive() {
		return Picked{}, u.overflow().err
	}
	return u.enter(v, h, worker, true)
}

// enter has a connection to h opened, or wait for that; taken says that the cluster
// counts it already.
func (u *Cluster) enter(v *view, h *Host, worker int, taken bool) (Picked, error) {
	s, r := u.Stats, v.resources
	if !r.takePending() {
		if taken {
			r.giveActive()
		}
		s.PendingOverflow.Inc()
		return Picked{}, ErrPendingOverflow
	}
	if u.near.Sheds != nil && u.near.Sheds() {
		r.givePending()
		if taken {
			r.giveActive()
		}
		s.PendingTotal.Inc()
		return Picked{}, ErrPendingOverflow
	}
	if v.config.SocketFor(h.Endpoint()).Proxy != nil {
		worker = -1 // nobody else may have a connection that told of this client
	}
	s.PendingTotal.Inc()
	h.rqPending.Add(1)
	p := h.pools.of(worker, r)
	c := Connection{Host: h, pool: p, held: u.holders.Hold()}
	if len(p.waiting) > 0 {
		if c.waits = true; taken {
			r.giveActive()
		}
	} else {
		in, _ := p.enter(h, taken)
		c.waits = !in
	}
	return Picked{c, v.sockets.of(h)}, nil
}

// PickAside is Pick for goroutines that are no worker's.
func (u *Cluster) PickAside() (Picked, error) { return u.Pick(-1, &balance.Asked{}) }

func (u *Cluster) choose(worker int, set *balance.Set, a *balance.Asked) (balance.Host, bool) {
	if worker >= 0 {
		return set.Pick(u.pickers.of(worker), a)
	}
	u.pickers.mu.Lock()
	defer u.pickers.mu.Unlock()
	if u.pickers.others == nil {
		u.pickers.others = balance.NewPicker()
	}
	return set.Pick(u.pickers.others, a)
}

// pickers are the workers' own parts of the balancer, made when they first pick.
type pickers struct {
	byWorker atomic.Pointer[[]*balance.Picker]

	mu     sync.Mutex
	others *balance.Picker // of all who are no worker
}

func (p *pickers) of(worker int) *balance.Picker {
	if all := p.byWorker.Load(); all != nil && worker < len(*all) && (*all)[worker] != nil {
		return (*all)[worker]
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var next []*balance.Picker
	if all := p.byWorker.Load(); all != nil {
		next = append(next, *all...)
	}
	for len(next) <= worker {
		next = append(next, nil)
	}
	next[worker] = balance.NewPicker()
	p.byWorker.Store(&next)
	return next[worker]
}

// newSet makes what picks of v need.
func (u *Cluster) newSet(v *view) *balance.Set {
	as := v.config.Assignment
	c := balance.Config{
		Balancing: &v.config.Balancing, PanicThreshold: v.config.PanicThreshold,
		Overprovisioning: as.OverprovisioningFactor, WeightedHealth: as.WeightedHealth,
		Home: u.near.Home, Threads: u.near.Threads, Runtime: u.near.Runtime, Stats: u.Stats.balance, ActiveTotal: u.Stats.RqActive.Value, Now: u.now,
	}
	for _, l := range as.Localities {
		if l.Weight > 0 {
			if c.Weights == nil {
				c.Weights = map[balance.Spot]uint32{}
			}
			c.Weights[balance.Spot{Priority: l.Priority, Place: api.Place{Region: l.Region, Zone: l.Zone, SubZone: l.SubZone}}] = l.Weight
		}
	}
	if local := u.near.Local; local != nil && v.config.Name != u.near.Name {
		c.Local = func() *balance.Set {
			if l := local(); l != nil {
				return l.view.Load().set
			}
			return nil
		}
	}
	hosts := make([]balance.Host, len(v.hosts))
	for i, h := range v.hosts {
		hosts[i] = h
	}
	var before *balance.Set
	if old := u.view.Load(); old != nil {
		before = old.set
	}
	return balance.New(c, hosts, before)
}

// now is the cluster's clock, which balancers compare with Host.HealthySince.
func (u *Cluster) now() int64 { return int64(time.Since(u.born)) }
