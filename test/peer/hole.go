package peer

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Hole is an address on 127.0.0.1 at which connects neither succeed nor fail: a
// listening socket with its backlog full, so that the kernel drops each SYN.
type Hole struct {
	addr netip.AddrPort
	fds  []int
}

// NewHole opens a hole. Linux only in its details: a backlog of 0 takes one.
func NewHole() (*Hole, error) {
	h := &Hole{}
	fd, err := h.socket()
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	if err == nil {
		err = unix.Listen(fd, 0)
	}
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("open hole: %w", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("open hole: %w", err)
	}
	h.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port))
	for range 4 {
		c, err := h.socket()
		if err == nil {
			if err = unix.Connect(c, sa); errors.Is(err, unix.EINPROGRESS) {
				err = nil
			}
		}
		if err != nil {
			h.Close()
			return nil, fmt.Errorf("fill hole: %w", err)
		}
	}
	return h, nil
}

func (h *Hole) socket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	h.fds = append(h.fds, fd)
	return fd, nil
}

// Addr is the hole's address.
func (h *Hole) Addr() netip.AddrPort { return h.addr }

// Close closes it: what is still connecting is then refused.
func (h *Hole) Close() error {
	for _, fd := range h.fds {
		unix.Close(fd)
	}
	h.fds = nil
	return nil
}

// Refused returns an address on 127.0.0.1 that refuses connects until release
// is called: the port is bound, but nobody listens on it.
func Refused() (addr netip.AddrPort, release func(), err error) {
	h := &Hole{}
	fd, err := h.socket()
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	if err != nil {
		h.Close()
		return addr, nil, fmt.Errorf("bind refusing port: %w", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		h.Close()
		return addr, nil, fmt.Errorf("bind refusing port: %w", err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port)), func() { h.Close() }, nil
}
