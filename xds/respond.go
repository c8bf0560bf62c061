package xds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/xds/ads"
	"github.com/sluice-proxy/sluice/xds/assemble"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// Order in every handler, as Envoy 1.40 was seen to send: first what the update
// makes us ask for, then the CDS answers that became due, last the answer to the
// response itself.

// many resources leave so much garbage that the collector would come more than once.
const many = 500

func (c *Client) response(ctx context.Context, r *ads.Response) {
	if p := c.figures.planes[r.From]; p != nil && r.ControlPlane != "" {
		p.identifier.Set(r.ControlPlane)
	}
	if len(r.Resources) >= many && c.o.Burst != nil {
		c.o.Burst()
	}
	switch r.TypeURL {
	case clusterURL:
		c.clusters(ctx, r)
	case endpointURL:
		c.endpoints(ctx, r)
	case listenerURL:
		c.listeners(ctx, r)
	case extensionURL:
		c.extensions(ctx, r)
	case secretURL:
		c.takeSecrets(ctx, r)
	case runtimeURL:
		c.takeLayers(r)
	default:
		c.o.Log.Warn("response of a type that nobody asked for", "type", r.TypeURL)
	}
}

func always(string) bool { return true }

func (c *Client) clusters(ctx context.Context, r *ads.Response) {
	start := time.Now()
	err := r.Err
	if err == nil {
		err = c.updateClusters(ctx, r)
	}
	if r.From == c.cds {
		c.fetches.cancel(fetch{clusterURL, ""})
		c.count(c.figures.cds, r, start, err)
		c.cdsDone = true
	}
	c.countDemands(r, time.Since(start), err)
	starting := !c.ldsAsked
	if r.Delta {
		c.release() // older answers go out before what this one makes us ask
	}
	c.wantEndpoints()
	c.maybeListeners()
	// While it starts Envoy answers at once; later, when all is warm.
	if c.model.Warming() > 0 && !starting {
		if err == nil {
			r.From.Accept(r)
		}
		c.withhold(answer{r, err})
		r.From.Pause(clusterURL)
		return
	}
	c.withhold(answer{r, err})
	c.answerWithheld()
}

func (c *Client) updateClusters(ctx context.Context, r *ads.Response) error {
	u, notes, err := decode(r, resource.Cluster, c.model.HasCluster, always)
	c.figures.noted(notes, true)
	if err != nil {
		return err
	}
	for i := range u.Resources {
		if res := &u.Resources[i]; res.Value != nil {
			res.Dialling = dialling(res.Raw.GetValue())
			res.Value, res.Err = c.place(res.Value)
		}
	}
	u.Whole = !r.Delta
	c.timeToLive(r, u.Removed)
	return c.applyClusters(ctx, u, r.From == c.cds)
}

// applyClusters takes over u; cds says that it is CDS's, and not on demand alone.
func (c *Client) applyClusters(ctx context.Context, u assemble.Update[api.Cluster], cds bool) error {
	c.mu.Lock()
	res := c.model.UpdateClusters(u)
	c.mu.Unlock()
	c.figures.clusterAdded.Add(uint64(res.Added))
	c.figures.clusterModified.Add(uint64(res.Modified))
	c.figures.clusterRemoved.Add(uint64(res.Removed))
	if cds && len(res.Problems) == 0 && res.Added+res.Modified > 0 {
		c.figures.configReload.Inc()
		c.figures.configReloadTime.Set(uint64(time.Now().UnixMilli()))
	}
	for _, v := range res.Subscribed {
		c.again = c.again || c.model.Waiting(v.EDSKey())
		c.subscribed(v)
		c.fetches.cancel(fetch{endpointURL, v.EDSKey()}) // a new version, a new wait
	}
	c.publish(ctx)
	c.figures.warmingClusters.Set(uint64(c.model.Warming()))
	if res.Removed > 0 {
		c.figures.forget(func(name string) bool { return !c.model.Known(name) })
	}
	if !cds && len(res.Problems) == 1 {
		p := res.Problems[0]
		return badResources(fmt.Sprintf("Error adding/updating cluster %s - %s: %s", p.Name, p.Name, p.Err)) // od_cds_api_impl.cc
	}
	return rejection(clusterURL, res.Problems)
}

