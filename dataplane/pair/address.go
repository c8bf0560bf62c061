package pair

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Addresses are the two ends of a connected socket, v4-mapped ones as IPv4.
func Addresses(fd int) (remote, local netip.AddrPort) {
	return address(unix.SYS_GETPEERNAME, fd), Local(fd)
}

// Local is our end of a socket, v4-mapped ones as IPv4.
func Local(fd int) netip.AddrPort { return address(unix.SYS_GETSOCKNAME, fd) }

// address makes the call itself: x/sys/unix asks every IP socket for its
// protocol too, to tell L2TP from the rest.
func address(call uintptr, fd int) netip.AddrPort {
	var sa unix.RawSockaddrInet6 // has room for the other
	size := uint32(unsafe.Sizeof(sa))
	if _, _, err := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size))); err != 0 {
		return netip.AddrPort{}
	}
	port := func(p *uint16) uint16 { return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(p))[:]) }
	switch sa.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), port(&sa.Port))
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), port(&sa.Port))
	}
	return netip.AddrPort{}
}
