package api

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
)

// BindAddress is an address to listen on: an IP address and port, or a Unix
// socket.
type BindAddress struct {
	// Addr is not valid for a Unix socket.
	Addr netip.AddrPort
	// IPv4Compat lets an IPv6 wildcard accept IPv4 too (IPV6_V6ONLY off).
	IPv4Compat bool
	// Path is that of a Unix socket; a leading @ means an abstract name. Mode are
	// its permissions, 0 leaves them to the umask.
	Path string
	Mode uint32
	// Socket is what is set on the address's sockets.
	Socket SocketOptions
}

// String is the address as Envoy prints it.
func (b *BindAddress) String() string { return BoundAddress{b.Addr, b.Path}.String() }

// SocketOptions are those of listener.proto, with what an additional address
// overrides. Unset ones are left to the kernel.
type SocketOptions struct {
	Transparent, Freebind *bool
	// FastOpenQueue is tcp_fast_open_queue_length.
	FastOpenQueue *uint32
	Keepalive     *Keepalive
	// Options are set in order, each in its state.
	Options []SocketOption
}

// Equal compares by content.
func (o *SocketOptions) Equal(p *SocketOptions) bool { return reflect.DeepEqual(o, p) }

// Keepalive is core.v3.TcpKeepalive: a count, and seconds; 0 leaves it to the
// kernel.
type Keepalive struct{ Probes, Time, Interval uint32 }

// SocketOption is core.v3.SocketOption: one setsockopt(2).
type SocketOption struct {
	Level, Name int
	// Value is what the kernel gets: an int in native order, or a buffer.
	Value string
	State SocketState
}

// SocketState says when an option is set.
type SocketState uint8

// The states, with the numbers of the proto.
const (
	Prebind SocketState = iota
	Bound
	Listening
)

// TrafficDirection is core.v3.TrafficDirection.
type TrafficDirection uint8

// The directions, with the numbers of the proto.
const (
	Unspecified TrafficDirection = iota
	Inbound
	Outbound
)

// DrainType is Listener.DrainType.
type DrainType uint8

// The drain types, with the numbers of the proto.
const (
	// DrainDefault drains on /healthcheck/fail too.
	DrainDefault DrainType = iota
	// DrainModifyOnly drains when the listener is modified or removed only.
	DrainModifyOnly
)

// PlaceKey names the sockets of an address among those of all listeners. Port 0
// is another port for every listener that asks for it, and for each time that it
// does.
func (l *Listener) PlaceKey(i int) string {
	b := &l.Addresses[i]
	switch {
	case b.Path != "":
		return b.Path
	case b.Addr.Port() == 0:
		return fmt.Sprintf("%v compat %t of %q at %d", b.Addr, b.IPv4Compat, l.Name, i)
	}
	return fmt.Sprintf("%v compat %t", b.Addr, b.IPv4Compat)
}

// StatName is the segment that stands for the listener in `listener.<…>.`:
// its stat prefix, or its first address with colons replaced, as Envoy has it
// (`127.0.0.1_8080`, `[__1]_8080`, `/run/x`).
func (l *Listener) StatName() string {
	if l.StatPrefix != "" {
		return l.StatPrefix
	}
	if len(l.Addresses) == 0 {
		return l.Name
	}
	return strings.ReplaceAll(l.Addresses[0].String(), ":", "_")
}
