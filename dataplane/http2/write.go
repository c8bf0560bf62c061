package http2

import (
	"slices"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

// put frames something and has it sent soon.
func (c *Conn) put(write func(*http2.Framer) error) {
	if c.closed {
		return
	}
	c.frame(write)
	c.soon()
}

// control frames an answer to the host, of which only so many may wait.
func (c *Conn) control(write func(*http2.Framer) error) {
	if c.controls++; c.controls > int(c.pool.options().MaxControls) && c.broken == nil {
		c.shared.HTTP2.ControlFlood.Inc()
		c.fail(errFlood, false)
		return
	}
	c.put(write)
}

// frame adds to what is to be sent. A host that makes us answer without end, and does
// not read, is left.
func (c *Conn) frame(write func(*http2.Framer) error) {
	if err := write(c.framer); err != nil || len(c.out) > sendRoom+maxControl {
		c.fail(ErrProtocol, false)
	}
}

// resetStream ends a stream by RST_STREAM.
func (c *Conn) resetStream(s *Stream, code http2.ErrCode) {
	if s.over {
		return
	}
	c.shared.HTTP2.TxReset.Inc()
	c.shared.HTTP2.RqTxReset.Inc()
	c.put(func(f *http2.Framer) error { return f.WriteRSTStream(s.id, code) })
	s.leave()
}

// block has a stream wait until it may send.
func (c *Conn) block(s *Stream) {
	if !s.blocked {
		s.blocked = true
		c.waiting = append(c.waiting, s)
	}
}

// unblock wakes who waits to send, if there is room.
func (c *Conn) unblock() {
	if len(c.out) >= sendRoom || c.window <= 0 {
		return
	}
	for _, s := range c.waiting {
		if s.blocked {
			c.wake(s, unix.EPOLLOUT)
		}
	}
}

// wake has a stream's owner told, at the end of this turn.
func (c *Conn) wake(s *Stream, events uint32) {
	s.events |= events
	if !s.queued {
		s.queued = true
		c.woken = append(c.woken, s)
	}
	c.soon()
}

// soon asks for a turn.
func (c *Conn) soon() {
	if !c.turns.Armed() {
		c.worker.After(&c.turns, 0)
	}
}

// turn tells the streams' owners what happened and sends what there is to be sent.
func (c *Conn) turn() {
	c.worker.Stop(&c.turns)
	if c.closed {
		c.deliver()
		return
	}
	if c.again {
		c.again = false
		c.receive()
	}
	c.deliver()
	if c.closed {
		return
	}
	if c.broken == nil || c.broken == errDrained {
		c.flush()
	}
	if c.broken != nil {
		c.finish()
		return
	}
	c.pool.serve()
}

func (c *Conn) deliver() {
	woken := c.woken
	c.woken = nil
	for _, s := range woken {
		if s.events&unix.EPOLLOUT != 0 && s.blocked {
			s.blocked = false
			c.waiting = slices.DeleteFunc(c.waiting, func(o *Stream) bool { return o == s })
		}
		s.deliver()
	}
}

// flush sends as much as the socket takes.
func (c *Conn) flush() {
	full := len(c.out) >= sendRoom
	sent := 0
	for sent < len(c.out) {
		n, err := c.wire.Send(c.out[sent:])
		if err == unix.EAGAIN {
			break
		}
		if err != 0 {
			c.fail(ErrLost, true)
			return
		}
		sent += n
		c.shared.Bytes(0, uint64(n))
	}
	if err := c.wire.Flush(); err != 0 && err != unix.EAGAIN {
		c.fail(ErrLost, true)
		return
	}
	if sent == len(c.out) {
		c.controls = 0
		if c.out = c.out[:0]; cap(c.out) > sendRoom || len(c.streams) == 0 {
			c.out = nil
		}
	} else {
		c.out = c.out[:copy(c.out, c.out[sent:])]
	}
	if full {
		c.unblock()
	}
}

// closeQuietly ends a connection by FIN.
func closeQuietly(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{}) // it is closed either way
	unix.Close(fd)
}
