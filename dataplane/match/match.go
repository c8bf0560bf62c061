// Package match finds the filter chain of an accepted connection.
//
// The rules are those of Envoy's FilterChainMatch (listener_components.proto,
// filter_chain_manager_impl.cc): nine criteria are looked at one after the
// other, in each the most specific entry is taken, and there is no way back: if
// a later criterion fails, no less specific entry of an earlier one is tried. A
// listener with a filter_chain_matcher asks that instead (tree.go).
package match

import (
	"net/netip"
	"strings"

	"github.com/sluice-proxy/sluice/api"
)

// Connection is what is known of a connection once its listener filters are
// through.
type Connection struct {
	// Local is the destination, as original_dst or the PROXY protocol restored
	// it. Remote is the source, as the PROXY protocol or original_src has it, and
	// Direct the peer that is really connected. All are unmapped (no IPv4 in
	// IPv6); they are not valid on a Unix socket.
	Local, Remote, Direct netip.AddrPort
	// ServerName is the SNI in lower case, or empty.
	ServerName string
	// TransportProtocol is empty if no listener filter found any; that counts as
	// raw_buffer.
	TransportProtocol string
	// ApplicationProtocols are the client's, in its order.
	ApplicationProtocols []string
	// FilterState looks up the filter state's string for a key, and for a field
	// of it if field is not empty. It may be nil.
	FilterState func(key, field string) (string, bool)
	// Peer is the client's certificate, nil without TLS.
	Peer Peer
}

// Peer is what a client's certificate says.
type Peer interface {
	PeerURIs() []string
	PeerDNSNames() []string
	PeerSubject() string
}

// Index answers for one version of a listener. It is immutable, so it may be
// used by all workers at once.
type Index struct {
	ports    ports
	tree     *Tree
	byName   map[string]*api.FilterChain
	fallback *api.FilterChain
}

// The criteria in Envoy's order, each a level of the index. 0, the empty string
// and the zero prefix stand for a chain without the criterion.
type (
	ports        = table[uint16, prefixes[names]]
	names        = table[string, transports]
	transports   = table[string, applications]
	applications = table[string, prefixes[sourceTypes]]
	sourceTypes  = [3]*prefixes[sourcePorts] // by api.SourceType
	sourcePorts  = table[uint16, *api.FilterChain]
)

// New indexes the chains of a listener, of which no two may overlap (xds refuses
// such a listener; were there two, the first would win).
func New(l *api.Listener) *Index {
	x := &Index{fallback: l.DefaultFilterChain}
	if l.Matcher != nil {
		x.tree = NewTree(l.Matcher)
		x.byName = make(map[string]*api.FilterChain, len(l.FilterChains))
		for _, c := range l.FilterChains {
			x.byName[c.Name] = c
		}
		return x
	}
	x.ports = index(l.FilterChains)
	return x
}

// Find returns the chain for a connection: the one that matches, else the
// default filter chain. Nil means that there is none: the connection is closed
// and counted as no_filter_chain_match.
func (x *Index) Find(c *Connection) *api.FilterChain {
	if x.tree != nil {
		name, ok := x.tree.Match(c)
		if !ok {
			return x.fallback
		}
		return x.byName[name] // a name that no chain has is no match
	}
	if found := x.find(c); found != nil {
		return found
	}
	return x.fallback
}

func (x *Index) find(c *Connection) *api.FilterChain {
	byPrefix, ok := x.ports.most(c.Local.Port(), 0)
	if !ok {
		return nil
	}
	byName, ok := byPrefix.longest(addr(c.Local))
	if !ok {
		return nil
	}
	byTransport, ok := serverName(byName, c.ServerName)
	if !ok {
		return nil
	}
	transport := c.TransportProtocol
	if transport == "" {
		transport = api.TransportRawBuffer
	}
	byALPN, ok := byTransport.most(transport, "")
	if !ok {
		return nil
	}
	byDirect, ok := application(byALPN, c.ApplicationProtocols)
	if !ok {
		return nil
	}
	types, ok := byDirect.longest(addr(c.Direct))
	if !ok {
		return nil
	}
	bySource := sourceType(types, c)
	if bySource == nil {
		return nil
	}
	bySourcePort, ok := bySource.longest(addr(c.Remote))
	if !ok {
		return nil
	}
	chain, ok := bySourcePort.most(c.Remote.Port(), 0)
	if !ok {
		return nil
	}
	return *chain
}

// unixAddr stands for the address of a Unix socket, as in Envoy: no prefix but
// one that is made for it holds it.
var unixAddr = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func addr(a netip.AddrPort) netip.Addr {
	if !a.IsValid() {
		return unixAddr
	}
	return a.Addr()
}

// serverName finds the exact name, else the longest wildcard, whose key is kept
// without its asterisk, else the chains without a name.
func serverName(by *names, name string) (*transports, bool) {
	if found, ok := by.get(name); ok {
		return found, true
	}
	// Envoy wants something before the dot, and something behind it.
	for i := 1; i < len(name)-1; i++ {
		if name[i] == '.' {
			if found, ok := by.get(name[i:]); ok {
				return found, true
			}
		}
	}
	return by.get("")
}

// application finds the client's first protocol that any chain names.
func application(by *applications, protocols []string) (*prefixes[sourceTypes], bool) {
	for _, p := range protocols {
		if found, ok := by.get(p); ok {
			return found, true
		}
	}
	return by.get("")
}

func sourceType(types *sourceTypes, c *Connection) *prefixes[sourcePorts] {
	local, external := types[api.SourceSameIPOrLoopback], types[api.SourceExternal]
	if local != nil || external != nil {
		if isLocal(c) {
			if local != nil {
				return local
			}
		} else if external != nil {
			return external
		}
	}
	return types[api.SourceAny]
}

var loopback4, loopback6 = netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()

// isLocal is Envoy's isSameIpOrLoopback: of 127.0.0.0/8 only the canonical
// address is loopback to it.
func isLocal(c *Connection) bool {
	if !c.Remote.IsValid() {
		return true
	}
	remote := c.Remote.Addr()
	return remote == loopback4 || remote == loopback6 || c.Local.IsValid() && remote == c.Local.Addr()
}

// wildcardKey is the key of a server name: `.example.com` for `*.example.com`.
func wildcardKey(name string) string {
	if strings.HasPrefix(name, "*.") {
		return name[1:]
	}
	return name
}
