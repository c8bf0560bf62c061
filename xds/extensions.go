package xds

import (
	"context"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/xds/ads"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// extensionFigures are those of one discovered filter.
type extensionFigures struct {
	*subscription
	reload, fail *stats.Counter
	scope        *stats.Scope
}

func (f *figures) extension(name string) *extensionFigures {
	e := f.extensions[name]
	if e == nil {
		sc := f.store.Scope("extension_config_discovery", "network_filter", name)
		e = &extensionFigures{subscription: newSubscription(sc), reload: sc.Counter("config_reload"), fail: sc.Counter("config_fail"), scope: sc}
		sc.Counter("config_conflict") // never moves in Envoy 1.40 either
		f.extensions[name] = e
		e.started()
	}
	return e
}

// wantExtensions tells ECDS which names are wanted now. Envoy asks for each filter
// as it comes across it, so new names are asked for one by one.
func (c *Client) wantExtensions() {
	c.wantSecrets()
	if c.ecdsEpoch == c.model.ExtensionEpoch() {
		return
	}
	c.ecdsEpoch = c.model.ExtensionEpoch()
	names := c.model.ExtensionNames()
	for name, e := range c.figures.extensions {
		if !c.model.WantsExtension(name) {
			delete(c.figures.extensions, name)
			c.fetches.cancel(fetch{extensionURL, name})
			e.scope.Release()
		}
	}
	if c.ads == nil {
		return
	}
	for i, name := range names {
		if c.figures.extensions[name] != nil {
			continue
		}
		c.figures.extension(name)
		c.ads.Subscribe(extensionURL, names[:i+1])
		if d := c.model.ExtensionTimeout(name); d > 0 {
			c.fetches.start(fetch{extensionURL, name}, d)
		}
	}
	c.ads.Subscribe(extensionURL, names)
}

func (c *Client) extensions(ctx context.Context, r *ads.Response) {
	err := r.Err
	if err == nil {
		err = c.updateExtensions(ctx, r)
	}
	if err != nil {
		for _, e := range c.figures.extensions {
			e.rejection()
			e.fail.Inc()
		}
		c.o.Log.Warn("extensions rejected", "version", r.Version, "nonce", r.Nonce, "err", err)
		c.mu.Lock()
		c.model.GiveUpExtension("", time.Now())
		c.mu.Unlock()
	}
	c.listenersWarmed(ctx)
	c.answer(r, err)
}

func (c *Client) updateExtensions(ctx context.Context, r *ads.Response) error {
	u, notes, err := decode(r, resource.Extension, c.model.HasExtension, c.model.WantsExtension)
	c.figures.noted(notes, true)
	if err != nil {
		return err
	}
	for i := range u.Resources {
		if e := &u.Resources[i]; e.Value != nil && e.Value.Filter.SNIForwardProxy != nil {
			if err := c.admit([]*api.DNSCache{e.Value.Filter.SNIForwardProxy.Cache}); err != nil {
				e.Value, e.Err = nil, err
			}
		}
	}
	c.mu.Lock()
	res := c.model.UpdateExtensions(u)
	c.mu.Unlock()
	bad := map[string]bool{}
	for _, p := range res.Problems {
		bad[p.Name] = true
		if r.Delta {
			c.figures.extension(p.Name).attempt.Inc() // see count
		}
	}
	took := time.Since(u.Now)
	accepted := func(name string) {
		if c.model.WantsExtension(name) && !bad[name] {
			c.fetches.cancel(fetch{extensionURL, name})
			c.figures.extension(name).accepted(r.Version, took)
		}
	}
	for _, e := range u.Resources {
		if e.Raw != nil {
			accepted(e.Name)
		}
	}
	for _, name := range u.Removed {
		accepted(name)
	}
	for _, name := range res.Changed {
		c.figures.extension(name).reload.Inc()
	}
	return rejection(extensionURL, res.Problems)
}

// listenersWarmed publishes what no longer waits for extensions.
func (c *Client) listenersWarmed(ctx context.Context) {
	for _, p := range c.publish(ctx) {
		// Its ACK is long gone: the log and the dump tell.
		c.o.Log.Error("listener refused after it was warm", "listener", p.Name, "err", p.Err)
	}
	c.wantExtensions()
	c.maybeLive()
}

// Unready is a listener that waits, with what Envoy calls the things that it waits
// for.
type Unready struct {
	Listener string
	Targets  []string
}

// Unready lists what is warming, for /init_dump; sorted.
func (c *Client) Unready() []Unready {
	c.mu.RLock()
	defer c.mu.RUnlock()
	waiting := c.model.Unready()
	var out []Unready
	for _, v := range c.model.Listeners() {
		if names := waiting[v.Name]; len(names) > 0 {
			out = append(out, Unready{Listener: v.Name, Targets: names})
		}
	}
	return out
}
