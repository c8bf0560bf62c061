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
	// Listener is the version of the listener that took the connection, Chain the
	// filter chain that it found, or nil; both are shared.
	Listener *Listener
	Chain    *Chain

	local, remote packed
	rare          *rare

	Upstream Upstream
	// Received and Sent are the bytes from and to the client.
	Received, Sent uint64
	Flags          Flags
	// Closed is how the client's connection ended.
	Closed CloseType
}

// rare is what few connections have.
type rare struct {
	accepted *accepted
	source   *Source
	hello    *Hello
	reasons  *Reasons
	state    State
	metadata Metadata
	attempts []Attempt // but for the last
	consumed uint64

	downstreamTLS, upstreamTLS *TLS
}

// needRare is for writing.
func (i *Info) needRare() *rare {
	if i.rare == nil {
		i.rare = &rare{}
	}
	return i.rare
}

// New is what is known of a connection that was just accepted. The addresses are
// invalid on a unix socket.
func New(id uint64, l *Listener, remote, local netip.AddrPort) *Info {
	return &Info{ID: id, Start: time.Now(), Listener: l, remote: pack(remote), local: pack(local)}
}

// Listener is what connections of one version of a listener have in common.
type Listener struct {
	Name     string
	Metadata Metadata
	// Generation is that of the snapshot that the listener came with.
	Generation uint64
	// Pipe is the path of the unix socket that was accepted on, empty for TCP.
	Pipe string
	// Direction is traffic_direction by its number.
	Direction int64
}

// Chain is what connections of one filter chain have in common.
type Chain struct {
	Name     string
	Metadata Metadata
}

// ChainName is empty for a connection that found no filter chain.
func (i *Info) ChainName() string {
	if i.Chain == nil {
		return ""
	}
	return i.Chain.Name
}

// Hello is what listener filters found in the client's first bytes.
type Hello struct {
	// TransportProtocol is "tls" or "raw_buffer" once somebody has looked.
	TransportProtocol    string
	ServerName           string
	ApplicationProtocols []string
	// Proxied says that there was a PROXY header.
	Proxied bool
	// TLVs came with the PROXY header and go on to the upstream's.
	TLVs []api.TLV
	// JA3 and JA4 are fingerprints of the ClientHello, if they were asked for.
	JA3, JA4 string
}

// Hello is what was found; all empty if nothing was.
func (i *Info) Hello() Hello {
	if i.rare == nil || i.rare.hello == nil {
		return Hello{}
	}
	return *i.rare.hello
}

// Found is for listener filters to write what they found.
func (i *Info) Found() *Hello {
	r := i.needRare()
	if r.hello == nil {
		r.hello = &Hello{}
	}
	return r.hello
}

// Reasons are why things ended, in Envoy's words.
type Reasons struct {
	// Termination says why a filter ended the connection, LocalClose why the
	// proxy did.
	Termination, LocalClose string
	// DownstreamFailure is why the client's TLS failed.
	DownstreamFailure string
	// UpstreamFailure is why the last connect failed, UpstreamLocalClose why the
	// proxy closed the connection to the host.
	UpstreamFailure, UpstreamLocalClose string
}

// Reasons are those given so far.
func (i *Info) Reasons() Reasons {
	if i.rare == nil || i.rare.reasons == nil {
		return Reasons{}
	}
	return *i.rare.reasons
}

// Explain is for writing reasons.
func (i *Info) Explain() *Reasons {
	r := i.needRare()
	if r.reasons == nil {
		r.reasons = &Reasons{}
	}
	return r.reasons
}

// Source is an address and a mark for the upstream socket.
type Source struct {
	Addr netip.Addr
	Mark uint32
}

// Source is where the upstream connection is to come from, as original_src has
// it; the zero value leaves it to the kernel.
func (i *Info) Source() Source {
	if i.rare == nil || i.rare.source == nil {
		return Source{}
	}
	return *i.rare.source
}

// SetSource notes it.
func (i *Info) SetSource(s Source) { i.needRare().source = &s }

// Consumed are the bytes that listener filters took from the socket.
func (i *Info) Consumed() uint64 {
	if i.rare == nil {
		return 0
	}
	return i.rare.consumed
}

// SetConsumed notes them.
func (i *Info) SetConsumed(n uint64) {
	if n != 0 {
		i.needRare().consumed = n
	}
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
