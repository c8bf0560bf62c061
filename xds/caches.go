package xds

import "github.com/sluice-proxy/sluice/api"

// admit says why DNS caches cannot be what they are to be: their names stand for
// others, in Envoy's words.
func (c *Client) admit(caches []*api.DNSCache) error {
	err := c.caches.AdmitAll(caches)
	if err != nil && !c.model.UsesDNSCaches() {
		c.caches = api.DNSCaches{}
		err = c.caches.AdmitAll(caches)
	}
	return err
}
