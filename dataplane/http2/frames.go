package http2

import (
	"encoding/binary"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

// Ready is called by the worker.
func (c *Conn) Ready(uint32) {
	c.receive()
	if !c.closed {
		c.turn()
	}
}

// receive reads and heeds what came.
func (c *Conn) receive() {
	buf := c.worker.Buffer()
	buf = buf[:min(len(buf), readSize)]
	for range readRounds {
		n, err := c.wire.Recv(buf)
		switch {
		case err == unix.EAGAIN:
			return
		case err != 0 || n == 0:
			c.fail(ErrLost, true)
			return
		}
		c.shared.Bytes(uint64(n), 0)
		if c.parse(buf[:n]); c.broken != nil {
			return
		}
	}
	c.again = true // the descriptor is watched by its edges
	c.soon()
}

// parse heeds the whole frames of what was kept and b, and keeps the rest.
func (c *Conn) parse(b []byte) {
	maxHead := int(c.framer.MaxHeaderListSize) + maxFrame
	kept := len(c.in) > 0
	if kept {
		c.in = append(c.in, b...)
		b = c.in
	}
	for c.broken == nil {
		n, ok := whole(b, maxHead)
		if !ok {
			c.protocolError(http2.ErrCodeFrameSize)
			return
		}
		if n == 0 {
			break
		}
		c.reader.Reset(b[:n])
		b = b[n:]
		f, err := c.framer.ReadFrame()
		if err == nil {
			c.heed(f)
			continue
		}
		if !c.greeted {
			c.protocolError(http2.ErrCodeProtocol)
			return
		}
		// As nghttp2 has it, no such error is a stream's alone.
		if se, is := err.(http2.StreamError); is && se.Cause != nil {
			c.noMessage()
			return
		}
		c.protocolError(http2.ErrCodeProtocol)
	}
	switch {
	case !kept && len(b) > 0:
		c.in = append(c.in[:0], b...)
	case kept && len(b) > 0:
		c.in = c.in[:copy(c.in, b)]
	case cap(c.in) > maxFrame:
		c.in = nil
	default:
		c.in = c.in[:0]
	}
}

// noMessage ends the connection for a head that HTTP does not allow.
func (c *Conn) noMessage() {
	c.shared.HTTP2.MessagingError.Inc()
	c.fail(ErrProtocol, false)
}

const frameHead = 9

// whole is the length of the frame at the beginning of b, a head with all its
// continuations; 0: it is not all there. Not ok: it is longer than maxHead allows.
func whole(b []byte, maxHead int) (n int, ok bool) {
	for {
		if len(b)-n < frameHead {
			return 0, true
		}
		h := b[n:]
		size := int(binary.BigEndian.Uint32(h)>>8) + frameHead
		if size > maxFrame+frameHead || n > maxHead {
			return 0, false
		}
		kind, flags := http2.FrameType(h[3]), http2.Flags(h[4])
		if len(h) < size {
			return 0, true
		}
		n += size
		if kind != http2.FrameHeaders && kind != http2.FrameContinuation || flags.Has(http2.FlagHeadersEndHeaders) {
			return n, true
		}
	}
}

// protocolError ends the connection with a GOAWAY.
func (c *Conn) protocolError(code http2.ErrCode) {
	c.put(func(f *http2.Framer) error { return f.WriteGoAway(0, code, nil) })
	c.fail(ErrProtocol, false)
	c.flush()
}

func (c *Conn) heed(f http2.Frame) {
	if _, settings := f.(*http2.SettingsFrame); !c.greeted && !settings {
		c.protocolError(http2.ErrCodeProtocol)
		return
	}
	c.greeted = true
	if flood := c.inbound.exceeded(f, c); flood != nil {
		flood.Inc()
		c.protocolError(http2.ErrCodeEnhanceYourCalm)
		return
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		c.settings(f)
	case *http2.PingFrame:
		if f.IsAck() {
			c.alive()
			return
		}
		c.control(func(w *http2.Framer) error { return w.WritePing(true, f.Data) })
	case *http2.GoAwayFrame:
		c.goAway(f)
	case *http2.WindowUpdateFrame:
		c.windowUpdate(f)
	case *http2.PushPromiseFrame:
		c.protocolError(http2.ErrCodeProtocol)
	case *http2.DataFrame:
		c.data(f)
	case *http2.MetaHeadersFrame:
		if s := c.streams[f.StreamID]; s != nil {
			c.head(s, f)
		} else {
			c.known(f.StreamID)
		}
	case *http2.RSTStreamFrame:
		if s := c.streams[f.StreamID]; s != nil {
			c.reset(s, f.ErrCode)
		} else {
			c.known(f.StreamID)
		}
	}
}

// known ends the connection if a frame is of a stream that we never opened.
func (c *Conn) known(id uint32) {
	if id >= c.next || id%2 == 0 {
		c.protocolError(http2.ErrCodeProtocol)
	}
}

func (c *Conn) settings(f *http2.SettingsFrame) {
	if f.IsAck() {
		return
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingMaxConcurrentStreams:
			c.limit, c.told = min(c.pool.options().MaxStreams, s.Val), true
		case http2.SettingInitialWindowSize:
			delta := int64(s.Val) - c.initial
			c.initial = int64(s.Val)
			for _, one := range c.streams {
				if one.window += delta; one.window > maxWindow {
					return http2.ConnectionError(http2.ErrCodeFlowControl)
				}
			}
			c.unblock()
		case http2.SettingMaxFrameSize:
			c.peerFrame = min(int(s.Val), sendRoom)
		case http2.SettingHeaderTableSize:
			c.encoder.SetMaxDynamicTableSize(min(s.Val, 4096))
		}
		return nil
	})
	if err != nil {
		c.protocolError(http2.ErrCodeProtocol)
		return
	}
	c.told = true
	c.control((*http2.Framer).WriteSettingsAck)
	c.pool.serve()
}

