package xds

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/xds/assemble"
	"github.com/sluice-proxy/sluice/xds/resolve"
)

// names are resolved off the loop: one goroutine for each name of each version of
// a cluster. What they find comes back as an event, as endpoints of EDS do, so that
// a snapshot has addresses only.
type names struct {
	running map[*api.Cluster]context.CancelFunc
	epoch   uint64 // of the model, when running was last brought up to date
	answers chan nameAnswer
	wg      sync.WaitGroup
	// resolver makes the resolvers.
	resolver func(api.Resolver) resolve.Resolver
}

// nameAnswer is what one look-up gave.
type nameAnswer struct {
	cluster *api.Cluster
	target  int
	addrs   []netip.Addr
	failed  error
}

func newNames(resolver func(api.Resolver) resolve.Resolver) names {
	return names{running: map[*api.Cluster]context.CancelFunc{}, answers: make(chan nameAnswer), resolver: resolver}
}

// completed is v with what the bootstrap says for clusters that do not say it
// themselves: whom to ask for names, and where connections come from.
func (c *Client) completed(v *api.Cluster) *api.Cluster {
	b := c.o.Bootstrap
	resolver := v.DNS != nil && v.DNS.Resolver == nil
	bind := v.Bind == nil && b.Bind != nil
	if !resolver && !bind {
		return v
	}
	cp := *v
	if bind {
		cp.Bind = b.Bind
	}
	if resolver {
		d := *v.DNS
		if d.Resolver = b.Resolver; d.Resolver == nil {
			d.Resolver = &api.Resolver{}
		}
		cp.DNS = &d
	}
	return &cp
}

// followNames starts and ends look-ups, so that the names that are wanted now are
// followed.
func (c *Client) followNames() {
	n := &c.names
	if c.ctx == nil || n.epoch == c.model.NamesEpoch() {
		return
	}
	n.epoch = c.model.NamesEpoch()
	want := c.model.Names()
	for v, stop := range n.running {
		if !want[v] {
			stop()
			delete(n.running, v)
		}
	}
	for v := range want {
		if n.running[v] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(c.ctx)
		n.running[v] = cancel
		figures, r := c.figures.dnsOf(v), n.resolver(*v.DNS.Resolver)
		for i, name := range assemble.Targets(v) {
			f := follower{cluster: v, target: i, name: name, resolver: r, attempts: figures.attempt, answers: n.answers}
			n.wg.Go(func() { f.run(ctx) })
		}
	}
}

// follower resolves one name again and again.
type follower struct {
	cluster  *api.Cluster
	target   int
	name     string
	resolver resolve.Resolver
	attempts *stats.Counter
	answers  chan<- nameAnswer
}

// errNoAddress is an answer without addresses where one is needed.
var errNoAddress = errors.New("no address")

func (f *follower) run(ctx context.Context) {
	d := f.cluster.DNS
	failures := 0
	for {
		f.attempts.Inc()
		found, err := f.resolver.Lookup(ctx, f.name, d.Family)
		if err == nil && len(found) == 0 && d.One {
			err = errNoAddress
		}
		failures++
		if err == nil {
			failures = 0
		}
		a := nameAnswer{cluster: f.cluster, target: f.target, failed: err}
		for _, one := range found {
			a.addrs = append(a.addrs, one.Addr)
		}
		select {
		case f.answers <- a:
		case <-ctx.Done():
			return
		}
		t := time.NewTimer(wait(d, found, failures))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// wait is how long until a name is resolved again: its TTL or the refresh rate
// with some jitter, or after failures anything up to the base, twice the base, …
func wait(d *api.DNS, found []resolve.Address, failures int) time.Duration {
	if failures > 0 {
		if d.Failure == nil {
			return d.Refresh
		}
		top := d.Failure.Max
		if n := failures - 1; n < 32 && d.Failure.Base<<n < top {
			top = d.Failure.Base << n
		}
		return time.Duration(rand.Int64N(int64(top) + 1))
	}
	next := d.Refresh
	if d.RespectTTL && len(found) > 0 {
		ttl := found[0].TTL
		for _, a := range found[1:] {
			if !d.One {
				ttl = min(ttl, a.TTL)
			}
		}
		if ttl > 0 {
			next = max(ttl, d.MinRefresh)
		}
	}
	if d.Jitter > 0 {
		next += time.Duration(rand.Int64N(int64(d.Jitter)))
	}
	return next
}

// answered puts in force what a name was resolved to.
func (c *Client) answered(ctx context.Context, a nameAnswer) {
	if c.names.running[a.cluster] == nil {
		return // it was told to stop while it had something to say
	}
	c.mu.Lock()
	changed := c.model.Answer(a.cluster, a.target, a.addrs, a.failed != nil)
	c.mu.Unlock()
	c.wantEndpoints() // the version before may have had them
	c.publish(ctx)
	f := c.figures.dnsOf(a.cluster)
	switch {
	case a.failed != nil:
		f.failure.Inc()
		c.o.Log.Debug("name not resolved", "cluster", a.cluster.Name, "err", a.failed)
	default:
		f.success.Inc()
		if !changed {
			f.noRebuild.Inc()
		}
	}
	c.warmed()
}
