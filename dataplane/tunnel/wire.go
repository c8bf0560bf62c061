package tunnel

import (
	"syscall"

	"github.com/sluice-proxy/sluice/dataplane/pair"
	"golang.org/x/sys/unix"
)

// wire is what a tunnel is dug through.
type wire interface {
	Recv(b []byte) (int, syscall.Errno)
	Send(b []byte) (int, syscall.Errno)
	Holds() bool
	Flush() syscall.Errno
}

// plain is a socket as it is.
type plain int

func errno(err error) syscall.Errno {
	e, _ := err.(syscall.Errno)
	return e
}

// Recv is recv(2).
func (fd plain) Recv(b []byte) (int, syscall.Errno) {
	for {
		n, _, err := unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return max(n, 0), errno(err)
		}
	}
}

// Send is send(2).
func (fd plain) Send(b []byte) (int, syscall.Errno) {
	for {
		n, err := unix.SendmsgN(int(fd), b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return max(n, 0), errno(err)
		}
	}
}

// Holds is never so: what was sent is the kernel's.
func (plain) Holds() bool { return false }

// Flush has nothing to do.
func (plain) Flush() syscall.Errno { return 0 }

// ahead is a transport of which some bytes were read already.
type ahead struct {
	pair.Transport
	in []byte
}

// Recv gives these first.
func (a *ahead) Recv(b []byte) (int, syscall.Errno) {
	if len(a.in) > 0 {
		n := copy(b, a.in)
		a.in = a.in[n:]
		return n, 0
	}
	return a.Transport.Recv(b)
}

// Ready tells whether Recv has something to tell.
func (a *ahead) Ready() (bool, syscall.Errno) {
	if len(a.in) > 0 {
		return false, 0
	}
	return a.Transport.Ready()
}
