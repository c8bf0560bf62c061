package health

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// newProber makes what does the session's checks.
func (s *session) newProber(t Target) prober {
	dial := func(ctx context.Context) (net.Conn, error) { return s.k.dialer.Dial(ctx, t) }
	switch {
	case s.k.o.prober != nil:
		return s.k.o.prober(t)
	case t.Check.HTTP != nil:
		return newHTTP(s, t, dial)
	case t.Check.GRPC != nil:
		return newGRPC(s, t, dial)
	}
	return &tcp{config: t.Check.TCP, reuse: t.Check.ReuseConnection, dial: dial, lost: s.lost}
}

// received bounds what is kept of a host's answer, for it may send without end.
const received = 64 << 10

// tcp is a tcp_health_check.
type tcp struct {
	config *api.TCPCheck
	reuse  bool
	dial   func(context.Context) (net.Conn, error)
	lost   func()

	mu     sync.Mutex
	kept   net.Conn // for the next check; idle watches it
	idle   chan struct{}
	early  []byte // what came before the next check
	closed bool
}

func (p *tcp) check(ctx context.Context) outcome {
	conn, got := p.take()
	if conn == nil {
		var err error
		if conn, err = p.dial(ctx); err != nil {
			return failed(err)
		}
	}
	if len(p.config.Receive) == 0 {
		// Nothing is sent either, as in Envoy.
		conn.Close()
		return outcome{}
	}
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if err := p.send(conn); err != nil {
		conn.Close()
		return failed(err)
	}
	buf := make([]byte, 4096)
	for !contains(got, p.config.Receive) {
		n, err := conn.Read(buf)
		if got = append(got, buf[:n]...); len(got) > received {
			got = got[len(got)-received:]
		}
		if err != nil && !contains(got, p.config.Receive) {
			conn.Close()
			return failed(err)
		}
	}
	if !p.reuse || !p.keep(conn) {
		conn.Close()
	}
	return outcome{}
}

// send writes the payload. Envoy puts the PROXY header before each one, on a
// connection that is kept too, and none where there is no payload.
func (p *tcp) send(conn net.Conn) error {
	if len(p.config.Send) == 0 {
		return nil
	}
	var out []byte
	switch p.config.ProxyProtocol {
	case 1:
		out = headerV1(conn.LocalAddr(), conn.RemoteAddr())
	case 2:
		out = []byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00") // LOCAL
	}
	_, err := conn.Write(append(out, p.config.Send...))
	return err
}

func headerV1(from, to net.Addr) []byte {
	f, ok := from.(*net.TCPAddr)
	t, is := to.(*net.TCPAddr)
	if !ok || !is {
		return []byte("PROXY UNKNOWN\r\n")
	}
	family := "TCP6"
	if f.IP.To4() != nil {
		family = "TCP4"
	}
	return fmt.Appendf(nil, "PROXY %s %s %s %d %d\r\n", family, f.IP, t.IP, f.Port, t.Port)
}

// contains tells whether the segments stand in got, one after the other, with
// anything between them.
func contains(got []byte, segments [][]byte) bool {
	for _, s := range segments {
		i := bytes.Index(got, s)
		if i < 0 {
			return false
		}
		got = got[i+len(s):]
	}
	return true
}

// keep leaves the connection to watch; false: the host is not checked any more.
func (p *tcp) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	_ = conn.SetDeadline(time.Time{})
	p.kept, p.idle, p.early = conn, make(chan struct{}), nil
	go p.watch(conn, p.idle)
	return true
}

// watch sees the end of a connection that is kept.
func (p *tcp) watch(conn net.Conn, done chan struct{}) {
	defer close(done)
	buf := make([]byte, 256)
	for {
		n, err := conn.Read(buf)
		p.mu.Lock()
		if room := received - len(p.early); room > 0 {
			p.early = append(p.early, buf[:min(n, room)]...)
		}
		gone := err != nil && p.kept == conn
		if gone {
			p.kept = nil
		}
		p.mu.Unlock()
		if gone {
			conn.Close()
			p.lost()
		}
		if err != nil {
			return
		}
	}
}

// take returns the connection that was kept, if it still stands, and what came
// on it meanwhile.
func (p *tcp) take() (net.Conn, []byte) {
	p.mu.Lock()
	conn, idle := p.kept, p.idle
	p.kept = nil
	p.mu.Unlock()
	if conn == nil {
		return nil, nil
	}
	_ = conn.SetReadDeadline(time.Unix(1, 0))
	<-idle
	return conn, p.early
}

func (p *tcp) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	if conn, _ := p.take(); conn != nil {
		conn.Close()
	}
}
