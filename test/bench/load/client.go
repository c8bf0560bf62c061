package load

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is what a client does on its connections.
type Kind string

// The kinds of traffic.
const (
	// Requests: one message at a time on each connection, answered by one of
	// the same size. An operation is such an exchange.
	Requests Kind = "rr"
	// Bulk: the server sends without end. An operation is a byte.
	Bulk Kind = "bulk"
	// Duplex: both sides send without end. An operation is a byte of either
	// direction.
	Duplex Kind = "duplex"
	// Connections: connect, one request, its answer, close by RST. An operation
	// is all of that.
	Connections Kind = "crc"
)

// Config says what a client does.
type Config struct {
	To          netip.AddrPort
	Kind        Kind
	Size        int // of a message, in bytes
	Connections int // at a time
	Threads     int
	// Unchecked takes the bytes of bulk as they are: only to tell what the
	// comparison costs.
	Unchecked bool
}

// Window is what was done between Begin and End.
type Window struct {
	Operations uint64
	Elapsed    time.Duration
	// Latency of requests and of connections; empty for bulk.
	Latency Histogram
}

const maxWindows = 8

// Client is running traffic.
type Client struct {
	cfg     Config
	to      *unix.SockaddrInet4
	threads []*clientThread
	window  atomic.Int32 // the current one; 0 is before and between them
	started time.Time
	last    int32
	base    time.Time
	ready   atomic.Int32 // connections that have moved bytes
	failed  chan error
	stop    atomic.Bool
	running sync.WaitGroup
}

type clientThread struct {
	c      *Client
	poll   *poll
	conns  []*clientConn // by fd
	buf    []byte
	result [maxWindows]struct {
		operations uint64
		latency    Histogram
	}
	seen atomic.Int32 // window that everything so far was counted in
}

type clientConn struct {
	fd        int
	id        uint32
	start     int64  // ns since base
	in, out   stream // next bytes to come and to go
	got, sent int    // of the message in hand, the hello not counted
	hello     int    // bytes of the hello that are still to be sent
	up        bool
	waiting   bool
}

// Start opens the connections and lets the traffic go. It returns once each
// connection has carried bytes, or after the limit.
func Start(cfg Config, limit time.Duration) (*Client, error) {
	to, err := sockaddr(cfg.To)
	if err != nil {
		return nil, err
	}
	if cfg.Size > maxChunk || cfg.Connections < 1 || cfg.Threads < 1 {
		return nil, fmt.Errorf("read configuration of the load: %+v", cfg)
	}
	c := &Client{cfg: cfg, to: to, base: time.Now(), failed: make(chan error, cfg.Threads)}
	for i := range cfg.Threads {
		p, err := newPoll()
		if err != nil {
			return nil, err
		}
		t := &clientThread{c: c, poll: p, conns: make([]*clientConn, 1<<16), buf: make([]byte, maxChunk)}
		c.threads = append(c.threads, t)
		c.running.Go(func() { t.run(i) })
	}
	for deadline := time.Now().Add(limit); c.ready.Load() < int32(cfg.Connections); time.Sleep(time.Millisecond) {
		select {
		case err := <-c.failed:
			c.Close()
			return nil, err
		default:
		}
		if time.Now().After(deadline) {
			c.Close()
			return nil, fmt.Errorf("start load: %d of %d connections carry bytes after %v", c.ready.Load(), cfg.Connections, limit)
		}
	}
	return c, nil
}

// Failed tells of a corrupt stream or a broken connection.
func (c *Client) Failed() <-chan error { return c.failed }

// Begin opens a window.
func (c *Client) Begin() {
	c.last++
	c.started = time.Now()
	c.window.Store(c.last)
}

// End closes it.
func (c *Client) End() (*Window, error) {
	w := &Window{Elapsed: time.Since(c.started)}
	c.window.Store(0)
	for _, t := range c.threads {
		for t.seen.Load() != 0 {
			select {
			case err := <-c.failed:
				return nil, err
			case <-time.After(100 * time.Microsecond):
			}
		}
		w.Operations += t.result[c.last].operations
		w.Latency.merge(&t.result[c.last].latency)
	}
	select {
	case err := <-c.failed:
		return nil, err
	default:
		return w, nil
	}
}

// Close resets all connections.
func (c *Client) Close() {
	c.stop.Store(true)
	c.running.Wait()
}

func (c *Client) now() int64 { return int64(time.Since(c.base)) }

func (t *clientThread) run(turn int) {
	runtime.LockOSThread()
	defer t.close()
	for i := turn; i < t.c.cfg.Connections; i += len(t.c.threads) {
		if err := t.connect(uint32(i)); err != nil {
			t.c.failed <- err
			return
		}
	}
	for !t.c.stop.Load() {
		// What is counted from here on belongs to this window, or to 0.
		w := t.c.window.Load()
		t.seen.Store(w)
		for _, ev := range t.poll.wait() {
			c := t.conns[ev.Fd]
			if c == nil {
				continue
			}
			if err := t.ready(c, ev.Events, w); err != nil {
				t.c.failed <- fmt.Errorf("connection %d: %w", c.id, err)
				return
			}
		}
	}
}

func (t *clientThread) close() {
	for fd, c := range t.conns {
		if c != nil {
			unix.Close(fd)
		}
	}
	unix.Close(t.poll.fd)
}

func (t *clientThread) connect(id uint32) error {
	start := t.c.now()
	fd, err := open(t.c.to)
	if err != nil {
		return err
	}
	t.conns[fd] = &clientConn{fd: fd, id: id, start: start, in: streamOf(id), out: streamOf(id), hello: helloSize}
	return t.poll.set(unix.EPOLL_CTL_ADD, fd, unix.EPOLLOUT)
}

