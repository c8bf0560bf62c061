package api

import (
	"net/netip"
	"reflect"
	"time"
)

// Defaults of Envoy's cluster.proto, and of the c-ares resolver.
const (
	DefaultDNSRefreshRate  = 5 * time.Second
	DefaultDNSQueryTimeout = 5 * time.Second
	DefaultDNSQueryTries   = 4
)

// DNSFamily says which addresses of a name are asked for, and in which order.
type DNSFamily uint8

// The families, with the numbers of cluster.v3.
const (
	// DNSAuto is IPv6, and IPv4 where there is none.
	DNSAuto DNSFamily = iota
	DNSV4Only
	DNSV6Only
	// DNSV4Preferred is IPv4, and IPv6 where there is none.
	DNSV4Preferred
	// DNSAll is both.
	DNSAll
)

func (f DNSFamily) String() string {
	return [...]string{"AUTO", "V4_ONLY", "V6_ONLY", "V4_PREFERRED", "ALL"}[f]
}

// DNS says how the names of a cluster's endpoints are resolved, and how often.
type DNS struct {
	Family DNSFamily
	// One takes a name's first address only, with the others in reserve, and takes
	// an answer without any for a failure (LOGICAL_DNS).
	One bool
	// Refresh is the wait after an answer, unless RespectTTL and the answer has a
	// TTL, which is at least MinRefresh; up to Jitter is added at random.
	Refresh, MinRefresh, Jitter time.Duration
	RespectTTL                  bool
	// Failure is the wait after a failure; nil is Refresh.
	Failure *Backoff
	// WithoutWarming lets the cluster serve before its first answer.
	WithoutWarming bool
	// Resolver is never nil in a published snapshot.
	Resolver *Resolver
}

// Equal compares by content.
func (d *DNS) Equal(o *DNS) bool { return d == o || reflect.DeepEqual(d, o) }

// Resolver says who is asked for addresses.
type Resolver struct {
	// System leaves it to getaddrinfo.
	System bool
	// Retries bounds how often getaddrinfo is asked again; negative is no bound.
	Retries int
	// Servers replace those of /etc/resolv.conf, or come after them.
	Servers  []netip.AddrPort
	Fallback bool
	// TCP asks by TCP only; NoSearch leaves out the search list.
	TCP, NoSearch bool
	// Rotate asks another server first each time.
	Rotate bool
	// Timeout is that of the first of Tries attempts; 0 is the default.
	Timeout time.Duration
	Tries   int
	// Payload is EDNS's; 0 is none asked for.
	Payload uint16
}
