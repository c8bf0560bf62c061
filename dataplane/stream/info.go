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
// has ended. There is one for every open connection, mostly an idle one, so it
// holds what every connection has; what few have, or all have alike, it points to.
type Info struct {
	ID    uint64
	Start time.Time
	// Lasted is the length of the connection, once it has ended.
	Lasted time.Duration
	// Listener is the version of the listener that took the connection, shared.
	Listener    *Listener
	FilterChain string

	local, remote packed
	// accepted are the addresses of the socket, where they are others.
	accepted *accepted
	// Source is where the upstream connection is to come from, as original_src
	// has it; nil leaves it to the kernel.
	Source  *Source
	hello   *Hello
	reasons *Reasons

	State    State
	Metadata Metadata

	Upstream Upstream
	// Received and Sent are the bytes from and to the client.
	Received, Sent uint64
	// Consumed are the bytes that listener filters took from the socket before.
	Consumed uint64
	Flags    Flags
	// Closed is how the client's connection ended.
	Closed CloseType
	// Proxied says that the connection found a filter chain.
	Proxied bool
}

// New is what is known of a connection that was just accepted. The addresses are
// invalid on a unix socket.
func New(id uint64, l *Listener, remote, local netip.AddrPort) *Info {
	return &Info{ID: id, Start: time.Now(), Listener: l, remote: pack(remote), local: pack(local)}
}

// Listener is what connections of one version of a listener have in common.
type Listener struct {
	Name string
	// Generation is that of the snapshot that the listener came with.
	Generation uint64
	// Pipe is the path of the unix socket that was accepted on, empty for TCP.
	Pipe string
}

// Hello is what listener filters found in the client's first bytes.
type Hello struct {
	// TransportProtocol is "tls" or "raw_buffer" once somebody has looked.
	TransportProtocol    string
	ServerName           string
	ApplicationProtocols []string
	// TLVs came with the PROXY header and go on to the upstream's.
	TLVs []api.TLV
	// JA3 and JA4 are fingerprints of the ClientHello, if they were asked for.
	JA3, JA4 string
}

// Hello is what was found; all empty if nothing was.
func (i *Info) Hello() Hello {
	if i.hello == nil {
		return Hello{}
	}
	return *i.hello
}

// Found is for listener filters to write what they found.
func (i *Info) Found() *Hello {
	if i.hello == nil {
		i.hello = &Hello{}
	}
	return i.hello
}

// Reasons are why things ended, in Envoy's words.
type Reasons struct {
	// Termination says why a filter ended the connection, LocalClose why the
	// proxy did.
	Termination, LocalClose string
	// UpstreamFailure is why the last connect failed, UpstreamLocalClose why the
	// proxy closed the connection to the host.
	UpstreamFailure, UpstreamLocalClose string
}

// Reasons are those given so far.
func (i *Info) Reasons() Reasons {
	if i.reasons == nil {
		return Reasons{}
	}
	return *i.reasons
}

// Explain is for writing reasons.
func (i *Info) Explain() *Reasons {
	if i.reasons == nil {
		i.reasons = &Reasons{}
	}
	return i.reasons
}

// Source is an address and a mark for the upstream socket.
type Source struct {
	Addr netip.Addr
	Mark uint32
}

// Duration is the length of the connection so far, or in the end.
func (i *Info) Duration() time.Duration {
	if i.Lasted == 0 {
		return time.Since(i.Start)
	}
	return i.Lasted
}

// Pipe is the path of the unix socket that was accepted on, empty for TCP.
func (i *Info) Pipe() string {
	if i.Listener == nil {
		return ""
	}
	return i.Listener.Pipe
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
