package xds

import "context"

// staleWait is the wait for the end of an assignment's endpoint_stale_after, among
// the TTLs.
const staleWait = "endpoint_stale_after"

// believe starts the time for which the endpoints called name are believed anew.
func (c *Client) believe(name string) {
	f := fetch{staleWait, name}
	c.ttls.cancel(f)
	d := c.model.StaleAfter(name)
	if d == 0 {
		return
	}
	c.ttls.start(f, d)
	for _, user := range c.model.EDSUsers(name) {
		c.figures.of(user).bounded.Inc()
	}
}

// staled takes away the endpoints called name, as Envoy does: nobody knows whether
// they are there. The cluster may have changed since.
func (c *Client) staled(ctx context.Context, name string) {
	if c.model.StaleAfter(name) == 0 {
		return
	}
	c.o.Log.Warn("endpoints are stale", "name", shown(name))
	c.mu.Lock()
	c.model.ClearEndpoints(name)
	c.mu.Unlock()
	c.publish(ctx)
	for _, user := range c.model.EDSUsers(name) {
		c.figures.of(user).stale.Inc()
	}
}
