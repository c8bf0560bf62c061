package xds

import "github.com/sluice-proxy/sluice/api"

// TLSContext is what one TLS context in force is made with.
type TLSContext struct {
	Certificates []*api.TLSCertificate
	// Validation may be nil.
	Validation *api.TLSValidation
}

// TLSContexts lists the contexts of listeners and clusters in force, but for those
// whose secrets are not there. It may be called at any time, from any goroutine.
func (c *Client) TLSContexts() []TLSContext {
	c.mu.RLock()
	s := c.model.Published()
	c.mu.RUnlock()
	if s == nil {
		return nil
	}
	var out []TLSContext
	server := func(fc *api.FilterChain) {
		if fc == nil || fc.TLS == nil {
			return
		}
		if t, ready := s.Secrets.Downstream(fc.TLS); ready {
			out = append(out, TLSContext{t.Certificates, t.Validation})
		}
	}
	client := func(t *api.UpstreamTLS) {
		if t == nil {
			return
		}
		if t, ready := s.Secrets.Upstream(t); ready {
			out = append(out, TLSContext{t.Certificates, t.Validation})
		}
	}
	for _, l := range s.Listeners {
		for _, fc := range l.FilterChains {
			server(fc)
		}
		server(l.DefaultFilterChain)
	}
	for v := range s.Clusters.All() {
		client(v.Socket.TLS)
		for _, m := range v.SocketMatches {
			client(m.Socket.TLS)
		}
	}
	return out
}