func (c *Client) endpoints(ctx context.Context, r *ads.Response) {
	if !r.Delta {
		r.From.Pause(endpointURL) // the answer says what else there is to say
	}
	err := r.Err
	if err == nil {
		err = c.updateEndpoints(ctx, r)
	}
	if err != nil {
		// Envoy tells every EDS subscription of a rejected response, and none
		// waits any longer.
		for _, e := range c.figures.eds {
			if e.from == r.From {
				e.rejection()
			}
		}
		c.o.Log.Warn("endpoints rejected", "version", r.Version, "nonce", r.Nonce, "err", err)
		c.mu.Lock()
		if key, _ := c.ownKey(r.From); key != "" {
			c.model.GiveUp(key)
		} else {
			c.model.GiveUpAll()
		}
		c.mu.Unlock()
	}
	// A cluster that is warm may have let go of another EDS name.
	c.wantEndpoints()
	c.publish(ctx)
	c.warmed()
	c.answer(r, err)
	r.From.Resume(endpointURL)
}

func (c *Client) updateEndpoints(ctx context.Context, r *ads.Response) error {
	has, wants := c.model.HasEndpoints, c.model.Wants
	key, v := c.ownKey(r.From)
	if v != nil {
		has = func(_ string, raw *anypb.Any) bool { return c.model.HasEndpoints(key, raw) }
		wants = func(name string) bool { return name == v.EDSName() }
		if isFile(r.From) {
			if err := theOnly(v.EDSName(), r); err != nil {
				return err
			}
		}
	}
	u, notes, err := decode(r, resource.Assignment, has, wants)
	c.figures.noted(notes, true)
	if err != nil {
		return err
	}
	if v != nil {
		for i := range u.Resources {
			u.Resources[i].Name = key
		}
		if slices.Contains(u.Removed, v.EDSName()) {
			u.Removed = []string{key}
		}
	}
	c.timeToLive(r, u.Removed)
	return c.applyEndpoints(ctx, u, r)
}

// theOnly is what Envoy says of a file that holds other endpoints than those asked for.
func theOnly(name string, r *ads.Response) error {
	for _, res := range r.Resources {
		if got, ok := firstString(res.Body.GetValue()); ok && got != "" && got != name {
			return fmt.Errorf("Unexpected EDS cluster (expecting %s): %s", resource.Short(name), resource.Short(got))
		}
	}
	return nil
}

// applyEndpoints takes over u, which r brought; r is nil if it is the end of a
// TTL.
func (c *Client) applyEndpoints(ctx context.Context, u assemble.Update[api.Assignment], r *ads.Response) error {
	c.mu.Lock()
	res := c.model.UpdateEndpoints(u)
	c.mu.Unlock()
	c.publish(ctx)
	took, version := time.Since(u.Now), ""
	if r != nil {
		version = r.Version
	}
	told := map[string]bool{}
	for _, e := range u.Resources {
		if e.Err != nil || e.Raw == nil || told[e.Name] {
			continue
		}
		told[e.Name] = true
		c.fetches.cancel(fetch{endpointURL, e.Name})
		for _, user := range c.model.EDSUsers(e.Name) {
			c.figures.of(user).arrived(version, took, res.Unmoved[e.Name], c.model.Hosts(e.Name) == 0)
		}
		c.believe(e.Name)
	}
	for _, name := range u.Removed {
		c.fetches.cancel(fetch{endpointURL, name})
		for _, user := range c.model.EDSUsers(name) {
			f := c.figures.of(user)
			f.accepted(version, took)
			f.empty.Inc()
		}
	}
	if r != nil && r.Delta {
		for _, p := range res.Problems {
			for _, user := range c.model.EDSUsers(p.Name) {
				c.figures.of(user).attempt.Inc() // see count
			}
		}
	}
	return rejection(endpointURL, res.Problems)
}

func (c *Client) listeners(ctx context.Context, r *ads.Response) {
	start := time.Now()
	c.fetches.cancel(fetch{listenerURL, ""})
	err := r.Err
	if err == nil {
		err = c.updateListeners(ctx, r)
	}
	c.count(c.figures.lds, r, start, err)
	c.wantExtensions()
	c.ldsDone = true
	c.maybeLive()
	c.answer(r, err)
}

func (c *Client) updateListeners(ctx context.Context, r *ads.Response) error {
	u, notes, err := decode(r, resource.Listener, c.model.HasListener, always)
	c.figures.noted(notes, true)
	if err != nil {
		return err
	}
	for i := range u.Resources {
		if res := &u.Resources[i]; res.Value != nil {
			if err := c.placeSecrets(res.Value.SecretRefs()); err != nil {
				res.Value, res.Err = nil, fmt.Errorf("transport_socket: %w", err)
			} else if err := c.placeDemands(res.Value); err != nil {
				res.Value, res.Err = nil, err
			} else if err := c.admit(res.Value.DNSCaches()); err != nil {
				res.Value, res.Err = nil, err
			} else if err := c.placeExtensions(res.Value); err != nil {
				res.Value, res.Err = nil, err
			}
		}
	}
	u.Whole = !r.Delta
	c.timeToLive(r, u.Removed)
	return c.applyListeners(ctx, u)
}

