// Package originaldst is envoy.filters.listener.original_dst: it restores the
// address that a client meant whose connection a REDIRECT rule or capture sent
// here. With TPROXY and inbound capture that address is the socket's own.
package originaldst

import (
	"net/netip"
	"unsafe"

	"github.com/sluice-proxy/sluice/dataplane/filter"
	"golang.org/x/sys/unix"
)

// Options of linux/netfilter_ipv4.h and netfilter_ipv6/ip6_tables.h.
const soOriginalDst = 80

// Factory makes the filter, which is one and the same for every socket.
type Factory struct {
	// Captured, if set, knows what a client meant whose connection the kernel's
	// routes sent here, by the socket's two ends. It is asked first.
	Captured func(remote, local netip.AddrPort) (netip.AddrPort, bool)
}

// New makes the filter of a socket.
func (f Factory) New(*filter.Socket) filter.ListenerFilter { return f }

// Release does nothing.
func (Factory) Release() {}

// Wants says that no bytes are looked at.
func (Factory) Wants() int { return 0 }

// Data is never asked.
func (Factory) Data(*filter.Socket, []byte) filter.Status { return filter.Continue }

// Accepted restores the address if there is one.
func (f Factory) Accepted(s *filter.Socket) filter.Status {
	if f.Captured != nil {
		if a, ok := f.Captured(s.Info.DirectRemote(), s.Info.DirectLocal()); ok {
			s.Info.RestoreLocal(a)
			return filter.Continue
		}
	}
	if a, ok := Lookup(s.FD, s.Info.Local().Addr().Is4()); ok && a != s.Info.Local() {
		s.Info.RestoreLocal(a)
	} else if s.Bound.IsValid() && !reaches(s.Info.DirectLocal(), s.Bound) {
		s.Info.RestoreLocal(s.Info.DirectLocal())
	}
	return filter.Continue
}

// reaches tells whether who connects to an address finds a socket bound to
// another by itself. Who does so means that socket, and nothing behind it.
func reaches(to, bound netip.AddrPort) bool {
	return to.Port() == bound.Port() && (bound.Addr().IsUnspecified() || to.Addr() == bound.Addr().Unmap())
}

// Lookup asks conntrack for the original destination of a connection.
func Lookup(fd int, v4 bool) (netip.AddrPort, bool) {
	var raw [unix.SizeofSockaddrInet6]byte
	size := uint32(len(raw))
	level := unix.SOL_IPV6
	if v4 {
		level = unix.SOL_IP
	}
	if _, _, err := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), soOriginalDst, uintptr(unsafe.Pointer(&raw)), uintptr(unsafe.Pointer(&size)), 0); err != 0 {
		return netip.AddrPort{}, false
	}
	port := uint16(raw[2])<<8 | uint16(raw[3])
	if v4 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), port), true
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(raw[8:24])).Unmap(), port), true
}
