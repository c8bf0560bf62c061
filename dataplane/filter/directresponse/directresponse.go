// Package directresponse is envoy.filters.network.direct_response: every client
// gets the same bytes, and the end.
package directresponse

import (
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"golang.org/x/sys/unix"
)

// Factory makes the answers of one filter chain. It has no statistics.
type Factory struct{ config *api.DirectResponse }

// New makes the factory of one chain.
func New(c *api.DirectResponse) *Factory { return &Factory{config: c} }

// New makes the answer to one connection.
func (f *Factory) New(c *filter.Connection) filter.Filter {
	c.Info.Upstream.Absent = true
	return &session{conn: c, rest: f.config.Body}
}

// Watch says that nothing is read.
func (*Factory) Watch() filter.Watch { return filter.Nothing }

// Release does nothing.
func (*Factory) Release() {}

type session struct {
	filter.Base
	conn    *filter.Connection
	rest    string
	watched bool
}

// NewConnection answers, and ends the connection when all is with the kernel.
func (s *session) NewConnection() filter.Status {
	if !s.conn.Handshaking() {
		s.write()
	}
	return filter.Stop
}

// Secured answers a client with TLS.
func (s *session) Secured() { s.write() }

// Ready is called by the worker when the client takes more, or has gone.
func (s *session) Ready(events uint32) {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		s.Kill()
		return
	}
	s.write()
}

func (s *session) write() {
	for len(s.rest) > 0 {
		n, err := s.conn.Send([]byte(s.rest[:min(len(s.rest), writeSize)]))
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			if s.wait() {
				return
			}
			s.Kill()
			return
		case err != 0:
			s.Kill()
			return
		default:
			s.conn.Info.Sent += uint64(n)
			s.rest = s.rest[n:]
		}
	}
	if s.conn.Push() == unix.EAGAIN && s.wait() {
		return
	}
	s.Close()
}

// writeSize bounds one write.
const writeSize = 64 << 10

func (s *session) wait() bool {
	if s.watched {
		return true
	}
	s.watched = s.conn.Core.Worker.Add(s.conn.FD, unix.EPOLLOUT, s) == nil
	return s.watched
}

func (s *session) forget() {
	if s.watched {
		s.conn.Core.Worker.Forget(s.conn.FD)
	}
}

// Resume has nothing to do: no filter has held anything.
func (s *session) Resume() {}

// Close ends the connection in order: the FIN comes before the RST that the kernel
// sends where bytes of the client wait unread, as with Envoy.
func (s *session) Close() {
	s.forget()
	_ = unix.Shutdown(s.conn.FD, unix.SHUT_WR) // the client may be gone
	s.conn.CloseSocket()
	s.conn.End()
}

// Kill ends it by RST.
func (s *session) Kill() {
	s.forget()
	s.conn.ResetSocket()
	s.conn.End()
}

// Flush has nothing to do: the counters are always up to date.
func (s *session) Flush() {}

// Discarded has nothing to do either.
func (s *session) Discarded(uint64) {}

// Status says what the connection does.
func (s *session) Status(c *api.Connection) { c.State = "answering" }
