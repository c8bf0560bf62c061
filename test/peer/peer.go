// Package peer holds clients and servers with habits: they echo, answer only
// after the end, read slowly or never, and reset. Tests and benchmarks put them
// on either side of a proxy.
package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// Handler serves one connection. The server closes c after it; a connection
// that was closed or reset by the handler stays so. ctx ends with the server.
type Handler func(ctx context.Context, c *net.TCPConn)

// Server serves every connection by one handler, each in its goroutine.
type Server struct {
	ln     net.Listener
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	conns    map[*net.TCPConn]struct{}
	accepted int
	closed   bool
}

// Listen serves on addr (host:port, port 0 for any) until Close.
func Listen(addr string, h Handler) (*Server, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for peer: %w", err)
	}
	return Serve(ln, h), nil
}

// Serve serves on ln, which must be TCP, until Close.
func Serve(ln net.Listener, h Handler) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{ln: ln, cancel: cancel, conns: make(map[*net.TCPConn]struct{})}
	s.wg.Go(func() { s.acceptLoop(ctx, h) })
	return s
}

func (s *Server) acceptLoop(ctx context.Context, h Handler) {
	for {
		nc, err := s.ln.Accept()
		if err != nil {
			return
		}
		c := nc.(*net.TCPConn)
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			c.Close()
			return
		}
		s.accepted++
		s.conns[c] = struct{}{}
		s.wg.Go(func() {
			h(ctx, c)
			c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		})
		s.mu.Unlock()
	}
}

// Addr is where the server listens.
func (s *Server) Addr() netip.AddrPort {
	ap := s.ln.Addr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Accepted counts the connections so far.
func (s *Server) Accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// Open counts the connections that are being served.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Close stops listening, closes what is open and waits for the handlers.
func (s *Server) Close() error {
	s.cancel()
	err := s.ln.Close()
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return err
}

// End says how the reading side of a connection ended.
type End string

// The ends there are.
const (
	FIN  End = "FIN"
	RST  End = "RST"
	Open End = "open" // no end yet
)

// EndOf says which end err, of a read or a write, stands for; nil and io.EOF
// are FIN. The bool is false for errors that are no end of TCP.
func EndOf(err error) (End, bool) {
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return FIN, true
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return RST, true
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Open, true
	}
	return "", false
}

// ReadToEnd reads until the end or until timeout has passed without one.
func ReadToEnd(c net.Conn, timeout time.Duration) (data []byte, end End, err error) {
	if err := c.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return nil, "", err
	}
	defer c.SetReadDeadline(time.Time{})
	data, err = io.ReadAll(c)
	if end, ok := EndOf(err); ok {
		return data, end, nil
	}
	return data, "", err
}

// Reset closes c by RST; bytes not yet sent are thrown away.
func Reset(c *net.TCPConn) error {
	if err := c.SetLinger(0); err != nil {
		return err
	}
	return c.Close()
}
