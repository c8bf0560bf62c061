package api

import (
	"net/netip"
	"time"
)

// Applied says what became of a snapshot.
type Applied struct {
	Generation uint64
	// Refused holds, per listener name, why it could not be put in force; the
	// version that was in force before still is. Nil if all went well.
	Refused map[string]error
}

// ListenerStatus is a listener as it stands in the plane.
type ListenerStatus struct {
	Name string
	// Bound are the addresses really bound, with the port that was given for
	// port 0, in the order of Listener.Addresses. Those that own no socket, or
	// none any more, are as configured.
	Bound []BoundAddress
	// Generation of the snapshot that last changed it.
	Generation uint64
}

// BoundAddress is an IP address and port, or the path of a Unix socket.
type BoundAddress struct {
	Addr netip.AddrPort
	Path string
}

func (b BoundAddress) String() string {
	if b.Path != "" {
		return b.Path
	}
	return b.Addr.String()
}

// ClusterStatus is a cluster as it stands in the plane.
type ClusterStatus struct {
	Cluster *Cluster
	Hosts   []HostStatus
	// Breakers and HighBreakers are the limits in force, which the runtime may have
	// changed; nil: as configured.
	Breakers, HighBreakers *CircuitBreakers
	// MaxRetries is the limit of retries that stands now.
	MaxRetries uint64
	// Outlier is nil without outlier detection.
	Outlier *OutlierStatus
}

// SuccessRate is in percent, -1 if there is nothing to tell. Local is of errors of
// local origin.
type SuccessRate struct{ External, Local float64 }

// OutlierStatus is what a cluster's hosts came to together in the last interval.
type OutlierStatus struct{ Average, Threshold SuccessRate }

// HostStatus are the figures of one host, as /clusters shows them.
type HostStatus struct {
	Endpoint              Endpoint
	Flags                 HealthFlags
	Canary                bool
	Region, Zone, SubZone string
	Priority              uint32
	CxTotal, CxActive     uint64
	CxConnectFail         uint64
	RqTotal, RqActive     uint64
	SuccessRate           SuccessRate
	// RqPendingActive are the connections that are still connecting.
	RqPendingActive uint64
}

// Path says how the bytes of a direction travel.
type Path uint8

// The paths that are built.
const (
	PathRelay  Path = iota // through user space, by recv and send
	PathSplice             // in the kernel, by the verdict
	PathPipe               // by splice(2), through a pipe of the worker's
	PathTLS                // through user space, where it is encrypted or decrypted
	PathGraft              // from peer to peer, as packets
)

func (p Path) String() string {
	return [...]string{"relay", "splice", "pipe", "relay/tls", "graft"}[p]
}

// Connection is one pair, as /connections shows it.
type Connection struct {
	ID       uint64
	Listener string
	Chain    string
	Cluster  string
	// Generation of the snapshot that the pair was born under.
	Generation uint64
	Age        time.Duration
	State      string // connecting, open, half-closed, …
	Worker     int
	// The four addresses: client -> proxy (Downstream), proxy -> endpoint (Upstream).
	DownstreamRemote, DownstreamLocal netip.AddrPort
	UpstreamLocal, UpstreamRemote     netip.AddrPort
	// GraftRefused is why the pair is not grafted, if that was asked.
	GraftRefused string
	// Request is downstream -> upstream, Response the other way.
	Request, Response DirectionStatus
}

// DirectionStatus is one direction of a pair.
type DirectionStatus struct {
	Path   Path
	Reason string
	// Bytes that the kernel counted as received from the source.
	Bytes uint64
	// Of these: moved by recv and send, by splice(2), by the verdict, and those
	// that went from peer to peer, by their positions in the stream.
	Relayed, Piped, Spliced, Grafted uint64
	// Changes of path so far.
	Changes uint64
	// Ended says that the FIN was handed on.
	Ended bool
}