func (t *clientThread) ready(c *clientConn, events uint32, w int32) error {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		e, _ := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		return fmt.Errorf("broken: %w", unix.Errno(e))
	}
	if c.hello > 0 && events&unix.EPOLLOUT != 0 {
		return t.greet(c)
	}
	if t.c.cfg.Kind == Bulk || t.c.cfg.Kind == Duplex {
		return t.bulk(c, events, w)
	}
	if events&unix.EPOLLOUT != 0 {
		if err := t.ask(c); err != nil {
			return err
		}
	}
	if events&unix.EPOLLIN != 0 {
		return t.answer(c, w)
	}
	return nil
}

// greet sends the hello, with the first message right behind it.
func (t *clientThread) greet(c *clientConn) error {
	h := hello{mode: modeEcho, size: uint32(t.c.cfg.Size), id: c.id}
	body := t.c.cfg.Size
	switch t.c.cfg.Kind {
	case Bulk:
		h.mode, body = modeSource, 0
	case Duplex:
		h.mode, body = modeBoth, 0
	}
	if t.c.cfg.Kind == Bulk || t.c.cfg.Kind == Duplex {
		h.size = 0
		c.in++ // the server's stream is another one than the client's
	}
	h.put(t.buf)
	first := t.buf[:helloSize+copy(t.buf[helloSize:], c.out.next(min(body, maxChunk-helloSize)))]
	n, e := send(c.fd, first)
	if e != 0 {
		return fmt.Errorf("send hello: %w", e)
	}
	if n < helloSize {
		return fmt.Errorf("send hello: %d bytes only", n)
	}
	c.hello = 0
	c.sent = n - helloSize
	switch t.c.cfg.Kind {
	case Bulk:
		return t.poll.set(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLIN)
	case Duplex:
		return t.poll.set(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLIN|unix.EPOLLOUT)
	}
	c.waiting = true
	return t.ask(c)
}

// ask sends what is left of the message in hand.
func (t *clientThread) ask(c *clientConn) error {
	if left := t.c.cfg.Size - c.sent; left > 0 {
		n, e := send(c.fd, (c.out + stream(c.sent)).next(left))
		if e != 0 && e != unix.EAGAIN {
			return fmt.Errorf("send: %w", e)
		}
		if e == 0 {
			c.sent += n
		}
	}
	waiting := c.sent < t.c.cfg.Size
	if waiting == c.waiting {
		return nil
	}
	c.waiting = waiting
	events := uint32(unix.EPOLLIN)
	if waiting {
		events = unix.EPOLLOUT
	}
	return t.poll.set(unix.EPOLL_CTL_MOD, c.fd, events)
}

// answer reads some of the answer; when it is whole, the next message goes out.
func (t *clientThread) answer(c *clientConn, w int32) error {
	size := t.c.cfg.Size
	// One byte more than must come: a repeated one shows.
	n, e := recv(c.fd, t.buf[:min(size-c.got+1, maxChunk)])
	if e == unix.EAGAIN {
		return nil
	}
	if e != 0 {
		return fmt.Errorf("receive: %w", e)
	}
	if n == 0 {
		return fmt.Errorf("receive: the stream ended in the middle of an answer")
	}
	if c.got+n > size || !(c.in + stream(c.got)).check(t.buf[:n]) {
		return fmt.Errorf("receive: answer is corrupt within %d bytes at %d of %d", n, c.got, size)
	}
	if c.got += n; c.got < size {
		return nil
	}
	now := t.c.now()
	r := &t.result[w]
	r.operations++
	r.latency.add(now - c.start)
	if !c.up {
		c.up = true
		t.c.ready.Add(1)
	}
	if t.c.cfg.Kind == Connections {
		t.conns[c.fd] = nil
		unix.Close(c.fd)
		return t.again(c)
	}
	c.start = now
	c.in += stream(size)
	c.out += stream(size)
	c.got, c.sent = 0, 0
	return t.ask(c)
}

// again opens the slot's next connection.
func (t *clientThread) again(c *clientConn) error {
	start := t.c.now()
	fd, err := open(t.c.to)
	if err != nil {
		return err
	}
	*c = clientConn{fd: fd, id: c.id, start: start, in: streamOf(c.id), out: streamOf(c.id), hello: helloSize, up: true}
	t.conns[fd] = c
	return t.poll.set(unix.EPOLL_CTL_ADD, fd, unix.EPOLLOUT)
}

func (t *clientThread) bulk(c *clientConn, events uint32, w int32) error {
	r := &t.result[w]
	if events&unix.EPOLLIN != 0 {
		n, e := recv(c.fd, t.buf)
		if e != 0 && e != unix.EAGAIN {
			return fmt.Errorf("receive: %w", e)
		}
		if e == 0 {
			if n == 0 {
				return fmt.Errorf("receive: the stream ended")
			}
			if !t.c.cfg.Unchecked && !c.in.check(t.buf[:n]) {
				return fmt.Errorf("receive: stream is corrupt within %d bytes at %d", n, c.in-streamOf(c.id)-1)
			}
			c.in += stream(n)
			r.operations += uint64(n)
			if !c.up {
				c.up = true
				t.c.ready.Add(1)
			}
		}
	}
	if events&unix.EPOLLOUT != 0 {
		n, e := send(c.fd, c.out.next(maxChunk))
		if e != 0 && e != unix.EAGAIN {
			return fmt.Errorf("send: %w", e)
		}
		if e == 0 {
			c.out += stream(n)
			r.operations += uint64(n)
		}
	}
	return nil
}
