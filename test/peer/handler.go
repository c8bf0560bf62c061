package peer

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// Echo sends back what comes, and ends after the client's end.
func Echo(_ context.Context, c *net.TCPConn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// AnswerAfterEOF reads to the client's FIN and only then says how many bytes
// came, in decimal: it proves half-close.
func AnswerAfterEOF(_ context.Context, c *net.TCPConn) {
	n, err := io.Copy(io.Discard, c)
	if err != nil {
		return
	}
	io.WriteString(c, strconv.FormatInt(n, 10))
}

// Banner speaks first, then echoes.
func Banner(text string) Handler {
	return func(ctx context.Context, c *net.TCPConn) {
		if _, err := io.WriteString(c, text); err == nil {
			Echo(ctx, c)
		}
	}
}

// BannerThenFIN speaks first, half-closes, and then reads to the client's end.
func BannerThenFIN(text string) Handler {
	return func(_ context.Context, c *net.TCPConn) {
		if _, err := io.WriteString(c, text); err != nil {
			return
		}
		if c.CloseWrite() == nil {
			io.Copy(io.Discard, c)
		}
	}
}

// Stall neither reads nor writes until the server closes.
func Stall(ctx context.Context, _ *net.TCPConn) { <-ctx.Done() }

// Slow reads chunk bytes every interval, with a small receive buffer, and echoes
// nothing.
func Slow(chunk int, interval time.Duration) Handler {
	return func(ctx context.Context, c *net.TCPConn) {
		c.SetReadBuffer(4 << 10)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		buf := make([]byte, chunk)
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
	}
}

// ResetAfter sends say, reads want bytes (0: none), waits, and resets.
func ResetAfter(say string, want int, wait time.Duration) Handler {
	return func(ctx context.Context, c *net.TCPConn) {
		defer Reset(c)
		if _, err := io.WriteString(c, say); err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, c, int64(want)); err != nil {
			return
		}
		pause(ctx, wait)
	}
}

// CloseAfter sends say, reads want bytes (0: none), waits, and closes; if the
// client sent more than was read, the kernel makes that a RST.
func CloseAfter(say string, want int, wait time.Duration) Handler {
	return func(ctx context.Context, c *net.TCPConn) {
		if _, err := io.WriteString(c, say); err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, c, int64(want)); err != nil {
			return
		}
		pause(ctx, wait)
	}
}

// ResponseThen sends say and then runs next, which may be nil; it does not read.
// It is made for Record.
func ResponseThen(say string, next Handler) Handler {
	return func(ctx context.Context, c *net.TCPConn) {
		if _, err := io.WriteString(c, say); err == nil && next != nil {
			next(ctx, c)
		}
	}
}

// CloseWrite half-closes.
func CloseWrite(_ context.Context, c *net.TCPConn) { c.CloseWrite() }

// Drip sends say n times, each after interval, and then reads to the end.
func Drip(say string, n int, interval time.Duration) Handler {
	return func(ctx context.Context, c *net.TCPConn) {
		for range n {
			pause(ctx, interval)
			if _, err := io.WriteString(c, say); err != nil {
				return
			}
		}
		io.Copy(io.Discard, c)
	}
}

// Both writes n bytes of the stamped stream out, then FIN, and checks n bytes of
// stream in meanwhile. done gets the first thing that was wrong, or nil.
func Both(out, in uint64, n int64, done func(error)) Handler {
	return func(_ context.Context, c *net.TCPConn) {
		written := make(chan error, 1)
		go func() {
			_, err := io.Copy(struct{ io.Writer }{c}, NewSource(out, n))
			if err == nil {
				err = c.CloseWrite()
			}
			written <- err
		}()
		check := NewChecker(in)
		_, err := io.Copy(check, struct{ io.Reader }{c})
		if err == nil && check.Good() != n {
			err = fmt.Errorf("check stream: end after %d of %d bytes", check.Good(), n)
		}
		if werr := <-written; err == nil {
			err = werr
		}
		done(err)
	}
}

// Seen is what a recording server saw of one connection.
type Seen struct {
	Data []byte
	End  End
	// Before is the time from accept to the end, At the time of the end.
	Before time.Duration
	At     time.Time
}

// Record runs h, which must not read, then reads to the end and hands over what
// it saw. h may be nil.
func Record(seen chan<- Seen, h Handler) Handler {
	return func(ctx context.Context, c *net.TCPConn) {
		start := time.Now()
		if h != nil {
			h(ctx, c)
		}
		data, err := io.ReadAll(c)
		at := time.Now()
		end, ok := EndOf(err)
		if !ok {
			return // closed from this side
		}
		select {
		case seen <- Seen{Data: data, End: end, Before: at.Sub(start), At: at}:
		case <-ctx.Done():
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
