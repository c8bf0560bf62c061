package peer

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Dial connects from from, or from anywhere if it is the zero value. Unlike
// net.Dial it gives the connection also if the other end has reset it by the time
// that the caller is awake: what was sent before, and the reset, are there to be
// read. So a port that refuses is seen at the first read.
func Dial(from, to netip.AddrPort, patience time.Duration) (*net.TCPConn, error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("dial %v: make socket: %w", to, err)
	}
	f := os.NewFile(uintptr(fd), "dialled")
	defer f.Close()                                                                       // FileConn duplicates it
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil { // as net.Dial does
		return nil, fmt.Errorf("dial %v: set no delay: %w", to, err)
	}
	if from.IsValid() {
		if err := unix.Bind(fd, sockaddr(from)); err != nil {
			return nil, fmt.Errorf("dial %v: bind %v: %w", to, from, err)
		}
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil && err != unix.EINPROGRESS {
		return nil, fmt.Errorf("dial %v: %w", to, err)
	}
	deadline := time.Now().Add(patience)
	for {
		events := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(events, max(int(time.Until(deadline).Milliseconds()), 0))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, fmt.Errorf("dial %v: poll: %w", to, err)
		case n == 0:
			return nil, fmt.Errorf("dial %v: %w", to, os.ErrDeadlineExceeded)
		default:
			c, err := net.FileConn(f)
			if err != nil {
				return nil, fmt.Errorf("dial %v: %w", to, err)
			}
			return c.(*net.TCPConn), nil
		}
	}
}

func sockaddr(ap netip.AddrPort) unix.Sockaddr {
	if ap.Addr().Is6() {
		return &unix.SockaddrInet6{Addr: ap.Addr().As16(), Port: int(ap.Port())}
	}
	return &unix.SockaddrInet4{Addr: ap.Addr().As4(), Port: int(ap.Port())}
}