func (c *Client) applyListeners(ctx context.Context, u assemble.Update[api.Listener]) error {
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
	c.figures.inPlaceUpdated.Add(uint64(res.InPlace))
	return rejection(listenerURL, append(res.Problems, refused...))
}

func (c *Client) count(s *subscription, r *ads.Response, start time.Time, err error) {
	if err != nil {
		s.rejection()
		var resources badResources
		if r.Delta && errors.As(err, &resources) {
			// Envoy's delta subscription counts the delivery, then its failure.
			s.attempt.Inc()
		}
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
	c.maybeClusters()
	c.maybeListeners()
}

// withhold keeps an answer. In state of the world only the newest one goes out:
// its version and nonce stand for all before it (seen).
func (c *Client) withhold(a answer) {
	if !a.to.Delta {
		c.withheld = slices.DeleteFunc(c.withheld, func(w answer) bool { return w.to.From == a.to.From })
	}
	c.withheld = append(c.withheld, a)
}

// release answers what was withheld once nothing warms any more.
func (c *Client) release() {
	if c.model.Warming() == 0 {
		c.answerWithheld()
	}
}

func (c *Client) answerWithheld() {
	for _, a := range c.withheld {
		c.answer(a.to, a.err)
		if a.to.From != c.cds {
			a.to.From.Resume(clusterURL)
		}
	}
	c.withheld = nil
	if c.cds != nil {
		c.cds.Resume(clusterURL)
	}
}

func (c *Client) answer(r *ads.Response, err error) {
	if err != nil {
		r.From.Nack(r, err)
		return
	}
	c.mu.Lock()
	c.versions[r.TypeURL] = r.Version
	c.mu.Unlock()
	r.From.Ack(r)
}

// wantEndpoints tells EDS which names are wanted now, and starts the clock of
// those that are new.
func (c *Client) wantEndpoints() {
	c.wantSecrets()
	again := c.again
	c.again = false
	if c.edsEpoch == c.model.EDSEpoch() && !again {
		return
	}
	again = again && c.edsEpoch == c.model.EDSEpoch()
	c.edsEpoch = c.model.EDSEpoch()
	for _, name := range c.model.EDSKeys() {
		f := fetch{endpointURL, name}
		if c.model.Waiting(name) && !c.fetches.running(f) {
			c.fetches.start(f, c.edsTimeout(name))
		}
	}
	c.fetches.keep(func(f fetch) bool { return f.url != endpointURL || c.model.Waiting(f.name) })
	c.wantOwnEndpoints()
	switch {
	case c.ads == nil:
	case again:
		c.ads.Repeat(endpointURL)
	default:
		c.ads.Subscribe(endpointURL, c.model.EDSNames())
	}
}

// subscribed counts the start of a subscription to v's endpoints.
func (c *Client) subscribed(v *api.Cluster) {
	f := c.figures.of(v)
	f.from = c.edsSource(v)
	f.file = v.Source.Kind == api.FromPath
	f.started()
}

// edsTimeout is the longest that a cluster which waits for name wants to wait.
func (c *Client) edsTimeout(name string) time.Duration {
	var longest time.Duration
	for _, w := range c.model.Waiters(name) {
		if w.Source.InitialFetchTimeout == 0 {
			return 0
		}
		longest = max(longest, w.Source.InitialFetchTimeout)
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
		case demandWait, demandFetch:
			c.demandLate(f)
		case runtimeURL:
			c.layersLate(f.name)
		case listenerURL:
			c.figures.lds.timedOut()
			c.o.Log.Warn("no listeners within initial_fetch_timeout")
			c.ldsDone = true
			c.maybeLive()
		case extensionURL:
			e := c.figures.extensions[f.name]
			e.timedOut()
			e.fail.Inc()
			c.o.Log.Warn("no extension within initial_fetch_timeout", "name", e.name)
			c.giveUpExtension(f.name)
			c.listenersWarmed(ctx)
		case secretURL:
			c.secrets.all[f.name].timedOut()
			c.o.Log.Warn("no secret within initial_fetch_timeout", "name", shown(f.name))
			c.giveUpSecret(f.name)
			c.secretsRipe(ctx)
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
