package dataplane

import (
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/filter/echo"
	"github.com/sluice-proxy/sluice/dataplane/filter/tcpproxy"
)

// newChain makes the filters of a chain. The order is the configuration's.
func (p *Plane) newChain(c *api.FilterChain) *filter.Chain {
	ctx := filter.Context{Stats: p.stats, Cluster: p.cluster, Log: p.log}
	ch := &filter.Chain{Name: c.Name}
	for _, f := range c.Filters {
		switch {
		case f.TCPProxy != nil:
			ch.Factories = append(ch.Factories, tcpproxy.New(f.TCPProxy, ctx))
		case f.Echo != nil:
			ch.Factories = append(ch.Factories, echo.Factory{})
		}
	}
	return ch
}

// newListenerFilters makes the listener filters of a listener, in order.
func (p *Plane) newListenerFilters(*api.Listener) []filter.ListenerFactory { return nil }
