package httpserver

import (
	"net"
	"os"
	"syscall"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"golang.org/x/sys/unix"
)

// session is one client's connection. It is for its worker's thread; what the
// server's goroutines have of it is conn.
type session struct {
	filter.Base
	factory *Factory
	conn    *filter.Connection
	net     *conn // nil before the server has it
	watched bool  // by the worker, for the filters before
}

// NewConnection gives the connection to the server, if the client's handshake is over
// and no filter has to see its first bytes before.
func (s *session) NewConnection() filter.Status {
	if !s.conn.Handshaking() {
		s.Secured()
	}
	return filter.Stop
}

// Secured goes on after the client's handshake.
func (s *session) Secured() {
	if s.conn.Watch() == filter.Nothing {
		s.handOver()
		return
	}
	if err := s.conn.Core.Worker.Add(s.conn.FD, unix.EPOLLIN|unix.EPOLLRDHUP, s); err != nil {
		s.Kill()
		return
	}
	s.watched = true
	if s.conn.Transport() != nil {
		s.Ready(0) // the handshake may have read ahead
	}
}

// Ready is called by the worker when the first bytes came, or the end.
func (s *session) Ready(events uint32) {
	if events&unix.EPOLLERR != 0 {
		s.Kill()
		return
	}
	end := events&unix.EPOLLRDHUP != 0
	if t := s.conn.Transport(); t != nil {
		var err syscall.Errno
		if end, err = t.Ready(); err == unix.EAGAIN {
			return // no byte of the client's
		} else if err != 0 {
			s.conn.Info.Explain().DownstreamFailure = s.conn.TransportFailure()
			s.Close()
			return
		}
	}
	s.unwatch()
	if s.conn.Data(end) == filter.Continue {
		s.handOver()
	}
}

// Resume says that the filters before let the first bytes go.
func (s *session) Resume() {
	if s.net == nil {
		s.handOver()
	}
}

func (s *session) unwatch() {
	if s.watched {
		s.watched = false
		s.conn.Core.Worker.Del(s.conn.FD)
	}
}

// handOver makes the descriptor a net.Conn.
func (s *session) handOver() {
	s.conn.Core.Worker.Del(s.conn.FD) // which a handshake has parked
	f := os.NewFile(uintptr(s.conn.FD), "downstream")
	c, err := net.FileConn(f) // a duplicate
	if err != nil {
		s.factory.ctx.Log.Debug("give connection to the HTTP server", "error", err)
		s.Kill()
		return
	}
	f.Close()
	s.conn.FD = -1
	s.net = newConn(c, s.conn.Lend(c), s)
	s.factory.take(s.net)
}

// ended is on the worker again when the server's side has closed the connection.
func (s *session) ended() {
	s.Flush()
	s.conn.End()
}

// Fragile says that a FIN would cut an answer short.
func (s *session) Fragile() {}

// Close ends the connection in order, Kill by RST.
func (s *session) Close() {
	if s.net != nil {
		s.net.endSoon()
		s.ended()
		return
	}
	s.unwatch()
	s.conn.CloseSocket()
	s.conn.End()
}

// Kill ends it by RST.
func (s *session) Kill() {
	if s.net != nil {
		s.net.end(false)
		s.ended()
		return
	}
	s.unwatch()
	s.conn.ResetSocket()
	s.conn.End()
}

// Ended counts the connection out.
func (s *session) Ended() {
	g := s.factory.figures
	g.active.Dec()
	if s.conn.Chain().TLS != nil {
		g.sslActive.Dec()
	}
	g.destroy.Inc()
	if s.net == nil || s.net.remote.Load() {
		g.destroyRemote.Inc()
	} else {
		g.destroyLocal.Inc()
	}
	if s.net != nil {
		switch s.net.codec.Swap(over) {
		case 1:
			g.http1Active.Dec()
		case 2:
			g.http2Active.Dec()
		}
	}
	g.length.RecordTime(s.conn.Info.Duration())
}

// Flush brings the byte counters up to date.
func (s *session) Flush() {
	if s.net == nil {
		return
	}
	i, g := s.conn.Info, s.factory.figures
	rx, tx := s.net.rx.Load(), s.net.tx.Load()
	g.rx.Add(rx - i.Received)
	g.tx.Add(tx - i.Sent)
	i.Received, i.Sent = rx, tx
}

// Discarded counts bytes that the client sent for nothing.
func (s *session) Discarded(n uint64) { s.factory.figures.rx.Add(n) }

// Status says what the connection does.
func (s *session) Status(c *api.Connection) { c.State = "http" }
