// Package address asks sockets for their addresses and names the addresses of
// system calls. It makes the calls itself: x/sys/unix asks every IP socket for
// its protocol too, to tell L2TP from the rest.
package address

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ends are the two ends of a connected socket, v4-mapped ones as IPv4.
func Ends(fd int) (remote, local netip.AddrPort) {
	return ask(unix.SYS_GETPEERNAME, fd), Local(fd)
}

// Local is our end of a socket, v4-mapped ones as IPv4.
func Local(fd int) netip.AddrPort { return ask(unix.SYS_GETSOCKNAME, fd) }

func ask(call uintptr, fd int) netip.AddrPort {
	var r Raw
	size := r.Size()
	if _, _, err := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&r)), uintptr(unsafe.Pointer(&size))); err != 0 {
		return netip.AddrPort{}
	}
	return r.Address()
}

// Raw is an address as system calls have it: sockaddr_in6, or sockaddr_in in
// its place.
type Raw unix.RawSockaddrInet6

// Size is what an answer may take.
func (r *Raw) Size() uint32 { return uint32(unsafe.Sizeof(*r)) }

// Address is the address in it, a v4-mapped one as IPv4; invalid for families
// that are not IP.
func (r *Raw) Address() netip.AddrPort {
	switch r.Family {
	case unix.AF_INET:
		r4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(r))
		return netip.AddrPortFrom(netip.AddrFrom4(r4.Addr), binary.BigEndian.Uint16(port(&r4.Port)))
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(r.Addr).Unmap(), binary.BigEndian.Uint16(port(&r.Port)))
	}
	return netip.AddrPort{}
}

// Set puts an address in and returns its size.
func (r *Raw) Set(a netip.AddrPort) uint32 {
	*r = Raw{}
	if a.Addr().Is4() {
		r4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(r))
		r4.Family, r4.Addr = unix.AF_INET, a.Addr().As4()
		binary.BigEndian.PutUint16(port(&r4.Port), a.Port())
		return unix.SizeofSockaddrInet4
	}
	r.Family, r.Addr = unix.AF_INET6, a.Addr().As16()
	binary.BigEndian.PutUint16(port(&r.Port), a.Port())
	return unix.SizeofSockaddrInet6
}

func port(p *uint16) []byte { return (*[2]byte)(unsafe.Pointer(p))[:] }

// Bind is bind(2).
func Bind(fd int, a netip.AddrPort) error { return with(unix.SYS_BIND, fd, a) }

// Connect is connect(2) on a non-blocking socket.
func Connect(fd int, a netip.AddrPort) error { return with(unix.SYS_CONNECT, fd, a) }

func with(call uintptr, fd int, a netip.AddrPort) error {
	var r Raw
	size := r.Set(a)
	if _, _, err := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&r)), uintptr(size)); err != 0 {
		return err
	}
	return nil
}
