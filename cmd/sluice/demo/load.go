package demo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	longLived    = 10
	messageBytes = 64
	// patience is what a client grants each step.
	patience = 10 * time.Second
)

// tally is what the clients saw.
type tally struct {
	long, short, messages atomic.Int64
	bytes                 atomic.Int64 // each way, of what went well

	mu       sync.Mutex
	failures []string
}

func (t *tally) fail(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failures = append(t.failures, fmt.Sprintf(format, args...))
}

func (t *tally) failed() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.failures...)
}

// client is a connection whose banner was read.
type client struct {
	net.Conn
	in     *bufio.Reader
	number int // of the back end
}

// open connects and reads the banner.
func open(at string) (*client, error) {
	c, err := net.DialTimeout("tcp", at, patience)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	in := bufio.NewReader(c)
	line, err := in.ReadString('\n')
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("read banner: %w", err)
	}
	for number := 1; number <= 2; number++ {
		if line == banner(number) {
			return &client{c, in, number}, nil
		}
	}
	c.Close()
	return nil, fmt.Errorf("read banner: %q is no back end's", line)
}

// visit is a short connection: it reads the banner, half-closes, and wants a
// clean end. It returns the back end's number, 0 when it failed.
func (t *tally) visit(at string) int {
	t.short.Add(1)
	number, err := visit(at)
	if err != nil {
		t.fail("short connection: %v", err)
		return 0
	}
	t.bytes.Add(int64(len(banner(number))))
	return number
}

func visit(at string) (int, error) {
	c, err := open(at)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, fmt.Errorf("half-close: %w", err)
	}
	if n, err := io.Copy(io.Discard, c.in); err != nil || n != 0 {
		return 0, fmt.Errorf("wait for the end: %d bytes and %v, want a clean end", n, err)
	}
	return c.number, nil
}

// converse is a long-lived connection: messages of random bytes, each read back
// and compared, until ctx ends; then a clean end.
func (t *tally) converse(ctx context.Context, c *client, seed uint64) {
	defer c.Close()
	if err := t.pingPong(ctx, c, rand.New(rand.NewPCG(seed, 0))); err != nil {
		t.fail("long-lived connection %d: %v", seed, err)
	}
}

func (t *tally) pingPong(ctx context.Context, c *client, random *rand.Rand) error {
	sent, got := make([]byte, messageBytes), make([]byte, messageBytes)
	for n := 0; ctx.Err() == nil; n++ {
		for i := range sent {
			sent[i] = byte(random.Uint32())
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write(sent); err != nil {
			return fmt.Errorf("message %d: %w", n, err)
		}
		if _, err := io.ReadFull(c.in, got); err != nil {
			return fmt.Errorf("message %d: %w", n, err)
		}
		if at := differs(sent, got); at >= 0 {
			return fmt.Errorf("message %d: byte %d of %d came back as %#02x, sent %#02x", n, at, messageBytes, got[at], sent[at])
		}
		t.messages.Add(1)
		t.bytes.Add(2 * messageBytes)
		// A conversation, not a flood: others share the machine.
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
	}
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		return fmt.Errorf("half-close: %w", err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.in.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("wait for the end: %v, want a clean end", err)
	}
	return nil
}

// differs is where two messages first differ, -1 when they are equal.
func differs(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}
