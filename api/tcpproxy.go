package api

import (
	"time"

	"github.com/sluice-proxy/sluice/api/substitution"
)

// Defaults of Envoy's tcp_proxy.proto.
const (
	DefaultIdleTimeout        = time.Hour
	DefaultMaxConnectAttempts = 1
)

// TCPProxy is envoy.filters.network.tcp_proxy.
type TCPProxy struct {
	StatPrefix string
	// Cluster is empty if Clusters are given, of which one is drawn by weight.
	Cluster  string
	Clusters []WeightedCluster
	// MetadataMatch narrows the hosts of a cluster with subsets: values as JSON
	// has them, by key. HashPolicy feeds balancers that hash.
	MetadataMatch map[string]any
	HashPolicy    []HashPolicy
	// IdleTimeout ends a connection on which no byte went either way for so
	// long; 0 means never.
	IdleTimeout time.Duration
	// MaxDuration ends a connection of that age, 0 means never; up to
	// MaxDurationJitter percent of it are added at random.
	MaxDuration       time.Duration
	MaxDurationJitter float64
	// MaxConnectAttempts is at least 1. Backoff is what is waited between two;
	// nil means nothing.
	MaxConnectAttempts uint32
	Backoff            *Backoff
	AccessLogs         []*AccessLog
	LogOptions         LogOptions
	ConnectMode        ConnectMode
	// MaxEarlyData bounds what is read before the upstream connection stands.
	MaxEarlyData uint32
	// ProxyProtocolTLVs are added to the PROXY header that is sent upstream.
	ProxyProtocolTLVs []TLV
	TLVMerge          TLVMerge
	// CheckDrainClose ends connections when their listener drains.
	CheckDrainClose bool
	// Tunnel, if it is not nil, is how connections reach what is behind the host.
	Tunnel *Tunnel
	// OnDemand, if it is not nil, has clusters that are not known asked for.
	OnDemand *OnDemand
	// ForHTTP says that it stands for an HTTP connection manager all of whose
	// requests go to one place; StatPrefix is that one's.
	ForHTTP bool
}

// Tunnel is tunneling_config: the host is an HTTP proxy that is asked to connect
// to Hostname.
type Tunnel struct {
	Hostname substitution.Format
	// PostPath makes it a POST to that path; empty is a CONNECT.
	PostPath string
	Headers  []TunnelHeader
}

// TunnelHeader is one of headers_to_add.
type TunnelHeader struct {
	Name   string
	Value  substitution.Format
	Action HTTPAppend
}

// WeightedCluster is one of several clusters; MetadataMatch is complete.
type WeightedCluster struct {
	Name          string
	Weight        uint32
	MetadataMatch map[string]any
}

// HashPolicy hashes the client's address, or an object of the filter state, or
// nothing that TCP has. Terminal says that, where it comes to something, it is the
// last that counts.
type HashPolicy struct {
	SourceIP    bool
	FilterState string
	Terminal    bool
}

// Backoff is a jittered exponential wait: at random up to Base, 2 Base, … Max.
type Backoff struct{ Base, Max time.Duration }

// ConnectMode says when the upstream connection is opened.
type ConnectMode uint8

// The values of upstream_connect_mode.
const (
	ConnectImmediately ConnectMode = iota
	ConnectOnData
	ConnectOnTLSHandshake
)
