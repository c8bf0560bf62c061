package resource

import (
	"errors"
	"fmt"
	"math"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
)

// Listener decodes an envoy.config.listener.v3.Listener. The name is returned
// also with an error, whenever it can be had. A listener without a name is
// called by its first address, so that the same resource keeps its name (Envoy
// draws a UUID).
func Listener(a *anypb.Any) (name string, l *api.Listener, n Notes, err error) {
	var p listenerv3.Listener
	n, err = decode(a, &p)
	name = p.GetName()
	if err != nil {
		return name, nil, n, err
	}
	w := walker{policies: table()}
	w.message("", p.ProtoReflect())
	l = w.listener(&p)
	n.Unbuilt = w.unbuilt
	if err := w.err(); err != nil {
		return name, nil, n, err
	}
	return l.Name, l, n, nil
}

func (w *walker) listener(p *listenerv3.Listener) *api.Listener {
	l := &api.Listener{
		Name:       p.GetName(),
		StatPrefix: p.GetStatPrefix(),
		Metadata:   metadata(p.GetMetadata()),
		Backlog:    int(min(p.GetTcpBacklogSize().GetValue(), math.MaxInt32)),
		ReusePort:  p.GetEnableReusePort() == nil || p.GetEnableReusePort().GetValue(),
		PerConnectionBufferLimit: w.bufferLimit("per_connection_buffer_limit_bytes",
			p.GetPerConnectionBufferLimitBytes()),
	}
	l.HandedOnly = !bindToPort(p)
	l.UseOriginalDst = p.GetUseOriginalDst().GetValue()
	l.MaxAcceptsPerEvent = p.GetMaxConnectionsToAcceptPerSocketEvent().GetValue()
	l.ExactBalance = p.GetConnectionBalanceConfig().GetExactBalance() != nil
	l.IgnoreGlobalLimit = p.GetIgnoreGlobalConnLimit()
	l.BypassOverload = p.GetBypassOverloadManager()
	l.Direction = api.TrafficDirection(p.GetTrafficDirection())
	l.DrainType = api.DrainType(p.GetDrainType())
	l.ListenerFiltersTimeout = w.duration("listener_filters_timeout", p.GetListenerFiltersTimeout(), api.DefaultListenerFiltersTimeout)
	l.AccessLogs = w.accessLogs("access_log", p.GetAccessLog())
	l.ListenerFilters = w.listenerFilters(p.GetListenerFilters())
	l.ContinueOnListenerFiltersTimeout = p.GetContinueOnListenerFiltersTimeout()
	if p.GetAddress() == nil {
		w.fail("address", fmt.Errorf("error adding listener named '%s': address is necessary", short(p.GetName())))
		return l
	}
	l.Addresses = w.addresses(p)
	if l.Name == "" && len(l.Addresses) > 0 {
		l.Name = l.Addresses[0].String()
	}
	if p.GetFilterChainMatcher() != nil {
		l.Matcher = w.chainMatcher("filter_chain_matcher", p.GetFilterChainMatcher())
	}
	for i, c := range p.GetFilterChains() {
		path := fmt.Sprintf("filter_chains[%d]", i)
		if l.Matcher != nil {
			c = w.withoutMatch(path, c)
		}
		w.message(path, c.ProtoReflect())
		l.FilterChains = append(l.FilterChains, w.chain(path, c))
	}
	if c := p.GetDefaultFilterChain(); c != nil {
		c = w.withoutMatch("default_filter_chain", c)
		w.message("default_filter_chain", c.ProtoReflect())
		l.DefaultFilterChain = w.chain("default_filter_chain", c)
	}
	if len(l.FilterChains) == 0 && l.DefaultFilterChain == nil {
		w.fail("filter_chains", w.adding(l, "no filter chains specified"))
	}
	w.distinct(l, p)
	return l
}

// withoutMatch drops a match that Envoy ignores: that of the default filter
// chain, and all of them under a filter_chain_matcher.
func (w *walker) withoutMatch(path string, c *listenerv3.FilterChain) *listenerv3.FilterChain {
	if c.GetFilterChainMatch() == nil {
		return c
	}
	c = proto.CloneOf(c)
	c.FilterChainMatch = nil
	w.unbuilt = append(w.unbuilt, path+".filter_chain_match")
	return c
}

func (w *walker) chain(path string, p *listenerv3.FilterChain) *api.FilterChain {
	tls, tcp := w.downstreamSocket(path+".transport_socket", p.GetTransportSocket())
	return &api.FilterChain{
		Name:     p.GetName(),
		Match:    w.chainMatch(path+".filter_chain_match", p.GetFilterChainMatch()),
		Metadata: metadata(p.GetMetadata()),
		Filters:  w.filters(path, p.GetFilters()),

		TLS:                           tls,
		TCPStats:                      tcp,
		TransportSocketConnectTimeout: w.duration(path+".transport_socket_connect_timeout", p.GetTransportSocketConnectTimeout(), 0),
	}
}

// adding prefixes a cause as Envoy does: by the address.
func (w *walker) adding(l *api.Listener, cause string) error {
	if len(l.Addresses) == 0 {
		return errors.New(cause)
	}
	return fmt.Errorf("error adding listener '%s': %s", &l.Addresses[0], cause)
}
