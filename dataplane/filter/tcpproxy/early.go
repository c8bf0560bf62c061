package tcpproxy

import (
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/stream"
	"golang.org/x/sys/unix"
)

// awaitData waits for the client's first bytes before it connects
// (upstream_connect_mode ON_DOWNSTREAM_DATA). They stay in the socket, whose
// receive buffer is the bound that max_early_data_bytes asks for.
func (s *Session) awaitData() {
	if s.conn.Handshaking() {
		s.opening.early = false // Secured comes back
		return
	}
	if t := s.conn.Transport(); t != nil {
		if _, err := t.Ready(); err != unix.EAGAIN { // the handshake has read ahead
			s.begun(false)
			return
		}
	}
	if err := s.conn.Core.Worker.Add(s.conn.FD, unix.EPOLLIN|unix.EPOLLRDHUP, s); err != nil {
		s.drop()
		return
	}
	s.opening.early = true
}

// Ready is called by the worker when the first bytes came, or the end.
func (s *Session) Ready(events uint32) {
	t := s.conn.Transport()
	if t != nil && events&unix.EPOLLERR == 0 {
		if _, err := t.Ready(); err == unix.EAGAIN { // records without a byte of the client's
			return
		}
	}
	s.unwatch()
	if events&unix.EPOLLERR != 0 {
		s.conn.Info.Closed = stream.RemoteReset
		s.Kill()
		return
	}
	s.begun(events&unix.EPOLLRDHUP != 0)
}

// begun connects, now that the client has said something or has ended its stream.
func (s *Session) begun(end bool) {
	if s.gone() {
		// The client is gone without a word. Envoy would keep the connection
		// for ever.
		s.drop()
		return
	}
	s.factory.stats.early.Inc()
	if (s.conn.Watch() == filter.Nothing || s.conn.Data(end) == filter.Continue) && !s.sheds() {
		s.connect()
	}
}

func (s *Session) gone() bool {
	if t := s.conn.Transport(); t != nil {
		end, err := t.Ready()
		return end || err != 0
	}
	var one [1]byte
	n, _, err := unix.Recvfrom(s.conn.FD, one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return n == 0 && err == nil
}

// Resume lets the client's bytes go that filters held.
func (s *Session) Resume() {
	switch {
	case s.pair != nil:
		s.pair.Open()
	case s.opening.dial == nil && s.opening.undemand == nil && !s.up.Waits():
		s.connect()
	}
}

func (s *Session) unwatch() {
	if o := s.opening; o != nil && o.early {
		o.early = false
		s.conn.Core.Worker.Del(s.conn.FD)
	}
}
