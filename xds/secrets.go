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
	"github.com/sluice-proxy/sluice/xds/file"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// secrets are the subscriptions to secrets, by key (api.SecretRef).
type secrets struct {
	epoch uint64 // of the model, when it was last told what is wanted
	all   map[string]*secretFigures
	// moves is told which directory something was moved into.
	moves chan string
	watch *file.Watcher // nil until a secret names files
	dirs  map[string][]string
}

// secretFigures are those of one subscription, with what feeds it.
type secretFigures struct {
	feed
	rotationFailed *stats.Counter
}

func newSecrets() secrets {
	return secrets{all: map[string]*secretFigures{}, moves: make(chan string), dirs: map[string][]string{}}
}

// selfSource is what `self` means for secrets: where the resources that use them
// come from.
func (c *Client) selfSource() api.ConfigSource {
	b := c.o.Bootstrap
	switch {
	case c.ads != nil:
		return api.ConfigSource{Kind: api.FromADS}
	case b.CDS != nil:
		return b.CDS.ConfigSource
	case b.LDS != nil:
		return b.LDS.ConfigSource
	}
	return api.ConfigSource{Kind: api.FromADS}
}

func (c *Client) sourceOf(r api.SecretRef) api.ConfigSource {
	if r.Source.Kind != api.FromSelf {
		return *r.Source
	}
	s := c.selfSource()
	s.InitialFetchTimeout = r.Source.InitialFetchTimeout
	return s
}

// placeSecrets says why secrets can be had from nowhere, in Envoy's words.
func (c *Client) placeSecrets(refs []api.SecretRef) error {
	for _, r := range refs {
		if r.Static() {
			if err := c.staticSecret(r); err != nil {
				return err
			}
			continue
		}
		switch s := c.sourceOf(r); s.Kind {
		case api.FromADS, api.FromSelf:
			if c.ads == nil {
				return fmt.Errorf("sds_config.ads: dynamic_resources.ads_config is not set (secret %s)", resource.Short(r.Name))
			}
		case api.FromPath:
			if _, err := os.Stat(s.Path); err != nil {
				return fmt.Errorf("sds_config.path_config_source.path: paths must refer to an existing path in the system: '%s' does not exist", s.Path)
			}
		case api.FromGRPC, api.FromREST:
			if c.o.Bootstrap.ControlPlanes[s.Cluster] == nil {
				return fmt.Errorf("sds_config.api_config_source: envoy.config.core.v3.ApiConfigSource must have a statically defined non-EDS cluster: '%s' does not exist, was added via api, or is an EDS cluster", s.Cluster)
			}
		}
	}
	return nil
}

func (c *Client) staticSecret(r api.SecretRef) error {
	for _, s := range c.o.Bootstrap.Secrets {
		if s.Name == r.Name && s.Err != nil {
			return fmt.Errorf("secret %s: %w", resource.Short(r.Name), s.Err)
		}
	}
	if c.model.Static(r.Name, r.Kind) != nil {
		return nil
	}
	what := map[api.SecretKind]string{
		api.CertificateSecret: "Unknown static secret", api.ValidationSecret: "Unknown static certificate validation context",
		api.TicketKeysSecret: "Unknown tls session ticket keys", api.GenericSecretKind: "Unknown static generic secret",
	}
	return fmt.Errorf("%s: %s", what[r.Kind], resource.Short(r.Name))
}

// wantSecrets asks for the secrets that are wanted now, and for no others.
func (c *Client) wantSecrets() {
	if c.secrets.epoch == c.model.SecretEpoch() {
		return
	}
	c.secrets.epoch = c.model.SecretEpoch()
	want := c.model.SecretRefs()
	for key, f := range c.secrets.all {
		if _, ok := want[key]; !ok {
			c.dropSecret(key, f)
		}
	}
	var shared []string
	for key, r := range want {
		f := c.secrets.all[key]
		if f == nil {
			f = c.addSecret(key, r)
		}
		if !f.own {
			shared = append(shared, r.Name)
		}
	}
	if c.ads != nil {
		slices.Sort(shared)
		if len(shared) > 0 || c.secretsAsked {
			c.secretsAsked = true
			c.ads.Subscribe(secretURL, append([]string{}, shared...))
		}
	}
	c.watchSecrets()
}

func (c *Client) addSecret(key string, r api.SecretRef) *secretFigures {
	sc := c.o.Stats.Scope("sds", r.Name)
	f := &secretFigures{feed: feed{subscription: newSubscription(sc), scope: sc, name: r.Name}, rotationFailed: sc.Counter("key_rotation_failed")}
	c.secrets.all[key] = f
	src := c.sourceOf(r)
	f.file = src.Kind == api.FromPath
	if err := f.place(c, src, secretURL, "sds", r.Name, "control_plane"); err != nil {
		c.o.Log.Error("subscribe to secret", "secret", r.Name, "err", err)
		return f
	}
	f.started()
	c.fetches.start(fetch{secretURL, key}, c.model.SecretTimeout(key))
	return f
}

func (c *Client) dropSecret(key string, f *secretFigures) {
	delete(c.secrets.all, key)
	delete(c.secrets.dirs, key)
	c.fetches.cancel(fetch{secretURL, key})
	f.drop(c)
}

