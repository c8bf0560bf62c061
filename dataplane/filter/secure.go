package filter

import (
	"net"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/overload"
	"github.com/sluice-proxy/sluice/dataplane/pair"
	"github.com/sluice-proxy/sluice/dataplane/tls"
	"golang.org/x/sys/unix"
)

// timedOut is Envoy's local close reason.
const timedOut = "transport_socket_timeout"

// secure is the TLS of a client's connection.
type secure struct {
	handshake *tls.Handshake // nil once it is over
	conn      *tls.Conn      // nil until it is over, and well
	deadline  loop.Timer
	begun     int64 // by the worker's clock
}

// shakeHands begins the client's handshake. As in Envoy the filters do not wait for
// it: tcp_proxy connects meanwhile. False: the connection is over.
func (c *Connection) shakeHands() bool {
	ch := c.chain
	h, first, err := ch.TLS.Accept(c.Core.Worker, c.FD, c.Info.DirectLocal(), c.Info.DirectRemote(), c.shaken)
	if err != nil {
		c.Info.Explain().DownstreamFailure = err.Error()
		c.Close()
		return false
	}
	s := &secure{handshake: h}
	c.needWalk().secure = s
	c.Info.SetDownstreamTLS(first)
	if ch.ConnectTimeout > 0 {
		s.deadline.F = func() {
			ch.TimedOut.Inc()
			c.Info.Explain().Termination = "transport socket timeout was reached"
			c.Refuse(timedOut)
		}
		s.begun = c.Core.Worker.Now()
		c.Core.Worker.After(&s.deadline, c.Core.scale.Of(ch.ConnectTimeout))
	}
	return true
}

// ScaleConnectTimeouts shortens the time that handshakes may take, also of those that
// are under way.
func (c *Core) ScaleConnectTimeouts(s overload.Scale) {
	c.scale = s
	for _, conn := range c.Connections {
		if own := conn.secure(); own != nil && own.deadline.Armed() {
			c.Worker.At(&own.deadline, own.begun+int64(s.Of(conn.chain.ConnectTimeout)))
		}
	}
}

// secure is nil where the connection is in the clear.
func (c *Connection) secure() *secure {
	if c.walk == nil {
		return nil
	}
	return c.walk.secure
}

// shaken is the end of the handshake.
func (c *Connection) shaken(err error) {
	s := c.secure()
	h := s.handshake
	s.handshake = nil
	c.Core.Worker.Stop(&s.deadline)
	if t := h.Info(); t != nil {
		if err == nil {
			t.Took = time.Since(c.Info.Start)
		}
		c.Info.SetDownstreamTLS(t)
	}
	if err != nil {
		c.Info.Explain().DownstreamFailure = h.Failure()
		c.Close()
		return
	}
	s.conn = h.Conn
	if p, ok := c.terminal.(Patient); ok && c.started {
		p.Secured()
	}
}

// Handshaking says that the client's TLS handshake is not over.
func (c *Connection) Handshaking() bool { return c.secure() != nil && c.secure().handshake != nil }

// Transport is what the client's bytes go through; nil: they are in the clear.
func (c *Connection) Transport() pair.Transport {
	if c.secure() == nil || c.secure().conn == nil {
		return nil
	}
	return c.secure().conn
}

// Lend makes a library's connection, which has the client's socket, one that speaks
// the client's TLS, if that is used.
func (c *Connection) Lend(under net.Conn) net.Conn {
	c.unwatchTCP() // the descriptor is the library's
	s := c.secure()
	if s == nil || s.conn == nil {
		return under
	}
	out := s.conn.Lend(under)
	s.conn = nil // nobody else reads or writes it
	return out
}

// TransportFailure is why the client's TLS broke, in Envoy's words.
func (c *Connection) TransportFailure() string {
	if c.secure() == nil || c.secure().conn == nil {
		return ""
	}
	return c.secure().conn.Failure()
}

// TransportBroke says that the client's TLS broke by what it sent, not by its TCP.
func (c *Connection) TransportBroke() bool {
	return c.secure() != nil && c.secure().conn != nil && c.secure().conn.Broke()
}

// Recv reads bytes of the client.
func (c *Connection) Recv(b []byte) (int, syscall.Errno) {
	switch {
	case c.Handshaking():
		return 0, unix.EAGAIN
	case c.secure() != nil && c.secure().conn == nil:
		return 0, unix.ECONNABORTED
	case c.secure() != nil:
		return c.secure().conn.Recv(b)
	}
	n, _, err := unix.Recvfrom(c.FD, b, unix.MSG_DONTWAIT)
	return n, errno(err)
}

// Send writes bytes to the client; what it takes may wait for Push.
func (c *Connection) Send(b []byte) (int, syscall.Errno) {
	switch {
	case c.Handshaking():
		return 0, unix.EAGAIN
	case c.secure() != nil && c.secure().conn == nil:
		return 0, unix.ECONNABORTED
	case c.secure() != nil:
		return c.secure().conn.Send(b)
	}
	n, err := unix.SendmsgN(c.FD, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return n, errno(err)
}

// Push hands to the kernel what Send took: EAGAIN while something is left.
func (c *Connection) Push() syscall.Errno {
	if t := c.Transport(); t != nil {
		return t.Flush()
	}
	return 0
}

func errno(err error) syscall.Errno {
	e, _ := err.(syscall.Errno)
	return e
}

// CloseSocket closes the socket in order: by FIN, after close_notify, or by RST if
// bytes wait unread.
func (c *Connection) CloseSocket() {
	c.letGo()
	c.lookAtTCP()
	if t := c.Transport(); t != nil {
		t.CloseWrite()
		// Who does not read it learns of the end from the socket.
		_ = t.Flush()
	}
	CloseQuietly(c.FD)
}

// ResetSocket closes it by RST: SO_LINGER{1,0} is set.
func (c *Connection) ResetSocket() {
	c.letGo()
	c.lookAtTCP()
	unix.Close(c.FD)
}

// letGo ends a handshake that is under way.
func (c *Connection) letGo() {
	if s := c.secure(); s != nil && s.handshake != nil {
		s.handshake.Cancel()
		s.handshake = nil
		c.Core.Worker.Stop(&s.deadline)
	}
}
