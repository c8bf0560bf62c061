// Package stream holds what is known of one downstream connection from its
// accept to its end: Envoy's StreamInfo. Listener filters write what they find,
// the filter chain match and the network filters read it, access logs print it.
package stream

import (
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// Info is one connection's. It is for its worker's thread, until the connection
// has ended.
type Info struct {
	ID       uint64
	Start    time.Time
	Listener string
	// Generation is that of the snapshot that the listener came with.
	Generation uint64

	// Local is where the client meant to go: the address accepted on, or what a
	// listener filter restored. Remote is who the client is, after the PROXY
	// protocol. DirectRemote is the peer of the socket. v4-mapped addresses are
	// IPv4. All are invalid on a unix socket, whose path is Pipe.
	Local, Remote netip.AddrPort
	Pipe          string
	// DirectLocal is the address accepted on, before anything was restored.
	DirectLocal, DirectRemote netip.AddrPort
	// LocalRestored says that Local is not the address accepted on.
	LocalRestored bool

	// Source is where the upstream connection is to come from, as original_src
	// has it; the zero value leaves it to the kernel.
	Source Source

	// TransportProtocol is "tls" or "raw_buffer" once somebody has looked.
	TransportProtocol    string
	ServerName           string
	ApplicationProtocols []string
	// TLVs came with the PROXY header and go on to the upstream's.
	TLVs []api.TLV
	// JA3 and JA4 are fingerprints of the ClientHello, if they were asked for.
	JA3, JA4 string

	FilterChain string
	Flags       Flags
	// TerminationDetails says why a filter ended the connection, LocalClose why
	// the proxy did, both in Envoy's words.
	TerminationDetails, LocalClose string
	// Closed is how the client's connection ended.
	Closed   CloseType
	State    State
	Metadata Metadata

	// Proxied says that the connection found a filter chain.
	Proxied  bool
	Upstream Upstream
	// Received and Sent are the bytes from and to the client.
	Received, Sent uint64
	// WireReceived counts besides what listener filters took.
	WireReceived uint64
	// End is when the connection ended.
	End time.Time
}

// Source is an address and a mark for the upstream socket.
type Source struct {
	Addr netip.Addr
	Mark uint32
}

// Upstream is what is known of the other side.
type Upstream struct {
	// Cluster is the name, ClusterStat what statistics call it.
	Cluster, ClusterStat string
	// Host is the endpoint picked last, Local our address of the connection to
	// it. HostName is the endpoint's hostname, if it has one; Pipe its path, if
	// it is a unix socket.
	Host, Local    netip.AddrPort
	HostName, Pipe string
	// HostMetadata and ClusterMetadata are filter_metadata.
	HostMetadata, ClusterMetadata Metadata
	// Attempts are the hosts that were connected to, in order.
	Attempts []Attempt
	// ConnectionID is that of the connection that stands, 0 for none.
	ConnectionID uint64
	// Failure is why the last attempt failed, LocalClose why we closed.
	Failure, LocalClose string
	Closed              CloseType
	// Dialed is when the first attempt began, Connected how long the one that
	// succeeded took.
	Dialed         time.Time
	Connected      time.Duration
	Received, Sent uint64
}

// Attempt is one connect.
type Attempt struct {
	Host     netip.AddrPort
	HostName string
	// ConnectionID is 0 if nothing came of it.
	ConnectionID uint64
}

// CloseType is how a connection ended, as the socket told.
type CloseType uint8

// Envoy's StreamInfo::DetectedCloseType.
const (
	Normal CloseType = iota
	LocalCloseReset
	RemoteReset
)

func (c CloseType) String() string { return [...]string{"Normal", "LocalReset", "RemoteReset"}[c] }

// Duration is the length of the connection so far, or in the end.
func (i *Info) Duration() time.Duration {
	if i.End.IsZero() {
		return time.Since(i.Start)
	}
	return i.End.Sub(i.Start)
}

// Object is a filter state object: its string form, and how it may be used.
type Object struct {
	Value string
	// Address says that the object is an address, which Value prints.
	Address  bool
	ReadOnly bool
	// Shared says with whom upstream the object is shared.
	Shared Sharing
}

// Sharing is Envoy's StreamSharing.
type Sharing uint8

// The ways to share a filter state object with the upstream connection.
const (
	None Sharing = iota
	Once
	Transitive
)

// State are the filter state objects by key.
type State map[string]Object

// Set sets an object; it returns false if there is one that is read-only.
func (s *State) Set(key string, o Object) bool {
	if have, ok := (*s)[key]; ok && have.ReadOnly {
		return false
	}
	if *s == nil {
		*s = State{}
	}
	(*s)[key] = o
	return true
}

// Metadata is dynamic metadata: values as JSON has them, by filter name and key.
type Metadata map[string]map[string]any

// Set sets one value.
func (m *Metadata) Set(filter, key string, value any) {
	if *m == nil {
		*m = Metadata{}
	}
	if (*m)[filter] == nil {
		(*m)[filter] = map[string]any{}
	}
	(*m)[filter][key] = value
}
