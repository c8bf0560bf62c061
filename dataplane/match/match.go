// Package match finds the filter chain of an accepted connection.
//
// The rules are those of Envoy's FilterChainMatch (listener_components.proto,
// filter_chain_manager_impl.cc): criteria are looked at one after the other,
// and there is no way back. As destination_port is the only one that is built,
// that means: a chain for the exact port hides the chain without a port.
package match

import "github.com/sluice-proxy/sluice/api"

// Index answers for one version of a listener. It is immutable, so it may be
// used by all workers at once.
type Index struct {
	byPort   map[uint16]*api.FilterChain
	anyPort  *api.FilterChain
	fallback *api.FilterChain
}

// New indexes chains, of which no two may share a match (xds refuses such a
// listener; were there two, the first would win). def may be nil.
func New(chains []*api.FilterChain, def *api.FilterChain) *Index {
	x := &Index{byPort: make(map[uint16]*api.FilterChain, len(chains)), fallback: def}
	for _, c := range chains {
		port := c.Match.DestinationPort
		if port == 0 {
			if x.anyPort == nil {
				x.anyPort = c
			}
			continue
		}
		if _, taken := x.byPort[port]; !taken {
			x.byPort[port] = c
		}
	}
	return x
}

// Find returns the chain for a connection whose local address has localPort:
// the one for exactly that port, else the one without a port, else the default
// filter chain. Nil means that none matches: the connection is closed and
// counted as no_filter_chain_match.
func (x *Index) Find(localPort uint16) *api.FilterChain {
	if c, ok := x.byPort[localPort]; ok {
		return c
	}
	if x.anyPort != nil {
		return x.anyPort
	}
	return x.fallback
}
