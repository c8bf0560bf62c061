package api

import (
	"reflect"
	"time"
)

// Defaults of Envoy's listener.proto.
const (
	DefaultPerConnectionBufferLimit = 1 << 20 // bytes
	DefaultListenerFiltersTimeout   = 15 * time.Second
)

// Listener is what Envoy calls a listener: addresses, and what is done with the
// connections that they accept.
type Listener struct {
	Name string
	// StatPrefix replaces the address in `listener.<address>.` if it is not empty.
	StatPrefix string
	// Addresses are bound all; the first is the `address` of the proto, the
	// others its additional_addresses. Port 0 lets the kernel choose.
	Addresses []BindAddress
	// HandedOnly is bind_to_port: false. The listener owns no socket and serves
	// what listeners with UseOriginalDst hand to its addresses.
	HandedOnly     bool
	UseOriginalDst bool
	// Backlog is listen(2)'s, 0 means the kernel's net.core.somaxconn.
	Backlog int
	// ReusePort is enable_reuse_port: one socket per worker. It may not change
	// while the listener lives.
	ReusePort bool
	// MaxAcceptsPerEvent bounds the connections that are accepted before other
	// sockets get their turn; 0 means no bound of the configuration's.
	MaxAcceptsPerEvent uint32
	// ExactBalance gives each connection to the worker with the fewest of the
	// listener's connections, wherever it was accepted.
	ExactBalance bool
	// IgnoreGlobalLimit exempts from the limit on all connections.
	IgnoreGlobalLimit bool
	// BypassOverload exempts from what the overload manager does to listeners.
	BypassOverload bool
	// Direction is traffic_direction; DrainType decides what drains it.
	Direction TrafficDirection
	DrainType DrainType
	// PerConnectionBufferLimit bounds, per direction of a pair, the memory that
	// is taken for bytes read and not yet accepted by the other side, in bytes.
	PerConnectionBufferLimit uint32
	// ListenerFiltersTimeout bounds the listener filters, 0 means never; whether
	// the connection goes on then is ContinueOnListenerFiltersTimeout.
	ListenerFiltersTimeout           time.Duration
	ContinueOnListenerFiltersTimeout bool
	// ListenerFilters run in order before the filter chain is found.
	ListenerFilters []ListenerFilter
	// AccessLogs are written when a connection has ended, also one that found no
	// filter chain.
	AccessLogs []*AccessLog
	// FilterChains never overlap in what they match. DefaultFilterChain may be
	// nil.
	FilterChains       []*FilterChain
	DefaultFilterChain *FilterChain
	// Matcher, if it is not nil, finds the chain by name in place of the chains'
	// Match; their names are unique then.
	Matcher *Matcher
	// Metadata is read by access logs.
	Metadata Metadata
	// Static says that the listener came from the bootstrap, not from LDS.
	Static bool
}

// Equal compares by content.
func (l *Listener) Equal(o *Listener) bool { return l == o || reflect.DeepEqual(l, o) }

// EqualButChains tells whether l and o differ in their filter chains at most.
func (l *Listener) EqualButChains(o *Listener) bool {
	a, b := *l, *o
	a.FilterChains, a.DefaultFilterChain = nil, nil
	b.FilterChains, b.DefaultFilterChain = nil, nil
	return a.Equal(&b)
}

// FilterChain is a match and the network filters of the connections it takes.
type FilterChain struct {
	Name  string
	Match FilterChainMatch
	// Metadata is read by access logs.
	Metadata Metadata
	// TLS is what the transport_socket terminates; nil is raw_buffer.
	TLS *DownstreamTLS
	// TCPStats may be nil.
	TCPStats *TCPStats
	// TransportSocketConnectTimeout bounds its handshake, 0 is no bound.
	TransportSocketConnectTimeout time.Duration
	// Filters run in order; the last one is terminal. An empty list closes the
	// connection (listener.proto, FilterChain.filters).
	Filters []Filter
}

// Filter is one network filter: exactly one pointer is set.
type Filter struct {
	// Name is the filter's name in the configuration; it decides nothing.
	Name     string
	TCPProxy *TCPProxy
	// Echo sends back what comes.
	Echo *Echo

	RBAC            *RBAC
	ExtAuthz        *ExtAuthz
	RateLimit       *RateLimit
	ConnectionLimit *ConnectionLimit
	LocalRateLimit  *LocalRateLimit
	DirectResponse  *DirectResponse
	SetFilterState  *SetFilterState
	SNICluster      *SNICluster
	SNIForwardProxy *SNIForwardProxy
	HTTP            *HTTP
	UnservedHTTP    *UnservedHTTP

	// Discovery is set while the configuration is to come by itself.
	Discovery *FilterDiscovery
}

// Echo is envoy.filters.network.echo, which has no settings.
type Echo struct{}
