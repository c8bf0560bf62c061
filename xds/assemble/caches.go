package assemble

import "github.com/sluice-proxy/sluice/api"

// UsesDNSCaches tells whether a cluster or a filter uses one. As long as any does,
// Envoy keeps the settings of all that there were.
func (m *Model) UsesDNSCaches() bool {
	for _, c := range m.clusters {
		for _, h := range []*held[api.Cluster]{c.active, c.warming} {
			if h != nil && len(h.value.DNSCaches()) > 0 {
				return true
			}
		}
	}
	for _, l := range m.listeners {
		for _, h := range []*held[api.Listener]{l.active, l.warming} {
			if h != nil && len(h.value.DNSCaches()) > 0 {
				return true
			}
		}
	}
	for _, e := range m.extensions {
		if e.current != nil && e.current.value.Filter.SNIForwardProxy != nil {
			return true
		}
	}
	return false
}
