package load

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Server is the back end of the benchmark.
type Server struct {
	listener int
	threads  []*serverThread
	failed   chan error
	stop     atomic.Bool
	running  sync.WaitGroup

	mu   sync.Mutex
	free []*serverConn
}

// serverConn is one connection. Its fd indexes the table of its thread.
type serverConn struct {
	fd       int
	head     [helloSize]byte
	headLen  int
	hello    hello
	out, in  stream
	buf      []byte // the message in hand
	got, put int    // of it
	waiting  bool   // for room to send
}

type serverThread struct {
	s     *Server
	poll  *poll
	conns [1 << 16]*serverConn
	buf   []byte
}

// Listen makes a server of so many threads.
func Listen(on netip.AddrPort, threads int) (*Server, error) {
	sa, err := sockaddr(on)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open listening socket: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err := unix.Bind(fd, sa); err != nil {
		return nil, fmt.Errorf("bind %s: %w", on, err)
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", on, err)
	}
	s := &Server{listener: fd, failed: make(chan error, threads)}
	for range threads {
		p, err := newPoll()
		if err != nil {
			return nil, err
		}
		s.threads = append(s.threads, &serverThread{s: s, poll: p, buf: make([]byte, maxChunk)})
	}
	if err := s.threads[0].poll.set(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN); err != nil {
		return nil, err
	}
	return s, nil
}

// Serve starts the threads. The channel tells of a corrupt stream.
func (s *Server) Serve() <-chan error {
	for _, t := range s.threads {
		s.running.Go(t.run)
	}
	return s.failed
}

// Addr is where it listens.
func (s *Server) Addr() (netip.AddrPort, error) {
	sa, err := unix.Getsockname(s.listener)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read address: %w", err)
	}
	in := sa.(*unix.SockaddrInet4)
	return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port)), nil
}

// Close ends a server that serves, and resets its connections.
func (s *Server) Close() {
	s.stop.Store(true)
	s.running.Wait()
	unix.Close(s.listener)
}

func (t *serverThread) run() {
	runtime.LockOSThread()
	defer t.close()
	next := 0
	for !t.s.stop.Load() {
		for _, ev := range t.poll.wait() {
			fd := int(ev.Fd)
			if fd == t.s.listener {
				for t.s.accept(next) {
					next++
				}
				continue
			}
			c := t.conns[fd]
			if c == nil {
				continue
			}
			open, err := t.ready(c, ev.Events)
			if err != nil {
				t.s.failed <- err
				return
			}
			if !open {
				t.conns[fd] = nil
				unix.Close(fd)
				t.s.put(c)
			}
		}
	}
}

func (t *serverThread) close() {
	for fd, c := range t.conns {
		if c != nil {
			unix.Close(fd)
		}
	}
	unix.Close(t.poll.fd)
}

// accept gives one waiting connection to the next thread in turn.
func (s *Server) accept(turn int) bool {
	fd, _, err := unix.Accept4(s.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		return false
	}
	prepare(fd)
	c := s.get()
	c.fd = fd
	t := s.threads[turn%len(s.threads)]
	t.conns[fd] = c
	if t.poll.set(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN) != nil {
		unix.Close(fd)
	}
	return true
}

// get and put recycle connections: nothing is collected in this process.
func (s *Server) get() *serverConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.free); n > 0 {
		c := s.free[n-1]
		s.free = s.free[:n-1]
		return c
	}
	return new(serverConn)
}

func (s *Server) put(c *serverConn) {
	*c = serverConn{buf: c.buf}
	s.mu.Lock()
	s.free = append(s.free, c)
	s.mu.Unlock()
}

// ready moves a connection on. It closes by RST, as SO_LINGER is 0.
func (t *serverThread) ready(c *serverConn, events uint32) (open bool, err error) {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		return false, nil
	}
	if c.headLen < helloSize {
		n, e := recv(c.fd, c.head[c.headLen:])
		if e == unix.EAGAIN {
			return true, nil
		}
		if e != 0 || n == 0 {
			return false, nil
		}
		if c.headLen += n; c.headLen < helloSize {
			return true, nil
		}
		h, ok := parseHello(c.head[:])
		if !ok {
			return false, fmt.Errorf("server: first bytes %q are no hello", c.head)
		}
		c.hello, c.in, c.out = h, streamOf(h.id), streamOf(h.id)+1
		switch h.mode {
		case modeEcho:
			if cap(c.buf) < int(h.size) {
				c.buf = make([]byte, h.size)
			}
			c.buf = c.buf[:h.size]
		case modeSource:
			return t.poll.set(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLIN|unix.EPOLLOUT) == nil, nil
		case modeBoth:
			return t.poll.set(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLIN|unix.EPOLLOUT) == nil, nil
		}
	}
	if c.hello.mode == modeEcho {
		return t.echo(c), nil
	}
	if events&unix.EPOLLIN != 0 {
		n, e := recv(c.fd, t.buf)
		if e != unix.EAGAIN {
			if e != 0 || n == 0 {
				return false, nil
			}
			if c.hello.mode == modeSource || !c.in.check(t.buf[:n]) {
				return false, fmt.Errorf("server: stream %d is corrupt", c.hello.id)
			}
			c.in += stream(n)
		}
	}
	if events&unix.EPOLLOUT != 0 {
		n, e := send(c.fd, c.out.next(maxChunk))
		if e == 0 {
			c.out += stream(n)
		} else if e != unix.EAGAIN {
			return false, nil
		}
	}
	return true, nil
}

// echo reads one whole message and answers it by itself; the client compares.
func (t *serverThread) echo(c *serverConn) bool {
	if c.put == 0 {
		n, e := recv(c.fd, c.buf[c.got:])
		if e == unix.EAGAIN {
			return true
		}
		if e != 0 || n == 0 {
			return false
		}
		if c.got += n; c.got < len(c.buf) {
			return true
		}
	}
	n, e := send(c.fd, c.buf[c.put:])
	if e != 0 && e != unix.EAGAIN {
		return false
	}
	if e == 0 {
		c.put += n
	}
	waiting := c.put < len(c.buf)
	if !waiting {
		c.got, c.put = 0, 0
	}
	if waiting != c.waiting {
		c.waiting = waiting
		events := uint32(unix.EPOLLIN)
		if waiting {
			events = unix.EPOLLOUT
		}
		return t.poll.set(unix.EPOLL_CTL_MOD, c.fd, events) == nil
	}
	return true
}
