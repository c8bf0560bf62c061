package httpserver

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/sluice-proxy/sluice/dataplane/filter"
)

// conn is a client's connection as the server has it: it counts, asks the
// filters before where they have to see every byte, and tells its worker of the
// end. Safe for concurrent use.
type conn struct {
	net.Conn          // the stream
	socket   net.Conn // that it is on, or comes out of by TLS
	session  *session // for its worker's thread
	client   netip.AddrPort
	every    bool // filters see every read, but for the first bytes: of these they were asked
	first    bool // read by the server's reader alone
	// done is closed with the connection.
	done   chan struct{}
	once   sync.Once
	rx, tx atomic.Uint64
	remote atomic.Bool // the client ended it
	// codec is the protocol's major version once a request came, over at the end.
	codec atomic.Int32
}

func newConn(socket, stream net.Conn, s *session) *conn {
	out := &conn{Conn: stream, socket: socket, session: s, client: s.conn.Info.Remote(), every: s.conn.Watch() == filter.EveryByte, done: make(chan struct{})}
	out.rx.Store(s.conn.Info.Received)
	return out
}

// over is the codec of a connection that was counted out.
const over = -1

type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// Read reads what the client sent.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.rx.Add(uint64(n))
	if err != nil && !errors.Is(err, net.ErrClosed) && (errors.Is(err, io.EOF) || !isTimeout(err)) {
		c.remote.Store(true)
	}
	first := n > 0 && !c.first
	c.first = c.first || n > 0
	if n > 0 && c.every && !first && !c.asked() {
		<-c.done // the filter ends it, now or later
		return 0, net.ErrClosed
	}
	return n, err
}

// asked has the filters judge bytes that were read.
func (c *conn) asked() bool {
	verdict := filter.Closed
	c.session.conn.Core.Worker.Do(func() { verdict = c.session.conn.Data(false) })
	return verdict == filter.Continue
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// Write writes to the client.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.tx.Add(uint64(n))
	return n, err
}

// CloseWrite sends the FIN; net/http does so before it closes a connection whose
// client may still be sending, so that the answer is not lost to an RST.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// Close is called by the server.
func (c *conn) Close() error {
	err := c.end(true)
	c.session.conn.Core.Worker.Post(c.session.ended)
	return err
}

// kill ends by RST what the server does not take any more.
func (c *conn) kill() { c.end(false) }

// scheme is what the client's URLs begin with.
func (c *conn) scheme() string {
	if c.Conn != c.socket {
		return "https"
	}
	return "http"
}

// endSoon closes in order without making the worker wait for the last words of TLS.
func (c *conn) endSoon() {
	if c.Conn == c.socket {
		c.end(true)
		return
	}
	go c.end(true)
}

// end closes the socket once: in order, or by RST, as SO_LINGER{1,0} asks that it
// has had from its start.
func (c *conn) end(inOrder bool) (err error) {
	if !inOrder {
		err = c.socket.Close() // ends a close in order that is under way, too
	}
	c.once.Do(func() {
		defer close(c.done)
		if !inOrder {
			return
		}
		if t, ok := c.socket.(*net.TCPConn); ok {
			err = t.SetLinger(-1)
		}
		err = errors.Join(err, c.Conn.Close())
	})
	return err
}

// queue is the server's listener: connections come from the workers, which never
// wait for it.
type queue struct {
	mu     sync.Mutex
	filled *sync.Cond
	conns  []*conn
	closed bool
}

func newQueue() *queue {
	q := &queue{}
	q.filled = sync.NewCond(&q.mu)
	return q
}

func (q *queue) put(c *conn) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.conns = append(q.conns, c)
	q.filled.Signal()
	return true
}

// Accept waits for a connection.
func (q *queue) Accept() (net.Conn, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.conns) == 0 && !q.closed {
		q.filled.Wait()
	}
	if q.closed {
		return nil, net.ErrClosed
	}
	c := q.conns[0]
	q.conns = q.conns[1:]
	return c, nil
}

// Close ends Accept; what waited is ended by RST.
func (q *queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.filled.Broadcast()
	for _, c := range q.conns {
		c.kill()
	}
	q.conns = nil
	return nil
}

// Addr is asked by nobody.
func (q *queue) Addr() net.Addr { return &net.TCPAddr{} }
