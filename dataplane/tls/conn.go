package tls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/netip"
	"syscall"

	"github.com/sluice-proxy/sluice/dataplane/stream"
	"golang.org/x/sys/unix"
)

// sendSize is the most plaintext that one Send takes: four records.
const sendSize = 64 << 10

// Conn is a TLS connection on a worker's descriptor, which it does not own. Once its
// handshake is over it is a pair's Transport.
type Conn struct {
	socket socket
	tls    *tls.Conn
	stats  *Stats
	local  *x509.Certificate // that is shown to the peer
	// verifies: a peer's certificate that is not good ends the handshake.
	verifies bool

	first   byte // was read to see whether there is anything
	peeked  bool
	dry     bool // the last read found nothing more
	closing bool
	ended   error // of the read that was the last
	failure error // that ended it, but for the peer's orderly end
}

// read is crypto/tls's, but that the error that ends the stream comes again, and
// nothing after it: the library goes on after some of its own alerts.
func (c *Conn) read(b []byte) (int, error) {
	if c.ended != nil {
		return 0, c.ended
	}
	n, err := c.tls.Read(b)
	if c.socket.broken == errFlood {
		err = errFlood
	}
	if err != errAgain {
		c.ended = err
	}
	return n, err
}

// Recv reads plaintext.
func (c *Conn) Recv(b []byte) (n int, errno syscall.Errno) {
	if c.peeked && len(b) > 0 {
		b[0], n, c.peeked = c.first, 1, false
	}
	if c.dry && n == 0 { // it was only just asked
		c.dry = false
		return 0, unix.EAGAIN
	}
	for n < len(b) {
		m, err := c.read(b[n:])
		n += m
		switch {
		case m > 0: // an error comes again
		case n > 0:
			c.dry = err == errAgain
			return n, 0
		default:
			return 0, c.explain(err)
		}
	}
	return n, 0
}

// Ready tells whether Recv has anything to tell.
func (c *Conn) Ready() (end bool, errno syscall.Errno) {
	if c.peeked {
		return false, 0
	}
	c.dry = false
	var b [1]byte
	n, err := c.read(b[:])
	if n > 0 {
		c.first, c.peeked = b[0], true
		return false, 0
	}
	errno = c.explain(err)
	return errno == 0, errno
}

// explain puts an error of a read into an errno; 0 is the end of the stream: by
// close_notify or, as in Envoy, by a FIN between two records. A FIN within one
// breaks the connection, for what it cut off is lost.
func (c *Conn) explain(err error) syscall.Errno {
	var errno syscall.Errno
	switch {
	case err == errAgain:
		return unix.EAGAIN
	case err == io.EOF:
		return 0
	case errors.As(err, &errno):
	case errors.Is(err, io.ErrUnexpectedEOF):
		errno = unix.ECONNABORTED
	default:
		errno = unix.EPROTO
	}
	c.fail(err)
	// The alert goes out if it can.
	_ = c.socket.flush()
	return errno
}

// fail notes the first failure, and counts it.
func (c *Conn) fail(err error) {
	if c.failure == nil {
		c.failure = err
		c.stats.failed(err)
	}
}

// Failure is why the connection broke, in Envoy's words; empty for one that did not,
// or of which there is nothing to say.
func (c *Conn) Failure() string {
	if c.failure == nil {
		return ""
	}
	return reason(c.failure)
}

// Broke says that what the peer sent was no TLS any more.
func (c *Conn) Broke() bool {
	var errno syscall.Errno
	return c.failure != nil && !errors.As(c.failure, &errno)
}

// Send takes plaintext, if nothing of the last is left.
func (c *Conn) Send(b []byte) (int, syscall.Errno) {
	if err := c.socket.flush(); err != 0 {
		return 0, err
	}
	n, err := c.tls.Write(b[:min(len(b), sendSize)])
	if err != nil {
		return 0, unix.EPIPE
	}
	if err := c.socket.flush(); err != 0 && err != unix.EAGAIN {
		return 0, err
	}
	return n, 0
}

// Holds tells whether something taken waits for the kernel.
func (c *Conn) Holds() bool { return c.socket.holds() }

// Flush hands it on.
func (c *Conn) Flush() syscall.Errno { return c.socket.flush() }

// CloseWrite says close_notify, once.
func (c *Conn) CloseWrite() {
	if !c.closing {
		c.closing = true
		// It goes into the buffer, which takes everything.
		_ = c.tls.CloseWrite()
	}
}

// Protocol is what both ends agreed to speak (ALPN), empty for nothing.
func (c *Conn) Protocol() string { return c.tls.ConnectionState().NegotiatedProtocol }

// Info is what is known of the session, also of one that failed; nil: nothing yet.
func (c *Conn) Info() *stream.TLS {
	s := c.tls.ConnectionState()
	if s.Version == 0 || s.CipherSuite == 0 {
		return nil
	}
	t := describe(s, c.local)
	t.Verified = c.verifies && c.failure == nil && len(t.Peer) > 0
	return t
}

func newConn(fd int, peer netip.AddrPort, l *Limiter, s *Stats) *Conn {
	return &Conn{socket: socket{fd: fd, peer: peer, limiter: l, waits: true, wake: make(chan struct{}, 1)}, stats: s}
}
