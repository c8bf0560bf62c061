package tunnel

import (
	"bytes"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// sendSize is the most that one chunk holds, and one Send takes.
	sendSize = 64 << 10
	// readSize is what is read at once.
	readSize = 32 << 10
	// maxLine bounds the line of a chunk's size and a trailer.
	maxLine = 8 << 10
)

// state is where in a response the next byte stands (RFC 9112, 7.1).
type state uint8

const (
	open    state = iota // a body that ends with the connection
	counted              // a body of so many bytes
	size                 // the line of a chunk's size
	data                 // a chunk
	after                // the line end behind it
	trailer              // the lines behind the last chunk
	ended
)

// body is how far a response's body was read.
type body struct {
	state state
	left  int64
}

// chunked is the transport of a POST: what is sent goes in chunks, and what comes
// is the body of the response.
type chunked struct {
	wire wire
	body body

	buf     []byte
	in      []byte // was read, not decoded; mostly in buf
	out     []byte // framed, not taken by the wire
	closing bool
	broken  syscall.Errno // what was read is no body
}

// Recv reads the body. Its end is the end of the stream; that of the connection
// within it is none.
func (c *chunked) Recv(b []byte) (int, syscall.Errno) {
	for len(b) > 0 {
		n, more, err := c.decode(b)
		if n > 0 || err != 0 || !more {
			return n, err
		}
		if err := c.fill(); err != 0 {
			return 0, err
		}
	}
	return 0, 0
}

// Ready tells whether Recv has something to tell.
func (c *chunked) Ready() (end bool, err syscall.Errno) {
	for {
		_, more, err := c.decode(nil)
		switch {
		case err != 0:
			return false, err
		case !more:
			return c.body.state == ended, 0
		}
		if err := c.fill(); err != 0 {
			return false, err
		}
	}
}

// fill reads more of the wire. What ends with the connection has ended then.
func (c *chunked) fill() syscall.Errno {
	if c.buf == nil {
		c.buf = make([]byte, maxLine+readSize)
	}
	// What is left is part of a line, or came with the head.
	if len(c.in) <= maxLine {
		c.in = c.buf[:copy(c.buf, c.in)]
	}
	have := len(c.in)
	c.in = slices.Grow(c.in, readSize)
	n, err := c.wire.Recv(c.in[have : have+readSize])
	switch {
	case err != 0:
		return err
	case n > 0:
		c.in = c.in[:have+n]
	case c.body.state == open:
		c.body.state = ended
	default:
		c.broken = unix.ECONNABORTED
	}
	return c.broken
}

// decode copies what is there of the body. more asks for more of the wire; without
// b it stops where there is something to copy.
func (c *chunked) decode(b []byte) (n int, more bool, err syscall.Errno) {
	for c.broken == 0 {
		switch s := &c.body; s.state {
		case ended:
			return 0, false, 0
		case open, counted, data:
			if s.state != open && s.left == 0 {
				s.state = map[state]state{counted: ended, data: after}[s.state]
				continue
			}
			if len(c.in) == 0 {
				return 0, true, 0
			}
			if b == nil {
				return 0, false, 0
			}
			want := len(b)
			if s.state != open {
				want = int(min(int64(want), s.left))
			}
			n = copy(b[:want], c.in)
			c.in = c.in[n:]
			s.left -= int64(n)
			return n, false, 0
		default:
			line, ok := c.line()
			if !ok {
				if len(c.in) > maxLine {
					c.broken = unix.EPROTO
					continue
				}
				return 0, true, 0
			}
			if !s.next(line) {
				c.broken = unix.EPROTO
			}
		}
	}
	return 0, false, c.broken
}

func (c *chunked) line() ([]byte, bool) {
	i := bytes.IndexByte(c.in, '\n')
	if i < 0 {
		return nil, false
	}
	line := bytes.TrimSuffix(c.in[:i], []byte("\r"))
	c.in = c.in[i+1:]
	return line, true
}

// next goes on behind a line; false: that is no chunk.
func (s *body) next(line []byte) bool {
	switch s.state {
	case size:
		digits, _, _ := bytes.Cut(line, []byte(";")) // extensions say nothing to us
		n, err := strconv.ParseUint(string(bytes.TrimSpace(digits)), 16, 62)
		if err != nil {
			return false
		}
		s.left, s.state = int64(n), data
		if n == 0 {
			s.state = trailer
		}
	case after:
		s.state = size
		return len(line) == 0
	case trailer:
		if len(line) == 0 {
			s.state = ended
		}
	}
	return true
}

// Send puts bytes into a chunk, if nothing of the last is left.
func (c *chunked) Send(b []byte) (int, syscall.Errno) {
	if err := c.Flush(); err != 0 {
		return 0, err
	}
	b = b[:min(len(b), sendSize)]
	if len(b) == 0 {
		return 0, 0
	}
	c.out = strconv.AppendInt(c.out[:0], int64(len(b)), 16)
	c.out = append(append(append(c.out, "\r\n"...), b...), "\r\n"...)
	if err := c.Flush(); err != 0 && err != unix.EAGAIN {
		return 0, err
	}
	return len(b), 0
}

// Holds tells whether something taken waits for the kernel.
func (c *chunked) Holds() bool { return len(c.out) > 0 || c.wire.Holds() }

// Flush hands it on.
func (c *chunked) Flush() syscall.Errno {
	for len(c.out) > 0 {
		n, err := c.wire.Send(c.out)
		if err != 0 {
			return err
		}
		c.out = c.out[n:]
	}
	return c.wire.Flush()
}

// CloseWrite sends the last chunk, once.
func (c *chunked) CloseWrite() {
	if !c.closing {
		c.closing = true
		c.out = append(c.out, "0\r\n\r\n"...)
	}
}
