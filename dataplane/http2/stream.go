package http2

import (
	"fmt"
	"syscall"

	"github.com/sluice-proxy/sluice/dataplane/tls"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

// Request is what opens a stream.
type Request struct {
	Method, Authority string
	Path              string // empty: none, and no scheme
	Headers           []Header
}

// Header is one field of a head.
type Header struct{ Name, Value string }

// Owner is told of a stream, on the worker.
type Owner interface {
	// Answered is called once, never before Open returns: the stream is there, or
	// will never be. err may be a StatusError.
	Answered(s *Stream, err error)
	// Wake says, once it is there, that it may have something to read or to take
	// (EPOLLIN, EPOLLOUT).
	Wake(events uint32)
	// Alone is called in Answered's place where the host has agreed to HTTP/1.1: the
	// owner gets the connection, parked, for itself.
	Alone(fd int, t *tls.Conn, c upstream.Connection)
	// Finished says that the host has ended the stream both ways, after its end was
	// read.
	Finished()
}

// StatusError is a response that opens no stream.
type StatusError int

func (e StatusError) Error() string { return fmt.Sprintf("tunnel_response:%d", int(e)) }

// Stream is one request. It is a pair's transport without a descriptor.
type Stream struct {
	pool    *hosted
	conn    *Conn // nil while it waits for one
	request upstream.Request
	asks    Request
	owner   Owner

	id         uint32
	answered   bool
	over       bool // nothing of it is on the connection any more
	window     int64
	credit     int64 // what the host may still send
	in         []byte
	taken      int // of in, by the client
	owed       int // taken, and the host was not told
	localEnd   bool
	remoteEnd  bool
	finished   bool // by the host, both ways
	closing    bool // the end is to be sent
	queued     bool // among the woken
	blocked    bool // waits to send
	events     uint32
	failure    syscall.Errno
	unanswered error // what Answered is to be told
}

// Recv gives what came; the host may send as much again.
func (s *Stream) Recv(b []byte) (int, syscall.Errno) {
	if len(b) == 0 {
		return 0, 0
	}
	if n := copy(b, s.in[s.taken:]); n > 0 {
		if s.taken += n; s.taken == len(s.in) {
			s.in, s.taken = nil, 0
		}
		s.repay(n)
		return n, 0
	}
	switch {
	case s.failure != 0:
		return 0, s.failure
	case s.remoteEnd:
		if s.finished {
			s.conn.wake(s, 0) // Finished
		}
		return 0, 0
	}
	return 0, unix.EAGAIN
}

// keep adds to what came. What was taken makes room before more is asked for, so that
// it is never more than twice what the host may send.
func (s *Stream) keep(b []byte) {
	if s.taken > 0 && len(s.in)+len(b) > cap(s.in) {
		s.in = s.in[:copy(s.in, s.in[s.taken:])]
		s.taken = 0
	}
	s.in = append(s.in, b...)
}

// repay lets the host send more, in steps of half a window.
func (s *Stream) repay(n int) {
	if s.owed += n; s.over || s.remoteEnd || s.owed < s.conn.streamWindow/2 {
		return
	}
	s.credit += int64(s.owed)
	s.conn.put(func(f *http2.Framer) error { return f.WriteWindowUpdate(s.id, uint32(s.owed)) })
	s.owed = 0
}

// Ready tells whether Recv has something to tell.
func (s *Stream) Ready() (end bool, err syscall.Errno) {
	switch {
	case len(s.in) > s.taken:
		return false, 0
	case s.failure != 0:
		return false, s.failure
	case s.remoteEnd:
		return true, 0
	}
	return false, unix.EAGAIN
}

// Send frames what the windows and the connection's buffer have room for.
func (s *Stream) Send(b []byte) (int, syscall.Errno) {
	switch c := s.conn; {
	case s.failure != 0:
		return 0, s.failure
	case s.over || s.localEnd:
		return 0, unix.EPIPE
	default:
		n := 0
		for n < len(b) {
			size := min(int64(len(b)-n), int64(c.peerFrame), s.window, c.window)
			if size <= 0 || len(c.out) >= sendRoom {
				break
			}
			part := b[n : n+int(size)]
			c.frame(func(f *http2.Framer) error { return f.WriteData(s.id, false, part) })
			c.inbound.sent++
			s.window -= size
			c.window -= size
			n += int(size)
		}
		if n < len(b) {
			c.block(s)
		}
		if n == 0 && len(b) > 0 {
			return 0, unix.EAGAIN
		}
		c.soon()
		return n, 0
	}
}

// Holds is never so: what was taken is the connection's, and goes out whatever
// becomes of the stream.
func (s *Stream) Holds() bool { return false }

// Flush has nothing to do.
func (s *Stream) Flush() syscall.Errno { return 0 }

// CloseWrite ends our side, at the end of this turn; Close may come before that, and
// then it does not look like an end.
func (s *Stream) CloseWrite() {
	if !s.closing && !s.localEnd && !s.over {
		s.closing = true
		s.conn.wake(s, 0)
	}
}

// Close is the owner's end of the stream. complete says that all of it was handed
// over, both ways; else the host is told that it was not.
func (s *Stream) Close(complete bool) {
	if s.conn == nil {
		s.owner = nil // also one that is about to be told
		if !s.over {
			s.over = true
			s.request.Cancel()
			s.pool.forget(s)
		}
		return
	}
	if !s.over && complete && s.closing {
		s.end()
	}
	s.owner, s.in = nil, nil
	if !s.over {
		s.conn.resetStream(s, http2.ErrCodeInternal)
	}
}

// end says END_STREAM.
func (s *Stream) end() {
	s.closing, s.localEnd = false, true
	s.conn.put(func(f *http2.Framer) error { return f.WriteData(s.id, true, nil) })
	s.settle()
}

// settle forgets a stream that both sides have ended.
func (s *Stream) settle() {
	if s.localEnd && s.remoteEnd {
		s.leave()
	}
}

// leave takes the stream off its connection.
func (s *Stream) leave() {
	if s.over {
		return
	}
	s.over = true
	c := s.conn
	delete(c.streams, s.id)
	s.request.End()
	c.shared.HTTP2.StreamsActive.Dec()
	c.vacant()
}

// fail breaks the stream: its owner reads what came, and then err.
func (s *Stream) fail(errno syscall.Errno, err error) {
	s.leave()
	if !s.answered {
		s.answer(err)
		return
	}
	s.failure = errno
	s.conn.wake(s, unix.EPOLLIN|unix.EPOLLOUT)
}

// answer has the owner told, later.
func (s *Stream) answer(err error) {
	if s.answered {
		return
	}
	s.answered, s.unanswered = true, err
	if s.conn != nil {
		s.conn.wake(s, told)
	} else {
		s.pool.tellLater(s)
	}
}

// told is the event that Answered is to be called for.
const told = 1 << 31

// deliver hands on what happened to a stream since the last turn.
func (s *Stream) deliver() {
	events := s.events
	s.events, s.queued = 0, false
	if s.owner == nil {
		return
	}
	if events&told != 0 {
		s.owner.Answered(s, s.unanswered)
		return // whoever takes it reads what is there
	}
	if s.closing && !s.over {
		s.end()
	}
	if events != 0 && s.owner != nil {
		s.owner.Wake(events)
	}
	if s.finished && len(s.in) == s.taken && s.owner != nil {
		s.owner.Finished()
	}
}
