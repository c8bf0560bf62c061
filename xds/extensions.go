package xds

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/xds/ads"
	"github.com/sluice-proxy/sluice/xds/assemble"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// extensionFigures are those of one discovered filter, with what feeds it.
type extensionFigures struct {
	feed
	reload, fail *stats.Counter
}

func (c *Client) addExtension(r assemble.ExtensionRef) *extensionFigures {
	kind := "network_filter"
	if r.Listener {
		kind = "tcp_listener_filter"
	}
	sc := c.o.Stats.Scope("extension_config_discovery", kind, r.Name)
	e := &extensionFigures{feed: feed{subscription: newSubscription(sc), scope: sc, name: r.Name}, reload: sc.Counter("config_reload"), fail: sc.Counter("config_fail")}
	sc.Counter("config_conflict") // never moves in Envoy 1.40 either
	c.figures.extensions[r.Key] = e
	e.file = r.Source.Kind == api.FromPath
	e.started()
	if err := e.place(c, r.Source, extensionURL, "extension_config_discovery", kind, r.Name, "control_plane"); err != nil {
		c.o.Log.Error("subscribe to extension", "name", r.Name, "err", err)
	}
	return e
}

// placeExtensions says why configurations of filters can be had from nowhere, in
// Envoy's words.
func (c *Client) placeExtensions(l *api.Listener) error {
	var cause error
	assemble.Discoveries(l, func(_ string, d *api.FilterDiscovery) {
		switch s := d.Source; s.Kind {
		case api.FromADS, api.FromSelf:
			if c.ads == nil {
				cause = fmt.Errorf("config_source.ads: dynamic_resources.ads_config is not set")
			}
		case api.FromPath:
			if _, err := os.Stat(s.Path); err != nil {
				cause = fmt.Errorf("config_source.path_config_source.path: paths must refer to an existing path in the system: '%s' does not exist", s.Path)
			}
		case api.FromGRPC, api.FromREST:
			if c.o.Bootstrap.ControlPlanes[s.Cluster] == nil {
				cause = fmt.Errorf("config_source.api_config_source: envoy.config.core.v3.ApiConfigSource must have a statically defined non-EDS cluster: '%s' does not exist, was added via api, or is an EDS cluster", s.Cluster)
			}
		}
	})
	return cause
}

// wantExtensions tells ECDS which names are wanted now. Envoy asks for each filter
// as it comes across it, so new names are asked for one by one.
func (c *Client) wantExtensions() {
	c.wantSecrets()
	if c.ecdsEpoch == c.model.ExtensionEpoch() {
		return
	}
	c.ecdsEpoch = c.model.ExtensionEpoch()
	for key, e := range c.figures.extensions {
		if !c.model.WantsExtension(key) {
			delete(c.figures.extensions, key)
			c.fetches.cancel(fetch{extensionURL, key})
			e.drop(c)
		}
	}
	var shared []string
	for _, r := range c.model.ExtensionRefs() {
		e := c.figures.extensions[r.Key]
		known := e != nil
		if !known {
			e = c.addExtension(r)
			if d := c.model.ExtensionTimeout(r.Key); d > 0 {
				c.fetches.start(fetch{extensionURL, r.Key}, d)
			}
		}
		if e.own || slices.Contains(shared, r.Name) {
			continue
		}
		shared = append(shared, r.Name)
		if !known && c.ads != nil {
			c.ads.Subscribe(extensionURL, slices.Clone(shared))
		}
	}
	if c.ads != nil && (len(shared) > 0 || c.extensionsAsked) {
		c.extensionsAsked = true
		c.ads.Subscribe(extensionURL, append([]string{}, shared...))
	}
}

// theirExtensions are the keys of filters that are fed by from.
func (c *Client) theirExtensions(from ads.Source) []string {
	var keys []string
	for key, e := range c.figures.extensions {
		if e.from == from && from != nil {
			keys = append(keys, key)
		}
	}
	return keys
}

func (c *Client) extensions(ctx context.Context, r *ads.Response) {
	err := r.Err
	if err == nil {
		err = c.updateExtensions(r)
	}
	if err != nil {
		c.o.Log.Warn("extensions rejected", "version", r.Version, "nonce", r.Nonce, "err", err)
		for _, key := range c.theirExtensions(r.From) {
			e := c.figures.extensions[key]
			e.rejection()
			e.fail.Inc()
			c.giveUpExtension(key)
		}
	}
	c.listenersWarmed(ctx)
	c.answer(r, err)
}

func (c *Client) giveUpExtension(key string) {
	c.mu.Lock()
	c.model.GiveUpExtension(key, time.Now())
	c.mu.Unlock()
}

func (c *Client) updateExtensions(r *ads.Response) error {
	keys := map[string][]string{} // by name
	for _, key := range c.theirExtensions(r.From) {
		name := c.figures.extensions[key].name
		keys[name] = append(keys[name], key)
	}
	if _, own := alone(c.figures.extensions, r.From); own != nil && own.file {
		if err := oneExtension(own.name, r); err != nil {
			return err
		}
	}
	u, notes, err := decode(r, resource.Extension, func(name string, raw *anypb.Any) bool {
		return !slices.ContainsFunc(keys[name], func(key string) bool { return !c.model.HasExtension(key, raw) })
	}, func(name string) bool { return len(keys[name]) > 0 })
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
	byName := u
	u.Resources, u.Removed = nil, nil
	for _, one := range byName.Resources {
		for _, key := range keys[one.Name] {
			one.Name = key
			u.Resources = append(u.Resources, one)
		}
	}
	for _, name := range byName.Removed {
		u.Removed = append(u.Removed, keys[name]...)
	}
	c.mu.Lock()
	res := c.model.UpdateExtensions(u)
	c.mu.Unlock()
	bad := map[string]bool{}
	for _, p := range res.Problems {
		bad[p.Name] = true
		if r.Delta {
			c.figures.extensions[p.Name].attempt.Inc() // see count
		}
	}
	took := time.Since(u.Now)
	accepted := func(key string) {
		if !bad[key] {
			c.fetches.cancel(fetch{extensionURL, key})
			c.figures.extensions[key].accepted(r.Version, took)
		}
	}
	for _, e := range u.Resources {
		if e.Raw != nil {
			accepted(e.Name)
		}
	}
	for _, key := range u.Removed {
		accepted(key)
	}
	for _, key := range res.Changed {
		c.figures.extensions[key].reload.Inc()
	}
	return rejection(extensionURL, res.Problems)
}

// oneExtension is what Envoy says of a file that holds anything but the one.
func oneExtension(name string, r *ads.Response) error {
	if n := len(r.Resources); n != 1 {
		return fmt.Errorf("Unexpected number of resources in ExtensionConfigDS response: %d", n)
	}
	if got, _ := firstString(r.Resources[0].Body.GetValue()); got != name {
		return fmt.Errorf("Unexpected resource name in ExtensionConfigDS response: %s", resource.Short(got))
	}
	return nil
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
