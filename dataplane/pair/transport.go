package pair

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Transport turns what travels on a socket into the bytes of a stream, and back:
// TLS. It is the worker's, never waits, and owns nothing of the socket.
type Transport interface {
	// Recv is recv(2) of the stream: EAGAIN while there is nothing, 0 at its end. A
	// short read does not say that there is no more.
	Recv(b []byte) (int, syscall.Errno)
	// Ready tells whether Recv has something to tell: no error, or EAGAIN; end says
	// that it is the end.
	Ready() (end bool, err syscall.Errno)
	// Send is send(2): what it takes may wait in the transport, and then Holds.
	Send(b []byte) (int, syscall.Errno)
	Holds() bool
	// Flush hands what waits to the kernel: EAGAIN while something is left.
	Flush() syscall.Errno
	// CloseWrite ends the stream that way; its last words wait as those of Send do.
	CloseWrite()
}

// Plain is a socket as it is, where a Transport could be: one that takes no part in
// what travels.
type Plain int

// Recv is recv(2).
func (fd Plain) Recv(b []byte) (int, syscall.Errno) { return recv(int(fd), b, 0) }

// Send is send(2).
func (fd Plain) Send(b []byte) (int, syscall.Errno) { return send(int(fd), b) }

// Holds is never so: what was sent is the kernel's.
func (Plain) Holds() bool { return false }

// Flush has nothing to do.
func (Plain) Flush() syscall.Errno { return 0 }

// secured says that the bytes of the pair are not as they are on its sockets: it
// never leaves user space then.
func (p *Pair) secured() bool { return p.cfg.Transports != [2]Transport{} }

// transport is nil where the stream is what is on the wire.
func (e *end) transport() Transport { return e.p.cfg.Transports[e.side] }

func (e *end) recv(b []byte) (int, syscall.Errno) {
	if e.transport() != nil {
		return e.transport().Recv(b)
	}
	return recv(e.fd, b, 0)
}

func (e *end) send(b []byte) (int, syscall.Errno) {
	if e.transport() != nil {
		return e.transport().Send(b)
	}
	return send(e.fd, b)
}

// keeps says that the transport has taken bytes that the socket has not.
func (e *end) keeps() bool { return e.transport() != nil && e.transport().Holds() }

// flush hands on what the transport keeps; false says that some is left, or that
// the connection broke.
func (e *end) flush() bool {
	if !e.keeps() {
		return true
	}
	e.hurry(true)
	err := e.transport().Flush()
	if err != 0 && err != unix.EAGAIN {
		e.p.fail(e, false)
	}
	return err == 0
}

// endStream tells the peer that no more comes. False says that this is still
// under way. Of a transport that is all: Envoy's TLS leaves the socket open, too.
func (e *end) endStream() bool {
	if e.transport() != nil {
		e.transport().CloseWrite()
		return e.flush()
	}
	if err := shutdownWrite(e.fd); err != 0 && err != unix.ENOTCONN {
		e.p.fail(e, false)
	}
	return true
}

// farewell says a last word before an orderly close. False says that the socket has
// no room for it; who does not read it learns of the end from the socket.
func (e *end) farewell() bool {
	if e.transport() == nil {
		return true
	}
	e.transport().CloseWrite()
	return e.transport().Flush() != unix.EAGAIN
}

// arrived tells whether there is something of the stream to ask the gate about:
// the socket's being readable says so only of a socket without a transport.
func (d *direction) arrived() (end, ok bool) {
	t := d.src().transport()
	if t == nil {
		return d.src().fin, true
	}
	end, err := t.Ready()
	if err != 0 && err != unix.EAGAIN && !d.src().failed {
		d.p.fail(d.src(), true)
	}
	return end, err == 0
}
