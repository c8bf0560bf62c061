// Package forwarder has the ways by which user space can move bytes from one
// socket to another on Linux, each as small as it can be: to count what each
// costs by nature. They block, one thread for each direction, and take care of
// nothing: no limits, no half-close.
package forwarder

import (
	"fmt"
	"net/netip"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// bufferSize is the most that is moved at once.
const bufferSize = 64 << 10

// mover moves bytes from one blocking socket to the other until either ends.
type mover func(from, to int) error

// movers by the names that Forward takes.
var movers = map[string]mover{"readwrite": readWrite, "splice": splice, "aio": aio, "uring": uring}

// Names of all ways.
func Names() []string { return []string{"readwrite", "splice", "aio", "uring"} }

// Forward listens and forwards connections, up to a few at a time, until it
// fails.
func Forward(name string, listen, server netip.AddrPort) error {
	move, ok := movers[name]
	if !ok {
		return fmt.Errorf("forward: %q is none of %v", name, Names())
	}
	// The threads keep their processors while they wait, and nothing is
	// collected, which would wait for them.
	runtime.GOMAXPROCS(16)
	debug.SetGCPercent(-1)
	l, err := listenOn(listen)
	if err != nil {
		return err
	}
	for {
		down, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		up, err := connectTo(server)
		if err != nil {
			return err
		}
		prepare(down)
		prepare(up)
		go pair(move, down, up)
	}
}

func pair(move mover, down, up int) {
	back := make(chan error)
	go thread(move, up, down, back)
	runtime.LockOSThread()
	err := move(down, up)
	// Whichever ends first wakes the other.
	_ = unix.Shutdown(up, unix.SHUT_RDWR)
	_ = unix.Shutdown(down, unix.SHUT_RDWR)
	if e := <-back; err == nil {
		err = e
	}
	unix.Close(down)
	unix.Close(up)
	if err != nil {
		fmt.Println(err)
	}
}

func thread(move mover, from, to int, done chan<- error) {
	runtime.LockOSThread()
	err := move(from, to)
	_ = unix.Shutdown(to, unix.SHUT_RDWR)
	_ = unix.Shutdown(from, unix.SHUT_RDWR)
	done <- err
}

func listenOn(ap netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	if err := unix.Bind(fd, sockaddr(ap)); err != nil {
		return -1, fmt.Errorf("bind %s: %w", ap, err)
	}
	if err := unix.Listen(fd, 128); err != nil {
		return -1, fmt.Errorf("listen on %s: %w", ap, err)
	}
	return fd, nil
}

func connectTo(ap netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	if err := unix.Connect(fd, sockaddr(ap)); err != nil {
		return -1, fmt.Errorf("connect to %s: %w", ap, err)
	}
	return fd, nil
}

// prepare cannot fail on a TCP socket.
func prepare(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
}

func sockaddr(ap netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
}

// ended tells of errors that are but the end of a connection.
func ended(e unix.Errno) bool {
	return e == unix.ECONNRESET || e == unix.EPIPE || e == unix.ENOTCONN || e == unix.ECANCELED
}