// theirs calls f for the subscriptions that are fed by from.
func (c *Client) theirs(from ads.Source, f func(key string, s *secretFigures)) {
	for key, s := range c.secrets.all {
		if s.from == from {
			f(key, s)
		}
	}
}

func (c *Client) takeSecrets(ctx context.Context, r *ads.Response) {
	err := r.Err
	if err == nil {
		err = c.updateSecrets(r)
	}
	if err != nil {
		c.o.Log.Warn("secrets rejected", "version", r.Version, "nonce", r.Nonce, "err", err)
	}
	if _, partial := err.(badResources); err != nil && !partial { // of the whole response nothing is taken
		c.theirs(r.From, func(key string, f *secretFigures) {
			f.rejection()
			c.giveUpSecret(key)
		})
	}
	c.secretsRipe(ctx)
	c.answer(r, err)
}

// updateSecrets takes over what is good of a response.
func (c *Client) updateSecrets(r *ads.Response) error {
	key, own := alone(c.secrets.all, r.From)
	has, wants := c.model.HasSecret, func(name string) bool { return c.model.WantsSecret(name) }
	if own != nil {
		has = func(_ string, raw *anypb.Any) bool { return c.model.HasSecret(key, raw) }
		wants = func(name string) bool { return name == own.name }
		if own.file {
			if err := expecting(own.name, r); err != nil {
				return err
			}
		}
	}
	u, notes, err := decode(r, resource.Secret, has, wants)
	c.figures.noted(notes, true)
	if err != nil {
		return err
	}
	if own != nil {
		for i := range u.Resources {
			u.Resources[i].Name = key
		}
	}
	return rejection(secretURL, c.applySecrets(u, r))
}

// expecting is what Envoy says of a file that does not hold the secret.
func expecting(name string, r *ads.Response) error {
	other := ""
	for _, res := range r.Resources {
		got, _ := firstString(res.Body.GetValue())
		if got == name {
			return nil
		}
		other = got
	}
	if len(r.Resources) == 0 {
		return fmt.Errorf("Missing SDS resources for %s in onConfigUpdate()", resource.Short(name))
	}
	return fmt.Errorf("Unexpected SDS secret (expecting %s): %s", resource.Short(name), resource.Short(other))
}

// applySecrets returns what was rejected. r is nil if files were read again.
func (c *Client) applySecrets(u assemble.Update[api.Secret], r *ads.Response) []assemble.Problem {
	c.mu.Lock()
	res := c.model.UpdateSecrets(u)
	c.mu.Unlock()
	bad := map[string]bool{}
	for _, p := range res.Problems {
		bad[p.Name] = true
	}
	took := time.Since(u.Now)
	for _, one := range u.Resources {
		f := c.secrets.all[one.Name]
		if f == nil {
			continue
		}
		c.fetches.cancel(fetch{secretURL, one.Name})
		switch {
		case bad[one.Name] && r == nil:
			f.rotationFailed.Inc()
		case bad[one.Name]:
			f.rejection()
			if r.Delta {
				f.attempt.Inc() // see count
			}
		case r != nil:
			f.accepted(r.Version, took)
		}
	}
	c.watchSecrets()
	return res.Problems
}

func (c *Client) giveUpSecret(key string) {
	c.fetches.cancel(fetch{secretURL, key})
	c.mu.Lock()
	c.model.GiveUpSecret(key, time.Now())
	c.mu.Unlock()
}

// secretsRipe publishes what no longer waits for secrets.
func (c *Client) secretsRipe(ctx context.Context) {
	c.wantEndpoints()
	c.listenersWarmed(ctx)
	c.warmed()
}

// watchSecrets watches for moves over the files that secrets name.
func (c *Client) watchSecrets() {
	var dirs []string
	for key := range c.secrets.all {
		raw, _ := c.model.SecretRaw(key)
		if raw == nil {
			continue
		}
		c.secrets.dirs[key] = resource.SecretDirectories(raw)
		dirs = append(dirs, c.secrets.dirs[key]...)
	}
	if c.secrets.watch == nil {
		if len(dirs) == 0 || c.ctx == nil {
			return
		}
		ctx := c.ctx
		w, err := file.Watch(func(dir string) {
			select {
			case c.secrets.moves <- dir:
			case <-ctx.Done():
			}
		})
		if err != nil {
			c.o.Log.Error("watch files of secrets", "err", err)
			return
		}
		c.secrets.watch = w
	}
	if err := c.secrets.watch.Set(dirs); err != nil {
		c.o.Log.Warn("watch files of secrets", "err", err)
	}
}

// moved reads the secrets again whose files may have been replaced.
func (c *Client) moved(ctx context.Context, dir string) {
	u := assemble.Update[api.Secret]{Now: time.Now()}
	for key, dirs := range c.secrets.dirs {
		raw, version := c.model.SecretRaw(key)
		if raw == nil || !slices.Contains(dirs, dir) {
			continue
		}
		_, v, _, err := resource.Secret(raw)
		u.Resources = append(u.Resources, assemble.Resource[api.Secret]{Name: key, Version: version, Raw: raw, Value: v, Err: err})
	}
	for _, p := range c.applySecrets(u, nil) {
		c.o.Log.Warn("files of a secret could not be read again", "secret", shown(p.Name), "err", p.Err)
	}
	c.secretsRipe(ctx)
}

func (c *Client) closeSecrets() {
	if c.secrets.watch != nil {
		c.secrets.watch.Close()
	}
}
