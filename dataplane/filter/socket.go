package filter

import (
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/stream"
	"golang.org/x/sys/unix"
)

// ListenerFilter is one listener filter of one accepted socket. It looks at the
// client's first bytes without taking them.
type ListenerFilter interface {
	// Accepted is called first. Stop says that the filter wants to see bytes.
	Accepted(*Socket) Status
	// Wants is how many bytes the filter has a use for at most, counted from
	// the first unread one. It is asked before every Data.
	Wants() int
	// Data gets the bytes that wait in the socket, at most Wants; it is called
	// again, with more of them, after Stop. It may keep nothing of b.
	Data(s *Socket, b []byte) Status
}

// ListenerFactory makes the listener filter of each socket. It is shared by all
// workers.
type ListenerFactory interface {
	// New returns nil where the filter is disabled for the socket.
	New(*Socket) ListenerFilter
	Release()
}

// Unless is a listener filter that is left out where a predicate matches.
type Unless struct {
	Predicate *api.ListenerFilterPredicate
	ListenerFactory
}

// New returns nil where the predicate matches.
func (u Unless) New(s *Socket) ListenerFilter {
	if u.Predicate.Matches(s.Info.Local().Port()) {
		return nil
	}
	return u.ListenerFactory.New(s)
}

// Verdict is what listener filters came to.
type Verdict uint8

const (
	// Accepted: all have continued.
	Accepted Verdict = iota
	// Timeout: they did not within their time, and the connection may not go on.
	Timeout
	// TimeoutPassed: they did not either, and it may.
	TimeoutPassed
	// RemoteClose: the client ended its stream, or broke, before they had.
	RemoteClose
	// Refused: one of them wants it closed.
	Refused
)

// Socket is an accepted socket that is with the listener filters.
type Socket struct {
	Core *Core
	FD   int
	Info *stream.Info
	// Consumed are the bytes taken by Consume.
	Consumed uint64
	// Owner is the version of the listener that accepted it.
	Owner any
	// Bound is the address of the listening socket that it came by, if it is one
	// of IP; a handed-off socket has none.
	Bound netip.AddrPort
	// HandedOff says that another listener's filters had it before.
	HandedOff bool

	factories []ListenerFactory
	filter    ListenerFilter // that waits for bytes
	next      int
	deadline  loop.Timer
	pass      bool // at the deadline
	watched   bool
	done      func(*Socket, Verdict)
}

// Inspect runs listener filters on a socket; done is called once, possibly
// before Inspect returns, with the socket registered nowhere and still open.
// timeout 0 means none; pass says that the connection goes on after it.
func Inspect(s *Socket, factories []ListenerFactory, timeout time.Duration, pass bool, done func(*Socket, Verdict)) {
	s.factories, s.pass, s.done = factories, pass, done
	s.run()
	if s.filter != nil && s.done != nil && timeout > 0 {
		s.deadline.F = func() {
			if s.pass {
				s.end(TimeoutPassed)
				return
			}
			s.end(Timeout)
		}
		s.Core.Worker.After(&s.deadline, timeout)
	}
}

// run asks the filters that have not been asked yet.
func (s *Socket) run() {
	for s.done != nil && s.next < len(s.factories) {
		s.filter = s.factories[s.next].New(s)
		s.next++
		if s.filter == nil {
			continue
		}
		switch s.filter.Accepted(s) {
		case Closed:
			s.end(Refused)
			return
		case Stop:
			if !s.look() {
				return
			}
		}
		s.filter = nil
	}
	if s.done != nil {
		s.end(Accepted)
	}
}

// watch waits for bytes, edge-triggered: bytes that were peeked stay in the
// socket and would wake a level-triggered loop for ever.
func (s *Socket) watch() bool {
	if s.watched {
		return true
	}
	if err := s.Core.Worker.Add(s.FD, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLET, s); err != nil {
		s.end(Refused)
		return false
	}
	s.watched = true
	s.Core.Sockets[s] = struct{}{}
	return true
}

// look shows the filter what waits in the socket; true when it continued.
func (s *Socket) look() bool {
	for {
		want := s.filter.Wants()
		buf := s.Core.Worker.Buffer()
		n, _, err := unix.Recvfrom(s.FD, buf[:min(len(buf), max(want, 1))], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			s.watch()
			return false
		case err != nil || n == 0:
			s.end(RemoteClose)
			return false
		}
		taken := s.Consumed
		switch s.filter.Data(s, buf[:n]) {
		case Continue:
			return true
		case Closed:
			s.end(Refused)
			return false
		}
		if s.Consumed == taken && s.filter.Wants() <= want {
			s.watch()
			return false
		}
	}
}

// Ready is called by the worker when more bytes came, or the end.
func (s *Socket) Ready(events uint32) {
	// As in Envoy, the end of the stream drops a connection whose filters have
	// not finished, although every byte may be there.
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.end(RemoteClose)
		return
	}
	if s.look() {
		s.filter = nil
		s.run()
	}
}

// Consume takes n bytes, which a filter was just shown, out of the socket.
func (s *Socket) Consume(n int) bool {
	buf := make([]byte, n)
	for off := 0; off < n; {
		m, _, err := unix.Recvfrom(s.FD, buf[off:], unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		}
		if err != nil || m == 0 {
			return false
		}
		off += m
		s.Consumed += uint64(m)
	}
	return true
}

func (s *Socket) end(v Verdict) {
	done := s.done
	if done == nil {
		return
	}
	s.done, s.filter = nil, nil
	s.Core.Worker.Stop(&s.deadline)
	if s.watched {
		s.watched = false
		s.Core.Worker.Del(s.FD)
		delete(s.Core.Sockets, s)
	}
	done(s, v)
}

// Kill gives the socket up, as if the client had.
func (s *Socket) Kill() { s.end(RemoteClose) }
