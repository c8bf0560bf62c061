package bpf

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
)

// Refusal is why a pair cannot be grafted.
type Refusal uint8

// Refusals of user space; those of the program are in join.bpf.c.
const (
	refusalSlots = Refusal(joinRefusalREFUSAL_MAX) + iota
	refusalAttach
	refusalFamilies
)

var refusals = [...]string{
	joinRefusalREFUSAL_REQUEST:      "malformed request",
	joinRefusalREFUSAL_NO_SOCKET:    "no connection with its addresses: they are translated on the way, or it is bound to a device",
	joinRefusalREFUSAL_STATE:        "half-closed",
	joinRefusalREFUSAL_OUT_OF_ORDER: "segments wait for a lost one",
	joinRefusalREFUSAL_REPAIR:       "a socket under repair",
	joinRefusalREFUSAL_TIMESTAMPS:   "TCP timestamps on one side only",
	joinRefusalREFUSAL_TIME_UNIT:    "TCP timestamps of different units",
	joinRefusalREFUSAL_SACK:         "SACK on one side only",
	joinRefusalREFUSAL_ECN:          "ECN",
	joinRefusalREFUSAL_SIGNED:       "signed segments",
	joinRefusalREFUSAL_MPTCP:        "MPTCP",
	joinRefusalREFUSAL_ULP:          "a protocol on top of TCP in the kernel",
	joinRefusalREFUSAL_URGENT:       "urgent data",
	joinRefusalREFUSAL_MSS:          "segments of one side are too large for the other",
	joinRefusalREFUSAL_MTU:          "packets of one side are too large for the other's path",
	joinRefusalREFUSAL_NO_ROUTE:     "a socket without a route",
	joinRefusalREFUSAL_ASYMMETRIC:   "packets come by one device and leave by another",
	joinRefusalREFUSAL_BOUND:        "bound to a device",
	joinRefusalREFUSAL_XFRM:         "IPsec",
	joinRefusalREFUSAL_NO_ETHERNET:  "a device without Ethernet frames",
	joinRefusalREFUSAL_DEVICE:       "a device without the programs",
	joinRefusalREFUSAL_LOCAL:        "from outside to an address of this host that no device has",
	joinRefusalREFUSAL_TAKEN:        "its addresses were grafted a moment ago",
	refusalSlots:                    "as many pairs are grafted as there is room for",
	refusalAttach:                   "the programs cannot be attached to a device",
	refusalFamilies:                 "IPv4 on one side and IPv6 on the other",
}

func (r Refusal) Error() string { return refusals[r] }

// Later says that the reason may pass.
func (r Refusal) Later() bool {
	switch r {
	case Refusal(joinRefusalREFUSAL_OUT_OF_ORDER), Refusal(joinRefusalREFUSAL_NO_ROUTE), Refusal(joinRefusalREFUSAL_TAKEN), refusalSlots:
		return true
	}
	return false
}

// Ends are the addresses of a socket.
type Ends struct{ Local, Remote netip.AddrPort }

// arriving is how packets for the socket are addressed.
func (e Ends) arriving() (t graftTuple) {
	source, dest := e.Remote.Addr().As16(), e.Local.Addr().As16()
	for i := range 4 {
		t.Source[i] = binary.NativeEndian.Uint32(source[4*i:])
		t.Dest[i] = binary.NativeEndian.Uint32(dest[4*i:])
	}
	t.SourcePort, t.DestPort = bigEndian(e.Remote.Port()), bigEndian(e.Local.Port())
	return t
}

// joinRequest is struct request of join.bpf.c.
type joinRequest struct {
	_                               [16]byte
	Slot, Generation, Worker, Local uint32
	Client, Server                  graftTuple
}

func (t *graftTuple) turned() graftTuple {
	return graftTuple{Source: t.Dest, Dest: t.Source, SourcePort: t.DestPort, DestPort: t.SourcePort}
}

// Join grafts a pair: from here on packets of each side go to the other, and what
// the two sockets hold goes on beside (Settled, Activate). The caller holds no byte
// that it has read and not handed on, and nobody else touches the sockets
// meanwhile. The error is a Refusal if the pair is as it was.
func (g *Graft) Join(worker int, client, server Ends) (Grafted, error) {
	if client.Remote.Addr().Unmap().Is4() != server.Remote.Addr().Unmap().Is4() {
		return Grafted{}, refusalFamilies
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.sweepLocked(now)
	slot, ok := g.free.take(now)
	if !ok {
		return Grafted{}, refusalSlots
	}
	generation := atomic.LoadUint32(&g.graft(slot).Generation) + 1
	request := joinRequest{Slot: slot, Generation: generation, Worker: uint32(worker), Client: client.arriving(), Server: server.arriving()}
	request.Local = cmp.Or(g.knownDevice(server.Remote.Addr(), now), g.knownDevice(client.Remote.Addr(), now))
	err := g.join(&request)
	for tries := 0; err != nil && tries < 3; tries++ {
		if err = g.provide(&request, err, client, server, now); err == nil {
			err = g.join(&request)
		}
	}
	if err != nil {
		g.free.put(slot, now)
		return Grafted{}, err
	}
	return Grafted{owner: g, slot: slot, generation: generation, grace: g.grace.begin()}, nil
}

// provide makes up for what the program misses, if that is why it refused: itself
// at a device, or the device of an address of this host. With g.mu held, as all
// below.
func (g *Graft) provide(q *joinRequest, why error, client, server Ends, now time.Time) error {
	devices := g.graft(q.Slot).Devices
	switch {
	case errors.Is(why, Refusal(joinRefusalREFUSAL_DEVICE)):
	case errors.Is(why, Refusal(joinRefusalREFUSAL_LOCAL)):
		end := server
		if devices[0] == loopback {
			end = client
		}
		if q.Local = g.deviceOf(end.Remote.Addr(), now); q.Local == 0 {
			return why
		}
		devices = [2]uint32{q.Local}
	default:
		return why
	}
	for _, device := range devices {
		if device == 0 {
			continue
		}
		if err := g.attach(device); err != nil {
			return fmt.Errorf("%w: %w", refusalAttach, err)
		}
	}
	return nil
}

// deviceAge is how long an address is believed to be the same device's.
const deviceAge = time.Second

// knownDevice is the device that an address was seen at a moment ago, if it was.
func (g *Graft) knownDevice(a netip.Addr, now time.Time) uint32 {
	if now.Sub(g.addressesRead) < deviceAge {
		return g.addresses[a.Unmap()]
	}
	return 0
}

// deviceOf is the device of the caller's namespace that has the address; 0 if none.
func (g *Graft) deviceOf(a netip.Addr, now time.Time) uint32 {
	if a = a.Unmap(); a.IsLoopback() {
		return loopback
	}
	clear(g.addresses)
	g.addressesRead = now
	all, err := net.Interfaces()
	if err != nil {
		return 0
	}
	for i := range all {
		has, _ := all[i].Addrs() // one that has gone meanwhile has none
		for _, h := range has {
			if p, err := netip.ParsePrefix(h.String()); err == nil {
				g.addresses[p.Addr()] = uint32(all[i].Index)
			}
		}
	}
	return g.addresses[a]
}

func (g *Graft) join(q *joinRequest) error {
	code, err := g.joining.Join.Run(&ebpf.RunOptions{Data: unsafe.Slice((*byte)(unsafe.Pointer(q)), unsafe.Sizeof(*q)), Repeat: 1})
	if err != nil {
		return fmt.Errorf("run join: %w", err)
	}
	if code != 0 {
		return Refusal(code)
	}
	return nil
}
