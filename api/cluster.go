package api

import (
	"net/netip"
	"reflect"
	"time"
)

// Defaults of Envoy's cluster.proto and circuit_breaker.proto.
const (
	DefaultConnectTimeout         = 5 * time.Second
	DefaultMaxConnections         = 1024
	DefaultMaxPendingRequests     = 1024
	DefaultMaxRequests            = 1024
	DefaultMaxRetries             = 3
	DefaultRetryBudget            = 20  // percent
	DefaultPanicThreshold         = 50  // percent
	DefaultOverprovisioningFactor = 140 // percent
	DefaultChoiceCount            = 2
	// DefaultInitialFetchTimeout is config_source.proto's.
	DefaultInitialFetchTimeout = 15 * time.Second
)

// Discovery says where a cluster's endpoints come from.
type Discovery uint8

// The discovery types that are built.
const (
	Static Discovery = iota
	EDS
	StrictDNS
	LogicalDNS
	// ToOriginalDst makes a host of each connection's destination.
	ToOriginalDst
	// Aggregate has the hosts of other clusters.
	Aggregate
	// DynamicForwardProxy makes hosts of the names that connections bring.
	DynamicForwardProxy
)

func (d Discovery) String() string {
	switch d {
	case Static:
		return "STATIC"
	case EDS:
		return "EDS"
	case StrictDNS:
		return "STRICT_DNS"
	case LogicalDNS:
		return "LOGICAL_DNS"
	case ToOriginalDst:
		return "ORIGINAL_DST"
	case Aggregate:
		return "envoy.clusters.aggregate"
	case DynamicForwardProxy:
		return "envoy.clusters.dynamic_forward_proxy"
	}
	return "UNKNOWN"
}

// Cluster is what Envoy calls a cluster, with its endpoints joined in.
type Cluster struct {
	Name string
	// AltStatName replaces the name in `cluster.<name>.` if it is not empty.
	AltStatName string
	Discovery   Discovery
	// ServiceName is what EDS is asked for; empty means Name.
	ServiceName string
	// Source is where EDS is asked; its InitialFetchTimeout is how long the cluster
	// waits for its first assignment before it goes on without any endpoint.
	Source ConfigSource
	// DNS says how the names are resolved that Assignment has until then; nil if
	// there are none.
	DNS *DNS
	// Members are the clusters of an aggregate, in the order of their priorities.
	Members []string
	// ByDestination is nil but for ORIGINAL_DST.
	ByDestination *ByDestination
	// ByName is nil but for dynamic forward proxies.
	ByName         *ByName
	ConnectTimeout time.Duration
	// Bind says where connections come from, nil for anywhere.
	Bind *BindConfig
	// Keepalive is that of the connections, nil for none.
	Keepalive *Keepalive
	// Eyeballs orders the addresses of hosts that have several.
	Eyeballs  HappyEyeballs
	Balancing Balancing
	// PanicThreshold is common_lb_config.healthy_panic_threshold in percent:
	// under it health is ignored. 0 turns panic off.
	PanicThreshold float64
	// HTTP2 is nil unless HTTP/2 is spoken to the cluster's hosts, where HTTP is.
	HTTP2 *HTTP2
	// PerConnectionBufferLimit is the upstream side's, in bytes.
	PerConnectionBufferLimit uint32
	// CircuitBreakers are those of the DEFAULT priority. TCP has no other; the HIGH
	// ones are shown.
	CircuitBreakers, HighBreakers CircuitBreakers
	// HealthChecks are active checks; a host is healthy if all of them say so.
	HealthChecks []HealthCheck
	// Outlier is nil without outlier detection.
	Outlier *OutlierDetection
	// IgnoreNewHosts leaves hosts that were never checked out of what health is a
	// share of (ignore_new_hosts_until_first_hc).
	IgnoreNewHosts bool
	// IgnoreHealthOnRemoval lets hosts go as soon as discovery drops them; else
	// those that active checks call healthy stay.
	IgnoreHealthOnRemoval bool
	// CloseOnHealthFailure ends the connections to a host that became unhealthy.
	CloseOnHealthFailure bool
	// Assignment is never nil in a published snapshot.
	Assignment *Assignment
	// Socket is the transport_socket, SocketMatches those for endpoints by metadata.
	Socket        UpstreamSocket
	SocketMatches []SocketMatch
	// Metadata is read by access logs.
	Metadata Metadata
	// Static says that the cluster came from the bootstrap, not from CDS.
	Static bool
}

// HTTP2 is how HTTP/2 is spoken to hosts.
type HTTP2 struct {
	// ByALPN says that it is spoken to hosts that agree to it in their handshake, and
	// HTTP/1.1 to the others (auto_config).
	ByALPN bool
	// MaxStreams bounds the streams on a connection at a time, MaxRequests those over
	// its life (0: no limit). IdleTimeout ends a connection without streams; 0 never.
	MaxStreams, MaxRequests uint32
	IdleTimeout             time.Duration
	// StreamWindow and ConnWindow are what a host may send before it hears that it was
	// taken, on a stream and on a connection. 0 leaves them to the proxy.
	StreamWindow, ConnWindow uint32
	// MaxHeaders bounds a response's head, in bytes.
	MaxHeaders uint32
	// MaxControls bounds the answers that wait for the host to read; the others bound
	// frames of its that say nothing: those without bytes, in a row; PRIORITY by stream;
	// WINDOW_UPDATE by frame of data.
	MaxControls, MaxEmpty, MaxPriorities, MaxWindowUpdates uint32
	// KeepaliveInterval is how often a PING is sent, 0 for never, KeepaliveTimeout how
	// long its answer may take. MaxDuration ends the taking of streams; 0 never.
	KeepaliveInterval, KeepaliveTimeout, MaxDuration time.Duration
}

