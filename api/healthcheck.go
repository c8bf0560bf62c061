package api

import (
	"net/netip"
	"time"
)

// Defaults of Envoy's health_check.proto.
const (
	DefaultNoTrafficInterval  = time.Minute
	DefaultResponseBufferSize = 1024
)

// HealthCheck is one active check of a cluster's hosts; exactly one of TCP, HTTP
// and GRPC is set. What the proto leaves to another field is filled in.
type HealthCheck struct {
	// Name is set where a cluster has several; its figures stand under
	// `health_check.name.<name>.` then.
	Name string

	Timeout, Interval                           time.Duration
	InitialJitter, IntervalJitter               time.Duration
	IntervalJitterPercent                       uint32
	NoTrafficInterval, NoTrafficHealthyInterval time.Duration
	UnhealthyInterval, UnhealthyEdgeInterval    time.Duration
	HealthyEdgeInterval                         time.Duration
	UnhealthyThreshold, HealthyThreshold        uint32
	// ReuseConnection keeps a connection from check to check.
	ReuseConnection bool

	TCP  *TCPCheck
	HTTP *HTTPCheck
	GRPC *GRPCCheck

	// EventLogs are the paths of the files that events are written to.
	EventLogs                           []string
	AlwaysLogFailures, AlwaysLogSuccess bool

	// ALPN and SocketMatch are for the TLS of the check's connections:
	// tls_options.alpn_protocols and transport_socket_match_criteria.
	ALPN        []string
	SocketMatch map[string]any
}

// TCPCheck is a tcp_health_check.
type TCPCheck struct {
	Send []byte
	// Receive are found in what the host sends, in order; without any it is
	// enough that the connection stands.
	Receive [][]byte
	// ProxyProtocol is the version of the header that goes first, 0 for none.
	ProxyProtocol uint8
}

// HTTPCheck is an http_health_check.
type HTTPCheck struct {
	Host, Path, Method  string
	Send                []byte
	Receive             [][]byte
	ResponseBufferSize  uint64
	Expected, Retriable []StatusRange
	Add                 []HTTPHeader
	Remove              []string
	HTTP2               bool
	// ServiceName, if it is not nil, has to hold for the cluster that the host
	// says it is in.
	ServiceName *StringMatch
}

// StatusRange are HTTP statuses from Start on, less than End.
type StatusRange struct{ Start, End int }

// GRPCCheck is a grpc_health_check, of grpc.health.v1.Health.
type GRPCCheck struct {
	Service, Authority string
	Metadata           []HTTPHeader
}

// EndpointCheck is an endpoint's health_check_config.
type EndpointCheck struct {
	// Addr is what is checked instead of the endpoint's own address, invalid for
	// that; Port, if it is not 0, instead of its port.
	Addr     netip.AddrPort
	Port     uint16
	Hostname string
	// Disabled takes the host out of active checks: it counts as healthy.
	Disabled bool
}

// CheckAddr is the address that active checks go to.
func (e *Endpoint) CheckAddr() netip.AddrPort {
	at := e.Addr
	if e.Check == nil {
		return at
	}
	if e.Check.Addr.IsValid() {
		at = e.Check.Addr
	}
	if e.Check.Port != 0 {
		at = netip.AddrPortFrom(at.Addr(), e.Check.Port)
	}
	return at
}

// Checked says whether active checks, if there are any, look at the endpoint.
func (e *Endpoint) Checked() bool { return e.Check == nil || !e.Check.Disabled }