func (c *Conn) goAway(f *http2.GoAwayFrame) {
	if !c.draining {
		c.shared.HTTP2.CloseNotify.Inc()
	}
	c.draining = true
	for id, s := range c.streams {
		if id > f.LastStreamID { // the host has never looked at it
			s.fail(unix.ECONNRESET, ErrReset)
		}
	}
	c.vacant()
}

// maxWindow is the largest that a window may become (RFC 9113, 6.9.1).
const maxWindow = 1<<31 - 1

func (c *Conn) windowUpdate(f *http2.WindowUpdateFrame) {
	if f.StreamID == 0 {
		if c.window += int64(f.Increment); c.window > maxWindow {
			c.protocolError(http2.ErrCodeFlowControl)
			return
		}
		c.unblock()
		return
	}
	s := c.streams[f.StreamID]
	if s == nil {
		c.known(f.StreamID)
		return
	}
	if s.window += int64(f.Increment); s.window > maxWindow {
		c.resetStream(s, http2.ErrCodeFlowControl)
		s.fail(unix.EPROTO, ErrReset)
		return
	}
	if s.blocked {
		c.wake(s, unix.EPOLLOUT)
	}
}

func (c *Conn) data(f *http2.DataFrame) {
	// The connection's window opens at once; padding counts.
	if c.owed += int(f.Length); c.owed >= c.connWindow/2 {
		c.put(func(w *http2.Framer) error { return w.WriteWindowUpdate(0, uint32(c.owed)) })
		c.owed = 0
	}
	s := c.streams[f.StreamID]
	if s == nil {
		c.known(f.StreamID) // else it is of a stream that we have reset
		return
	}
	switch s.credit -= int64(f.Length); {
	case !s.answered:
		c.protocolError(http2.ErrCodeProtocol)
		return
	case s.remoteEnd:
		c.protocolError(http2.ErrCodeStreamClosed)
		return
	case s.credit < 0:
		c.resetStream(s, http2.ErrCodeFlowControl)
		s.fail(unix.EPROTO, ErrReset)
		return
	}
	s.keep(f.Data())
	if padding := int(f.Length) - len(f.Data()); padding > 0 {
		s.repay(padding)
	}
	s.remoteEnd = f.StreamEnded()
	c.wake(s, unix.EPOLLIN)
	s.settle()
}

func (c *Conn) head(s *Stream, f *http2.MetaHeadersFrame) {
	if f.Truncated {
		h := c.shared.HTTP2
		h.ListTooLarge.Inc()
		h.TxReset.Inc()
		h.RqRxReset.Inc() // as Envoy counts it
		c.put(func(w *http2.Framer) error { return w.WriteRSTStream(s.id, http2.ErrCodeInternal) })
		s.fail(unix.EPROTO, ErrReset)
		return
	}
	if s.answered { // trailers
		if s.remoteEnd || !f.StreamEnded() {
			c.noMessage()
			return
		}
		s.remoteEnd = true
		c.wake(s, unix.EPOLLIN)
		s.settle()
		return
	}
	status, err := strconv.Atoi(f.PseudoValue("status"))
	switch {
	case err != nil:
		c.noMessage()
	case status/100 == 1 && !f.StreamEnded():
	case status != 200 || f.StreamEnded(): // as Envoy's: no other status opens a tunnel
		c.resetStream(s, http2.ErrCodeInternal)
		s.answer(StatusError(status))
	default:
		s.answer(nil)
	}
}

// reset is the host's RST_STREAM.
func (c *Conn) reset(s *Stream, code http2.ErrCode) {
	h := c.shared.HTTP2
	h.RxReset.Inc()
	switch code {
	case http2.ErrCodeRefusedStream:
	case http2.ErrCodeNo:
		h.RqRxResetNoError.Inc()
	default:
		h.RqRxReset.Inc()
	}
	if code == http2.ErrCodeNo && s.remoteEnd && s.answered {
		s.finished = true // all that it had to say was said
		s.leave()
		c.wake(s, unix.EPOLLIN)
		return
	}
	s.fail(unix.ECONNRESET, ErrReset)
}
