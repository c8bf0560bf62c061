package xds

import (
	"context"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/xds/ads"
	"github.com/sluice-proxy/sluice/xds/assemble"
)

// timeToLive starts, puts off and stops the TTLs of a response that is taken.
func (c *Client) timeToLive(r *ads.Response, removed []string) {
	for _, res := range r.Resources {
		name := res.Name
		if name == "" {
			name, _ = firstString(res.Body.GetValue())
		}
		if key, v := c.ownKey(r.From); v != nil && r.TypeURL == endpointURL {
			name = key
		}
		f := fetch{r.TypeURL, name}
		switch {
		case res.TTL > 0:
			c.ttls.start(f, res.TTL)
		case len(c.ttls.until) > 0:
			c.ttls.cancel(f) // it holds for ever now
		}
	}
	for _, name := range removed {
		c.ttls.cancel(fetch{r.TypeURL, name})
	}
}

// expired removes what was not sent again in time, as if the server had said so:
// listeners and clusters go, endpoints stay in force (Envoy 1.40, delta; in state
// of the world it dies of that).
func (c *Client) expired(ctx context.Context) {
	now := time.Now()
	for _, f := range c.ttls.due(now) {
		if f.url == staleWait {
			c.staled(ctx, f.name)
			continue
		}
		c.o.Log.Warn("time to live of a resource ended", "type", f.url, "name", f.name)
		gone := []string{f.name}
		switch f.url {
		case clusterURL:
			c.cds.Expire(f.url, f.name)
			_ = c.applyClusters(ctx, assemble.Update[api.Cluster]{Removed: gone, Now: now}, true) // a removal has no problems
			c.figures.cds.again()
		case listenerURL:
			c.lds.Expire(f.url, f.name)
			_ = c.applyListeners(ctx, assemble.Update[api.Listener]{Removed: gone, Now: now})
			c.figures.lds.again()
		case endpointURL:
			if c.ads != nil {
				c.ads.Expire(f.url, f.name)
			}
			_ = c.applyEndpoints(ctx, assemble.Update[api.Assignment]{Removed: gone, Now: now}, nil)
		}
	}
	c.wantEndpoints()
	c.publish(ctx)
	c.warmed()
}
