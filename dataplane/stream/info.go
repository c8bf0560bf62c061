// Package stream holds what is known of one downstream connection from its
// accept to its end: Envoy's StreamInfo. Listener filters write what they find,
// the filter chain match and the network filters read it, access logs print it.
package stream

import (
	"net/netip"
	"time"
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
	Local, Remote, DirectRemote netip.AddrPort
	Pipe                        string
	// LocalRestored says that Local is not the address accepted on.
	LocalRestored bool

	// TransportProtocol is "tls" or "raw_buffer" once somebody has looked.
	TransportProtocol    string
	ServerName           string
	ApplicationProtocols []string

	FilterChain string
	Flags       Flags
	// TerminationDetails says why the proxy ended the connection, in Envoy's words.
	TerminationDetails string
	State              State
	Metadata           Metadata

	Upstream Upstream
	// Received and Sent are the bytes from and to the client.
	Received, Sent uint64
	// End is when the connection ended.
	End time.Time
}

// Upstream is what is known of the other side.
type Upstream struct {
	Cluster string
	// Host is the endpoint picked, Local our address of the connection to it.
	Host, Local netip.AddrPort
	// HostName is the endpoint's hostname, if it has one.
	HostName string
	// Attempts counts connects, the first included.
	Attempts uint32
	// Failure is why the last attempt failed.
	Failure string
	// Connected is how long the connect that succeeded took.
	Connected      time.Duration
	Received, Sent uint64
}

// Duration is the length of the connection so far, or in the end.
func (i *Info) Duration() time.Duration {
	if i.End.IsZero() {
		return time.Since(i.Start)
	}
	return i.End.Sub(i.Start)
}

// Object is a filter state object: its string form, and how it may be used.
type Object struct {
	Value    string
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