// Defaults of protocol.proto.
const (
	DefaultMaxStreams      = 1024
	DefaultHTTPIdleTimeout = time.Hour
	DefaultStreamWindow    = 16 << 20
	DefaultConnWindow      = 24 << 20
)

// DefaultHTTP2 is HTTP2 where nothing is said.
func DefaultHTTP2() HTTP2 {
	return HTTP2{MaxStreams: DefaultMaxStreams, IdleTimeout: DefaultHTTPIdleTimeout, MaxHeaders: 60 << 10,
		MaxControls: 1000, MaxEmpty: 1, MaxPriorities: 100, MaxWindowUpdates: 10}
}

// HTTP2Options are HTTP2, or the defaults for a cluster that speaks it no more.
func (c *Cluster) HTTP2Options() *HTTP2 {
	if c.HTTP2 != nil {
		return c.HTTP2
	}
	d := DefaultHTTP2()
	return &d
}

// DNSCaches are those that the cluster uses.
func (c *Cluster) DNSCaches() []*DNSCache {
	if c.ByName == nil || c.ByName.Cache == nil {
		return nil
	}
	return []*DNSCache{c.ByName.Cache}
}

// StatName is the segment that stands for the cluster in `cluster.<…>.`.
func (c *Cluster) StatName() string {
	if c.AltStatName != "" {
		return c.AltStatName
	}
	return c.Name
}

// EDSName is the name that EDS is asked for.
func (c *Cluster) EDSName() string {
	if c.ServiceName != "" {
		return c.ServiceName
	}
	return c.Name
}

// Equal compares by content.
func (c *Cluster) Equal(o *Cluster) bool { return c == o || reflect.DeepEqual(c, o) }

// CircuitBreakers are the thresholds of one priority. For TCP a pending request
// is a connection that is still connecting.
type CircuitBreakers struct {
	MaxConnections     uint32
	MaxPendingRequests uint32
	MaxRequests        uint32
	MaxRetries         uint32
	// PerHost is how many connections a host may have before others wait, nil for
	// any number.
	PerHost *uint32
	// MaxPools bounds what TCP has none of, nil for any number.
	MaxPools *uint32
	// Budget bounds retries in MaxRetries' place if it is not nil.
	Budget *RetryBudget
	// TrackRemaining shows gauges of what is left.
	TrackRemaining bool
}

// RetryBudget allows retries for Percent of the requests, or for Least if that is
// more.
type RetryBudget struct {
	Percent float64
	Least   uint32
}

// Retries is the limit of retries while there are so many requests.
func (b *CircuitBreakers) Retries(requests uint64) uint64 {
	if b.Budget == nil {
		return uint64(b.MaxRetries)
	}
	return max(uint64(b.Budget.Percent/100*float64(requests)), uint64(b.Budget.Least))
}

// Assignment is a ClusterLoadAssignment.
type Assignment struct {
	// OverprovisioningFactor in percent, 140 unless set.
	OverprovisioningFactor uint32
	// WeightedHealth takes weights for numbers where health is a share of hosts.
	WeightedHealth bool
	Drop           Drop
	// StaleAfter is when it is no longer to be believed, unless it is sent again; 0
	// is never.
	StaleAfter time.Duration
	Localities []Locality
}

// Equal compares by content.
func (a *Assignment) Equal(o *Assignment) bool { return a == o || reflect.DeepEqual(a, o) }

// Hosts is the number of endpoints.
func (a *Assignment) Hosts() int {
	n := 0
	for _, l := range a.Localities {
		n += len(l.Endpoints)
	}
	return n
}

// Locality is a LocalityLbEndpoints.
type Locality struct {
	Region, Zone, SubZone string
	// Priority 0 is the highest.
	Priority uint32
	// Weight is load_balancing_weight, 0 if unset.
	Weight    uint32
	Endpoints []Endpoint
	// Metadata is read by SocketMatches.
	Metadata Metadata
}

// Health is an endpoint's health_status as EDS gave it.
type Health uint8

// HealthStatus of health_check.proto.
const (
	HealthUnknown Health = iota
	HealthHealthy
	HealthUnhealthy
	HealthDraining
	HealthTimeout
	HealthDegraded
)

// Endpoint is a host of a cluster.
type Endpoint struct {
	// Addr has a port and no address as long as Name is not resolved.
	Addr netip.AddrPort
	// Path is that of a Unix socket, which stands in Addr's place; a leading @ means
	// an abstract name.
	Path string
	// Name is what the address is found by; empty in a published snapshot.
	Name string
	// Additional are further addresses of the same host, tried when Addr fails or
	// is slow.
	Additional []netip.AddrPort
	// Target numbers the names of a cluster from 1: what two names give are two
	// hosts, be it the same address. 0 for an address.
	Target   uint32
	Hostname string
	// Weight is at least 1.
	Weight uint32
	Health Health
	// TLVs are sent in the PROXY header, in the place of the cluster's of their types.
	TLVs []TLV
	// Check is health_check_config, nil if it says nothing.
	Check *EndpointCheck
	// Metadata is read by access logs and SocketMatches.
	Metadata Metadata
}

// Address is the endpoint's address as Envoy prints it.
func (e *Endpoint) Address() string { return BoundAddress{e.Addr, e.Path}.String() }

// Metadata is filter_metadata: values as JSON has them, by filter name and key.
type Metadata map[string]map[string]any
