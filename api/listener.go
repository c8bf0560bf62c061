package api

import (
	"net/netip"
	"reflect"
	"strings"
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
	// Backlog is listen(2)'s, 0 means the kernel's net.core.somaxconn.
	Backlog int
	// ReusePort is enable_reuse_port: one socket per worker. It may not change
	// while the listener lives.
	ReusePort bool
	// PerConnectionBufferLimit bounds, per direction of a pair, the memory that
	// is taken for bytes read and not yet accepted by the other side, in bytes.
	PerConnectionBufferLimit uint32
	// ListenerFiltersTimeout bounds the listener filters, 0 means never; whether
	// the connection goes on then is ContinueOnListenerFiltersTimeout.
	ListenerFiltersTimeout           time.Duration
	ContinueOnListenerFiltersTimeout bool
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
	// Static says that the listener came from the bootstrap, not from LDS.
	Static bool
}

// BindAddress is an address to listen on.
type BindAddress struct {
	Addr netip.AddrPort
	// IPv4Compat lets an IPv6 wildcard accept IPv4 too (IPV6_V6ONLY off).
	IPv4Compat bool
}

// StatName is the segment that stands for the listener in `listener.<…>.`:
// its stat prefix, or its first address with colons replaced, as Envoy has it
// (`127.0.0.1_8080`, `[__1]_8080`).
func (l *Listener) StatName() string {
	if l.StatPrefix != "" {
		return l.StatPrefix
	}
	if len(l.Addresses) == 0 {
		return l.Name
	}
	return strings.ReplaceAll(l.Addresses[0].Addr.String(), ":", "_")
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

	ConnectionLimit *ConnectionLimit
	LocalRateLimit  *LocalRateLimit
	DirectResponse  *DirectResponse
}

// Echo is envoy.filters.network.echo, which has no settings.
type Echo struct{}
