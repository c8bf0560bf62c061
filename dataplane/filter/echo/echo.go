// Package echo is envoy.filters.network.echo: what the client sends comes back.
package echo

import (
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"golang.org/x/sys/unix"
)

// Factory makes echoes. It has no configuration and no statistics.
type Factory struct{}

// New makes the echo of a connection.
func (Factory) New(c *filter.Connection) filter.Filter {
	c.Info.Upstream.Absent = true
	return &session{conn: c}
}

// Watch says that the filter itself reads.
func (Factory) Watch() filter.Watch { return filter.Nothing }

// Release does nothing.
func (Factory) Release() {}

// session reads only when all that it read before has been written.
type session struct {
	filter.Base
	conn    *filter.Connection
	pending []byte
	held    bool // by the filters before
	fin     bool
	watched bool
	mask    uint32
}

// NewConnection waits for bytes.
func (s *session) NewConnection() filter.Status {
	if !s.conn.Handshaking() {
		s.Secured()
	}
	return filter.Stop
}

// Secured waits for bytes: before the handshake of a client with TLS there are none.
func (s *session) Secured() {
	s.mask = unix.EPOLLIN
	if err := s.conn.Core.Worker.Add(s.conn.FD, s.mask, s); err != nil {
		s.Kill()
		return
	}
	s.watched = true
	if s.conn.Transport() != nil {
		s.pump() // the handshake may have read ahead
	}
}

// Ready is called by the worker.
func (s *session) Ready(events uint32) {
	if events&unix.EPOLLERR != 0 {
		s.Kill()
		return
	}
	s.pump()
}

// Resume goes on after the filters before held the bytes.
func (s *session) Resume() {
	s.held = false
	s.move()
}

func (s *session) pump() {
	if s.held {
		return
	}
	if t := s.conn.Transport(); t != nil && len(s.pending) == 0 {
		if _, err := t.Ready(); err == unix.EAGAIN { // no byte of the client's
			s.flush()
			return
		}
	}
	if len(s.pending) == 0 && s.conn.Watch() != filter.Nothing {
		switch s.conn.Data(false) {
		case filter.Closed:
			return
		case filter.Stop:
			s.held = true
			s.watch(0)
			return
		}
	}
	s.move()
}

func (s *session) move() {
	if !s.flush() {
		return
	}
	buf := s.conn.Core.Worker.Buffer()[:min(len(s.conn.Core.Worker.Buffer()), max(int(s.conn.Owner.Limit()), 1))]
	n, err := s.conn.Recv(buf)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
	case err != 0:
		s.Kill()
		return
	case n == 0:
		s.fin = true
	default:
		s.conn.Info.Received += uint64(n)
		s.pending = append(s.pending[:0], buf[:n]...)
		if s.conn.Transport() != nil {
			// There may be more that the socket does not tell of.
			s.conn.Core.Worker.Post(s.goOn)
		}
	}
	s.flush()
}

// goOn looks for more, unless all is over.
func (s *session) goOn() {
	if s.watched {
		s.pump()
	}
}

// flush writes what is pending; true lets more be read.
func (s *session) flush() bool {
	for len(s.pending) > 0 {
		n, err := s.conn.Send(s.pending)
		if err == unix.EAGAIN {
			s.watch(unix.EPOLLOUT)
			return false
		}
		if err != 0 {
			s.Kill()
			return false
		}
		s.conn.Info.Sent += uint64(n)
		s.pending = s.pending[n:]
	}
	if s.conn.Push() != 0 { // of a broken one EPOLLERR tells
		s.watch(unix.EPOLLOUT)
		return false
	}
	if s.fin {
		s.Close()
		return false
	}
	s.watch(unix.EPOLLIN)
	return true
}

func (s *session) watch(mask uint32) {
	if mask != s.mask {
		s.mask = mask
		if err := s.conn.Core.Worker.Mod(s.conn.FD, mask); err != nil {
			s.Kill()
		}
	}
}

// Close ends the connection in order.
func (s *session) Close() {
	s.forget()
	s.conn.CloseSocket()
	s.conn.End()
}

// Kill ends it by RST.
func (s *session) Kill() {
	s.forget()
	s.conn.ResetSocket()
	s.conn.End()
}

func (s *session) forget() {
	if s.watched {
		s.watched = false
		s.conn.Core.Worker.Forget(s.conn.FD)
	}
}

// Flush has nothing to do: the counters are always up to date.
func (s *session) Flush() {}

// Discarded has nothing to do either.
func (s *session) Discarded(uint64) {}

// Status says what the connection does.
func (s *session) Status(c *api.Connection) { c.State = "echo" }
