package dataplane

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/filter/connectionlimit"
	"github.com/sluice-proxy/sluice/dataplane/filter/directresponse"
	"github.com/sluice-proxy/sluice/dataplane/filter/echo"
	"github.com/sluice-proxy/sluice/dataplane/filter/extauthz"
	"github.com/sluice-proxy/sluice/dataplane/filter/httpinspector"
	"github.com/sluice-proxy/sluice/dataplane/filter/httpserver"
	"github.com/sluice-proxy/sluice/dataplane/filter/localratelimit"
	"github.com/sluice-proxy/sluice/dataplane/filter/originalsrc"
	"github.com/sluice-proxy/sluice/dataplane/filter/proxyprotocol"
	"github.com/sluice-proxy/sluice/dataplane/filter/ratelimit"
	"github.com/sluice-proxy/sluice/dataplane/filter/rbac"
	"github.com/sluice-proxy/sluice/dataplane/filter/setfilterstate"
	"github.com/sluice-proxy/sluice/dataplane/filter/snicluster"
	"github.com/sluice-proxy/sluice/dataplane/filter/sniforward"
	"github.com/sluice-proxy/sluice/dataplane/filter/tcpproxy"
	"github.com/sluice-proxy/sluice/dataplane/filter/tlsinspector"
	"github.com/sluice-proxy/sluice/dataplane/stream"
	"github.com/sluice-proxy/sluice/dataplane/tcpstats"
	"github.com/sluice-proxy/sluice/dataplane/tls"
)

// newChain makes the filters of a chain of a listener. The order is the configuration's.
// old, if it is not nil, is the equal chain of the listener's version before,
// whose limits go on. The error is that of opening an access log, or of a TLS context.
func (p *Plane) newChain(l *api.Listener, c *api.FilterChain, old *filter.Chain) (*filter.Chain, error) {
	listener := l.StatName()
	ctx := filter.Context{Stats: p.stats, Runtime: p.near.Runtime, Cluster: p.cluster, Demand: p.demand, Log: p.log, Names: p.names, Files: p.files, Listener: listener, Failing: p.drains.HealthChecksFail}
	if !l.BypassOverload {
		ctx.ShedData = p.overload.DataShedder()
	}
	ch := &filter.Chain{Chain: stream.Chain{Name: c.Name, Metadata: stream.Metadata(c.Metadata)}, ConnectTimeout: c.TransportSocketConnectTimeout}
	if c.TLS != nil {
		var err error
		if ch.TLS, err = tls.NewServer(c.TLS, p.secretsNow(), tls.NewServerStats(p.stats, listener), p.handshakes.servers); err != nil {
			ch.Release()
			return nil, err
		}
	}
	if c.TCPStats != nil {
		ch.TCP, ch.TCPPeriod = tcpstats.New(p.stats, "listener", stats.Tag{Name: "envoy.listener_address", Value: listener}), c.TCPStats.Period
	}
	for i := range c.Filters {
		f, err := p.newFilter(&c.Filters[i], ctx)
		if err != nil {
			ch.Release()
			return nil, err
		}
		if h, ok := f.(filter.Heir); ok && old != nil {
			h.Inherit(old.Factories[i])
		}
		ch.Factories = append(ch.Factories, f)
	}
	return ch, nil
}

// same is the listener's chain that equals c, or nil. The listener may be nil.
func (l *listener) same(c *api.FilterChain) *filter.Chain {
	if l == nil {
		return nil
	}
	for config, chain := range l.chains {
		if reflect.DeepEqual(config, c) {
			return chain
		}
	}
	return nil
}

func (p *Plane) newFilter(f *api.Filter, ctx filter.Context) (filter.Factory, error) {
	switch {
	case f.TCPProxy != nil:
		return tcpproxy.New(f.TCPProxy, ctx)
	case f.RBAC != nil:
		return rbac.New(f.RBAC, ctx), nil
	case f.ExtAuthz != nil:
		return extauthz.New(f.ExtAuthz, ctx), nil
	case f.RateLimit != nil:
		return ratelimit.New(f.RateLimit, ctx), nil
	case f.SetFilterState != nil:
		return setfilterstate.New(f.SetFilterState), nil
	case f.SNICluster != nil:
		return snicluster.Factory{}, nil
	case f.SNIForwardProxy != nil:
		return sniforward.New(f.SNIForwardProxy, ctx), nil
	case f.ConnectionLimit != nil:
		return connectionlimit.New(f.ConnectionLimit, ctx), nil
	case f.LocalRateLimit != nil:
		return localratelimit.New(f.LocalRateLimit, ctx, &p.buckets), nil
	case f.HTTP != nil:
		return httpserver.New(f.HTTP, ctx), nil
	case f.UnservedHTTP != nil:
		return httpserver.NewUnserved(f.UnservedHTTP, ctx), nil
	case f.DirectResponse != nil:
		return directresponse.New(f.DirectResponse), nil
	case f.Echo != nil:
		return echo.Factory{}, nil
	}
	return nil, fmt.Errorf("filter %q: %w", f.Name, errNoFilter)
}

// errNoFilter says that a snapshot holds a filter that the plane does not know.
var errNoFilter = errors.New("no such filter is built")

// newListenerFilters makes the listener filters of a listener, in order.
// use_original_dst brings its filter along, as in Envoy.
func (p *Plane) newListenerFilters(c *api.Listener) []filter.ListenerFactory {
	var out []filter.ListenerFactory
	restores := false
	for i := range c.ListenerFilters {
		f := &c.ListenerFilters[i]
		restores = restores || f.OriginalDst != nil
		made := p.newListenerFilter(f)
		if made != nil && f.Disabled != nil {
			made = filter.Unless{Predicate: f.Disabled, ListenerFactory: made}
		}
		if made != nil {
			out = append(out, made)
		}
	}
	if c.UseOriginalDst && !restores {
		out = append(out, p.originalDst())
	}
	return out
}

func (p *Plane) newListenerFilter(f *api.ListenerFilter) filter.ListenerFactory {
	switch {
	case f.OriginalDst != nil:
		return p.originalDst()
	case f.TLSInspector != nil:
		return tlsinspector.New(f.TLSInspector, p.stats)
	case f.HTTPInspector != nil:
		return httpinspector.New(p.stats)
	case f.ProxyProtocol != nil:
		return proxyprotocol.New(f.ProxyProtocol, p.stats)
	case f.OriginalSrc != nil:
		return originalsrc.New(f.OriginalSrc)
	case f.LocalRateLimit != nil:
		return localratelimit.NewListener(f.LocalRateLimit, p.stats, p.near.Runtime)
	case f.SetFilterState != nil:
		return setfilterstate.ListenerFactory{Values: setfilterstate.NewValues(f.SetFilterState)}
	}
	return nil
}
