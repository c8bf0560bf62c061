package tunnel

import (
	"bytes"
	"errors"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// script is a wire that gives what it was told, piece by piece, and takes so much
// at once.
type script struct {
	in   [][]byte // an empty one: nothing now
	end  bool     // behind them
	out  bytes.Buffer
	room int
}

func (s *script) Recv(b []byte) (int, syscall.Errno) {
	if len(s.in) == 0 {
		if s.end {
			return 0, 0
		}
		return 0, unix.EAGAIN
	}
	if len(s.in[0]) == 0 {
		s.in = s.in[1:]
		return 0, unix.EAGAIN
	}
	n := copy(b, s.in[0])
	if s.in[0] = s.in[0][n:]; len(s.in[0]) == 0 {
		s.in = s.in[1:]
	}
	return n, 0
}

func (s *script) Send(b []byte) (int, syscall.Errno) {
	n := min(len(b), s.room)
	if n == 0 {
		return 0, unix.EAGAIN
	}
	s.room -= n
	s.out.Write(b[:n])
	return n, 0
}

func (*script) Holds() bool          { return false }
func (*script) Flush() syscall.Errno { return 0 }

// readAll reads in small pieces until the end or an error; EAGAIN is tried again
// while the script has something.
func readAll(c *chunked, s *script, piece int) (string, syscall.Errno) {
	var out []byte
	b := make([]byte, piece)
	for {
		if end, err := c.Ready(); err == 0 && !end {
			n, err := c.Recv(b)
			if err != 0 || n == 0 {
				return string(out), unix.EIO // Ready said that there is something
			}
			out = append(out, b[:n]...)
			continue
		}
		switch n, err := c.Recv(b); {
		case err == unix.EAGAIN && (len(s.in) > 0 || s.end):
		case err != 0:
			return string(out), err
		case n == 0:
			return string(out), 0
		default: // came since
			out = append(out, b[:n]...)
		}
	}
}

func TestBodiesAreRead(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for _, tt := range []struct {
		what, in, want string
		body           body
		err            syscall.Errno
	}{
		{"chunks", "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world", body{state: size}, 0},
		{"extensions, capitals, trailers", "A;x=y\r\n0123456789\r\n0\r\nt: u\r\nv: w\r\n\r\n", "0123456789", body{state: size}, 0},
		{"line feeds alone", "2\nab\n0\n\n", "ab", body{state: size}, 0},
		{"a long chunk", "186A0\r\n" + long + "\r\n0\r\n\r\n", long, body{state: size}, 0},
		{"nothing", "0\r\n\r\n", "", body{state: size}, 0},
		{"an end within a chunk", "5\r\nhel", "hel", body{state: size}, unix.ECONNABORTED},
		{"an end between chunks", "3\r\nhel\r\n", "hel", body{state: size}, unix.ECONNABORTED},
		{"an end before the last line", "3\r\nhel\r\n0\r\n", "hel", body{state: size}, unix.ECONNABORTED},
		{"no size", "x\r\n", "", body{state: size}, unix.EPROTO},
		{"a negative size", "-1\r\n", "", body{state: size}, unix.EPROTO},
		{"a size beyond all", "ffffffffffffffffff\r\n", "", body{state: size}, unix.EPROTO},
		{"more than the chunk", "2\r\nabc\r\n", "ab", body{state: size}, unix.EPROTO},
		{"a line without an end", strings.Repeat("1", maxLine+1), "", body{state: size}, unix.EPROTO},
		{"so many bytes", "hello and more", "hello", body{state: counted, left: 5}, 0},
		{"fewer than so many", "hel", "hel", body{state: counted, left: 5}, unix.ECONNABORTED},
		{"to the end", "hello", "hello", body{state: open}, 0},
	} {
		t.Run(tt.what, func(t *testing.T) {
			for _, piece := range []int{1, 7, 1 << 16} {
				s := &script{end: true}
				for rest := []byte(tt.in); len(rest) > 0; {
					n := min(piece, len(rest))
					s.in = append(s.in, rest[:n], nil)
					rest = rest[n:]
				}
				if got, err := readAll(&chunked{wire: s, body: tt.body}, s, piece); got != tt.want || err != tt.err {
					t.Errorf("pieces of %d: got %d bytes %.30q, %v", piece, len(got), got, err)
				}
			}
		})
	}
}

func TestChunksAreWrittenWhole(t *testing.T) {
	s := &script{room: 4}
	c := &chunked{wire: s}
	if n, err := c.Send([]byte("hello")); n != 5 || err != 0 || !c.Holds() {
		t.Fatalf("took %d, %v, holds %v", n, err, c.Holds())
	}
	if n, err := c.Send([]byte("more")); n != 0 || err != unix.EAGAIN {
		t.Fatalf("took %d while it held something, %v", n, err)
	}
	c.CloseWrite()
	c.CloseWrite()
	for c.Flush() == unix.EAGAIN {
		s.room = 3
	}
	if got := s.out.String(); got != "5\r\nhello\r\n0\r\n\r\n" || c.Holds() {
		t.Errorf("wrote %q", got)
	}
}

func TestHeads(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want answer
		err  error
	}{
		{"HTTP/1.1 200 OK\r\n\r\n", answer{status: 200, length: -1}, nil},
		{"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n", answer{status: 200, length: 4}, nil},
		{"HTTP/1.0 200 OK\n\n", answer{status: 200, length: -1}, nil},
		{"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", answer{status: 200, length: -1, chunked: true}, nil},
		{"HTTP/1.1 100 Continue\r\n\r\n", answer{status: 100}, nil},
		{"SSH-2.0-x\r\n\r\n", answer{}, ErrAnswer},
		{"HTTP/1.1 2x0 OK\r\n\r\n", answer{}, ErrAnswer},
		{"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", answer{}, ErrAnswer},
	} {
		if n := headSize([]byte(tt.in + "more")); n != len(tt.in) {
			t.Errorf("%q: size %d", tt.in, n)
		}
		for n := range len(tt.in) {
			if got := headSize([]byte(tt.in[:n])); got != 0 {
				t.Errorf("%q: a part of it is a head of %d", tt.in[:n], got)
			}
		}
		got, err := readHead([]byte(tt.in))
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%q: got %+v, %v", tt.in, got, err)
		}
	}
}

// FuzzChunks: Ready and Recv agree, and no byte comes from nowhere.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\n\r\n"), 3)
	f.Add([]byte("0\r\na: b\r\n\r\nx"), 1)
	f.Fuzz(func(t *testing.T, b []byte, piece int) {
		piece = 1 + piece&0xff
		s := &script{end: true}
		for rest := bytes.Clone(b); len(rest) > 0; {
			n := min(piece, len(rest))
			s.in = append(s.in, rest[:n])
			rest = rest[n:]
		}
		got, err := readAll(&chunked{wire: s, body: body{state: size}}, s, piece)
		if err == unix.EIO {
			t.Fatal("Ready and Recv do not agree")
		}
		if len(got) > len(b) {
			t.Fatalf("%d bytes out of %d", len(got), len(b))
		}
	})
}
