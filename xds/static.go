package xds

import (
	"context"
	"fmt"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/xds/assemble"
)

// applyStatic publishes the bootstrap's resources as the first snapshot, its
// listeners only if no cluster has to warm, and no layer of the runtime is to come.
func (c *Client) applyStatic(ctx context.Context) error {
	now := time.Now()
	for _, s := range c.o.Bootstrap.Secrets {
		if s.Value != nil {
			r := assemble.Resource[api.Secret]{Name: s.Name, Raw: s.Any, Value: s.Value}
			_ = c.static(func() error { c.model.AddStaticSecret(r, now); return nil })
		}
	}
	for _, s := range c.o.Bootstrap.Clusters {
		if err := c.placeSecrets(s.Value.SecretRefs()); err != nil {
			return fmt.Errorf("add static cluster %s: transport_socket: %w", s.Value.Name, err)
		}
		v := *c.completed(s.Value)
		v.Static = true
		r := assemble.Resource[api.Cluster]{Name: v.Name, Raw: s.Any, Value: &v}
		if err := c.static(func() error { return c.model.AddStaticCluster(r, now) }); err != nil {
			return err
		}
		c.figures.noted(s.Notes, false)
		c.figures.clusterAdded.Inc()
	}
	c.figures.warmingClusters.Set(uint64(c.model.Warming()))
	if (c.model.Warming() > 0 || len(c.o.Bootstrap.RTDS) > 0) && len(c.o.Bootstrap.Listeners) > 0 {
		c.held = true
		c.publish(ctx)
		return nil
	}
	return c.staticListeners(ctx)
}

// staticListeners lets the bootstrap's listeners in: clients that come while the
// clusters warm are to wait, not to be turned away.
func (c *Client) staticListeners(ctx context.Context) error {
	now := time.Now()
	for _, s := range c.o.Bootstrap.Listeners {
		if err := c.placeSecrets(s.Value.SecretRefs()); err != nil {
			return fmt.Errorf("add static listener %s: transport_socket: %w", s.Value.Name, err)
		}
		if err := c.placeDemands(s.Value); err != nil {
			return fmt.Errorf("add static listener %s: %w", s.Value.Name, err)
		}
		if err := c.placeExtensions(s.Value); err != nil {
			return fmt.Errorf("add static listener %s: %w", s.Value.Name, err)
		}
		v := *s.Value
		v.Static = true
		r := assemble.Resource[api.Listener]{Name: v.Name, Raw: s.Any, Value: &v}
		if err := c.static(func() error { return c.model.AddStaticListener(r, now) }); err != nil {
			return err
		}
		c.figures.noted(s.Notes, false)
		c.figures.listenerAdded.Inc()
	}
	for _, p := range c.publish(ctx) {
		return fmt.Errorf("add static listener %s: %w", p.Name, p.Err)
	}
	return nil
}

func (c *Client) static(add func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return add()
}
