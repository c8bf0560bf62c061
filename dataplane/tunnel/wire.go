package tunnel

import (
	"syscall"

	"github.com/sluice-proxy/sluice/dataplane/pair"
)

// wire is what a tunnel is dug through.
type wire interface {
	Recv(b []byte) (int, syscall.Errno)
	Send(b []byte) (int, syscall.Errno)
	Holds() bool
	Flush() syscall.Errno
}

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
