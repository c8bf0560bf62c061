package api

import (
	"fmt"
	"net/netip"
	"time"
)

// Defaults of Envoy's dns_cache.proto.
const (
	DefaultCacheRefreshRate    = time.Minute
	DefaultCacheMinRefreshRate = 5 * time.Second
	DefaultCacheQueryTimeout   = 5 * time.Second
	DefaultCacheHostTTL        = 5 * time.Minute
	DefaultCacheMaxHosts       = 1024
	DefaultCacheMaxPending     = 1024
)

// DNSCache is a DnsCacheConfig: names that connections bring, and that are resolved
// when the first one does.
type DNSCache struct {
	Name string
	// Settings is the configuration as it came: two caches of one name must have the
	// same.
	Settings string
	Family   DNSFamily
	// Refresh is the wait after an answer without addresses; after one with some it is
	// their TTL, which is at least MinRefresh.
	Refresh, MinRefresh time.Duration
	// Failure is the wait after a failure; nil is Refresh. NoRefreshOnFailure leaves
	// it to the next connection to ask again.
	Failure            *Backoff
	NoRefreshOnFailure bool
	// HostTTL is how long a name stays that nobody asks for.
	HostTTL time.Duration
	// QueryTimeout bounds a look-up; 0 leaves that to the resolver.
	QueryTimeout time.Duration
	// MaxHosts bounds the names, MaxPending the connections that wait for them.
	MaxHosts, MaxPending uint32
	// Resolver is nil where the bootstrap's is to be asked.
	Resolver *Resolver
	// Known are resolved before anybody asks.
	Known []NamedPort
	// Denied are addresses that no answer may have; nil denies none.
	Denied *AddressMatcher
}

// NamedPort is a name and a port.
type NamedPort struct {
	Name string
	Port uint16
}

// AddressMatcher holds the addresses in Ranges, or with Invert the others.
type AddressMatcher struct {
	Ranges []netip.Prefix
	Invert bool
}

// Holds says whether it does. m may be nil.
func (m *AddressMatcher) Holds(a netip.Addr) bool {
	if m == nil {
		return false
	}
	for _, r := range m.Ranges {
		if r.Contains(a) {
			return !m.Invert
		}
	}
	return m.Invert
}

// ResolvedAddress is an address of a name. TTL is 0 where nobody said.
type ResolvedAddress struct {
	Addr netip.Addr
	TTL  time.Duration
}

// DNSCaches are caches that were admitted, by name.
type DNSCaches map[string]*DNSCache

// Admit remembers c, unless its name stands for something else.
func (all DNSCaches) Admit(c *DNSCache) error {
	if old := all[c.Name]; old != nil && old.Settings != c.Settings {
		return fmt.Errorf("config specified DNS cache '%s' with different settings", c.Name)
	}
	all[c.Name] = c
	return nil
}

// AdmitAll remembers all, unless it cannot.
func (all DNSCaches) AdmitAll(caches []*DNSCache) error {
	for _, c := range caches {
		if err := all.Admit(c); err != nil {
			return err
		}
	}
	return nil
}

// SNIForwardProxy is envoy.filters.network.sni_dynamic_forward_proxy: a connection
// waits until the cache knows the server name that its client asks for.
type SNIForwardProxy struct {
	Cache *DNSCache
	Port  uint16
}

// DNSCaches are those that the listener's filters use.
func (l *Listener) DNSCaches() (out []*DNSCache) {
	chains := l.FilterChains
	if l.DefaultFilterChain != nil {
		chains = append(chains[:len(chains):len(chains)], l.DefaultFilterChain)
	}
	for _, c := range chains {
		for i := range c.Filters {
			f := &c.Filters[i]
			if d := f.Discovery; d != nil && d.Default != nil {
				f = d.Default
			}
			if f.SNIForwardProxy != nil {
				out = append(out, f.SNIForwardProxy.Cache)
			}
		}
	}
	return out
}
