package xds

import (
	"context"
	"time"

	"github.com/sluice-proxy/sluice/xds/ads"
	"github.com/sluice-proxy/sluice/xds/assemble"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// Order in every handler, as Envoy 1.40 was seen to send: first what the update
// makes us ask for, then the CDS answers that became due, last the answer to the
// response itself.

func (c *Client) response(ctx context.Context, r *ads.Response) {
	if r.ControlPlane != "" {
		c.figures.identifier.Set(r.ControlPlane)
	}
	switch r.TypeURL {
	case clusterURL:
		c.clusters(ctx, r)
	case endpointURL:
		c.endpoints(ctx, r)
	case listenerURL:
		c.listeners(ctx, r)
	default:
		c.o.Log.Warn("response of a type that nobody asked for", "type", r.TypeURL)
	}
}

func always(string) bool { return true }

func (c *Client) clusters(ctx context.Context, r *ads.Response) {
	start := time.Now()
	c.fetches.cancel(fetch{clusterURL, ""})
	err := r.Err
	if err == nil {
		err = c.updateClusters(ctx, r)
	}
	c.count(c.figures.cds, r, start, err)
	c.cdsDone = true
	starting := !c.ldsAsked
	c.maybeListeners()
	// While it starts Envoy answers at once; later, when all is warm.
	if c.model.Warming() > 0 && !starting {
		if err == nil {
			c.ads.Accept(r)
		}
		c.withhold(answer{r, err})
		return
	}
	c.release()
	c.answer(r, err)
}

func (c *Client) updateClusters(ctx context.Context, r *ads.Response) error {
	u, notes, err := decode(r, resource.Cluster, c.model.HasCluster, always)
	c.figures.noted(notes, true)
	if err != nil {
		return err
	}
	u.Whole = !r.Delta
	c.mu.Lock()
	res := c.model.UpdateClusters(u)
	c.mu.Unlock()
	c.figures.clusterAdded.Add(uint64(res.Added))
	c.figures.clusterModified.Add(uint64(res.Modified))
	c.figures.clusterRemoved.Add(uint64(res.Removed))
	if res.Added+res.Modified+res.Removed > 0 {
		c.figures.configReload.Inc()
		c.figures.configReloadTime.Set(uint64(time.Now().UnixMilli()))
		c.wantEndpoints()
	}
	c.publish(ctx)
	c.figures.warmingClusters.Set(uint64(c.model.Warming()))
	if res.Removed > 0 {
		c.figures.forget(func(name string) bool { return !c.model.Known(name) })
	}
	return rejection(r.TypeURL, res.Problems)
}

func (c *Client) endpoints(ctx context.Context, r *ads.Response) {
	err := r.Err
	if err == nil {
		err = c.updateEndpoints(ctx, r)
	}
	if err != nil {
		// Envoy tells every EDS subscription of a rejected response.
		for _, e := range c.figures.eds {
			e.rejection()
		}
		c.o.Log.Warn("endpoints rejected", "version", r.Version, "nonce", r.Nonce, "err", err)
	}
	c.warmed()
	c.answer(r, err)
}

func (c *Client) updateEndpoints(ctx context.Context, r *ads.Response) error {
	u, notes, err := decode(r, resource.Assignment, c.model.HasEndpoints, c.model.Wants)
	c.figures.noted(notes, true)
	if err != nil {
		return err
	}
	c.mu.Lock()
	res := c.model.UpdateEndpoints(u)
	c.mu.Unlock()
	for _, e := range u.Resources {
		if e.Err != nil {
			continue
		}
		c.fetches.cancel(fetch{endpointURL, e.Name})
	}
	// A cluster that was warm may have let go of another EDS name.
	c.wantEndpoints()
	c.publish(ctx)
	took := time.Since(u.Now)
	for _, e := range u.Resources {
		if e.Err != nil {
			continue
		}
		for _, user := range c.model.EDSUsers(e.Name) {
			f := c.figures.of(user)
			f.accepted(r.Version, took)
			if e.Same {
				f.noRebuild.Inc()
			}
		}
	}
	for _, name := range u.Removed {
		for _, user := range c.model.EDSUsers(name) {
			f := c.figures.of(user)
			f.accepted(r.Version, took)
			f.empty.Inc()
		}
	}
	return rejection(r.TypeURL, res.Problems)
}

func (c *Client) listeners(ctx context.Context, r *ads.Response) {
	start := time.Now()
	c.fetches.cancel(fetch{listenerURL, ""})
	err := r.Err
	if err == nil {
		err = c.updateListeners(ctx, r)
	}
	c.count(c.figures.lds, r, start, err)
	c.goLive()
	c.answer(r, err)
}

func (c *Client) updateListeners(ctx context.Context, r *ads.Response) error {
	u, notes, err := decode(r, resource.Listener, c.model.HasListener, always)
	c.figures.noted(notes, true)
	if err != nil {
		return err
	}
	u.Whole = !r.Delta
	c.mu.Lock()
	res := c.model.UpdateListeners(u)
	c.mu.Unlock()
	refused := c.publish(ctx)
	for _, p := range refused { // Envoy does not count them as added
		if p.Undone == assemble.Added {
			res.Added--
		} else {
			res.Modified--
		}
	}
	c.figures.listenerAdded.Add(uint64(res.Added))
	c.figures.listenerModified.Add(uint64(res.Modified))
	c.figures.listenerRemoved.Add(uint64(res.Removed))
	return rejection(r.TypeURL, append(res.Problems, refused...))
}

func (c *Client) count(s *subscription, r *ads.Response, start time.Time, err error) {
	if err != nil {
		s.rejection()
		c.o.Log.Warn("response rejected", "type", r.TypeURL, "version", r.Version, "nonce", r.Nonce, "err", err)
		return
	}
	s.accepted(r.Version, time.Since(start))
	c.o.Log.Debug("response accepted", "type", r.TypeURL, "version", r.Version, "resources", len(r.Resources), "removed", len(r.Removed))
}

// warmed does what waits for warm clusters, if none is left.
func (c *Client) warmed() {
	c.figures.warmingClusters.Set(uint64(c.model.Warming()))
	c.release()
	c.maybeListeners()
}

// withhold keeps an answer. In state of the world only the newest one goes out:
// its version and nonce stand for all before it (seen).
func (c *Client) withhold(a answer) {
	if !a.to.Delta {
		c.withheld = c.withheld[:0]
	}
	c.withheld = append(c.withheld, a)
}

// release answers what was withheld once nothing warms any more.
func (c *Client) release() {
	if c.model.Warming() > 0 {
		return
	}
	for _, a := range c.withheld {
		c.answer(a.to, a.err)
	}
	c.withheld = nil
}

func (c *Client) answer(r *ads.Response, err error) {
	if err != nil {
		c.ads.Nack(r, err)
		return
	}
	c.mu.Lock()
	c.versions[r.TypeURL] = r.Version
	c.mu.Unlock()
	c.ads.Ack(r)
}

// wantEndpoints tells EDS which names are wanted now, and starts the clock of
// those that are new.
func (c *Client) wantEndpoints() {
	if c.ads == nil || c.edsEpoch == c.model.EDSEpoch() {
		return
	}
	c.edsEpoch = c.model.EDSEpoch()
	names := c.model.EDSNames()
	for _, name := range names {
		if !c.model.Waiting(name) {
			continue
		}
		for _, user := range c.model.EDSUsers(name) {
			c.figures.of(user)
		}
		f := fetch{endpointURL, name}
		if !c.fetches.running(f) {
			c.fetches.start(f, c.edsTimeout(name))
		}
	}
	c.fetches.keep(func(f fetch) bool { return f.url != endpointURL || c.model.Waiting(f.name) })
	c.ads.Subscribe(endpointURL, names)
}

// edsTimeout is the longest that a cluster which waits for name wants to wait.
func (c *Client) edsTimeout(name string) time.Duration {
	var longest time.Duration
	for _, w := range c.model.Waiters(name) {
		if w.InitialFetchTimeout == 0 {
			return 0
		}
		longest = max(longest, w.InitialFetchTimeout)
	}
	return longest
}

// overdue gives up on what did not come in time.
func (c *Client) overdue(ctx context.Context) {
	for _, f := range c.fetches.due(time.Now()) {
		switch f.url {
		case clusterURL:
			c.figures.cds.timedOut()
			c.cdsDone = true
			c.o.Log.Warn("no clusters within initial_fetch_timeout")
		case listenerURL:
			c.figures.lds.timedOut()
			c.o.Log.Warn("no listeners within initial_fetch_timeout")
			c.goLive()
		case endpointURL:
			for _, user := range c.model.EDSUsers(f.name) {
				c.figures.of(user).timedOut()
			}
			c.o.Log.Warn("no endpoints within initial_fetch_timeout", "name", f.name)
			c.mu.Lock()
			c.model.GiveUp(f.name)
			c.mu.Unlock()
		}
	}
	c.wantEndpoints()
	c.publish(ctx)
	c.warmed()
}
