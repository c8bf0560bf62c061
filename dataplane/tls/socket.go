package tls

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a non-blocking descriptor as the net.Conn that crypto/tls wants. Write
// never waits: what the kernel does not take is kept. Read waits in a handshake,
// and fails with errAgain after it; of that error crypto/tls can be called again.
type socket struct {
	owner   *Conn
	limiter *Limiter
	local   netip.AddrPort
	peer    netip.AddrPort
	wake    chan struct{}

	// of the handshake's goroutine, then of the worker
	waits bool

	mu     sync.Mutex // while a goroutine has the socket, it may be closed
	closed bool
	fd     int
	under  net.Conn // in the descriptor's place once a library has it
	out    *[]byte  // what the kernel has not taken, from off on; nil: nothing
	off    int
	broken syscall.Errno // of a send, or errFlood
}

// again is errAgain's type: crypto/tls goes on after errors that are temporary.
type again struct{}

func (again) Error() string   { return "resource temporarily unavailable" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

// errAgain says that there is nothing to be read now.
var errAgain net.Error = again{}

// Read reads ciphertext.
func (s *socket) Read(b []byte) (int, error) {
	if s.under != nil {
		return s.under.Read(b)
	}
	for {
		n, err := s.recv(b)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN && s.waits:
			s.limiter.release()
			<-s.wake
			s.limiter.acquire()
		case err == unix.EAGAIN:
			return 0, errAgain
		case err != 0:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (s *socket) recv(b []byte) (int, syscall.Errno) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, unix.EBADF
	}
	if s.waits {
		s.flushLocked() // of a flight that did not fit
	}
	n, _, err := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	if err != 0 {
		return 0, err
	}
	return int(n), 0
}

// Write takes ciphertext, all of it, unless more waits than Send leaves behind: so
// does a peer that has key updates answered and reads no answer.
func (s *socket) Write(b []byte) (int, error) {
	if s.under != nil {
		return s.under.Write(b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return 0, unix.EBADF
	case s.out == nil:
		s.out, s.off = blocks.Get().(*[]byte), 0
	case len(*s.out)-s.off > maxWaiting:
		s.broken = errFlood
		return 0, errFlood
	case len(*s.out)+len(b) > cap(*s.out):
		*s.out, s.off = (*s.out)[:copy(*s.out, (*s.out)[s.off:])], 0
	}
	*s.out = append(*s.out, b...)
	if s.waits {
		s.flushLocked()
	}
	return len(b), nil
}

// blocks are where ciphertext waits for the kernel. What grew beyond their size is
// not kept.
var blocks = sync.Pool{New: func() any {
	b := make([]byte, 0, blockSize)
	return &b
}}

// blockSize holds what one Send takes, and the records' heads and tails.
const blockSize = sendSize + 4<<10

// maxWaiting is how much may wait before more is an error.
const maxWaiting = 2 * blockSize

// errFlood is that error.
const errFlood = unix.ENOBUFS

// holds tells whether ciphertext waits.
func (s *socket) holds() bool { return s.out != nil }

// flush hands what waits to the kernel: EAGAIN while something is left.
func (s *socket) flush() syscall.Errno {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flushLocked()
}

func (s *socket) flushLocked() syscall.Errno {
	for s.out != nil && !s.closed {
		if s.broken != 0 {
			return s.broken
		}
		b := (*s.out)[s.off:]
		n, _, err := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			return unix.EAGAIN
		case err != 0:
			s.broken = err
			return err
		}
		if s.off += int(n); s.off == len(*s.out) {
			s.dropLocked()
		}
	}
	return 0
}

func (s *socket) dropLocked() {
	if s.out != nil && cap(*s.out) <= 2*blockSize {
		*s.out = (*s.out)[:0]
		blocks.Put(s.out)
	}
	s.out, s.off = nil, 0
}

// detach lets go of the descriptor, which somebody is about to close.
func (s *socket) detach() {
	s.mu.Lock()
	s.closed = true
	s.dropLocked()
	s.mu.Unlock()
	s.rouse()
}

// rouse wakes a Read that waits.
func (s *socket) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close closes what a library has; the descriptor belongs to others.
func (s *socket) Close() error {
	if s.under != nil {
		return s.under.Close()
	}
	return nil
}

// RemoteAddr names the peer: crypto/tls keeps sessions of a client by it.
func (s *socket) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.peer) }

// LocalAddr is asked for by nobody.
func (s *socket) LocalAddr() net.Addr { return &net.TCPAddr{} }

// SetDeadline and its like have an effect for a library alone: else time is the
// worker's.
func (s *socket) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline bounds reads.
func (s *socket) SetReadDeadline(t time.Time) error {
	if s.under != nil {
		return s.under.SetReadDeadline(t)
	}
	return nil
}

// SetWriteDeadline bounds writes.
func (s *socket) SetWriteDeadline(t time.Time) error {
	if s.under != nil {
		return s.under.SetWriteDeadline(t)
	}
	return nil
}
