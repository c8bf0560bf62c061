package http2

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/balance"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/tls"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// house is a pool with a cluster of one host, which a test plays.
type house struct {
	*testing.T
	worker  *loop.Worker
	pool    *Pool
	cluster *upstream.Cluster
	store   *stats.Store
	ln      *net.TCPListener
}

func clusterConfig(at ...netip.AddrPort) *api.Cluster {
	options := api.DefaultHTTP2()
	l := api.Locality{Endpoints: []api.Endpoint{{Addr: netip.MustParseAddrPort("127.0.0.1:1"), Weight: 1}}}
	for _, a := range at {
		l.Endpoints[0].Addr = a
	}
	return &api.Cluster{
		Name: "c", ConnectTimeout: patience, PanicThreshold: 50, PerConnectionBufferLimit: 1 << 20, HTTP2: &options,
		CircuitBreakers: api.CircuitBreakers{MaxConnections: 99, MaxPendingRequests: 99, MaxRequests: 99},
		Assignment:      &api.Assignment{OverprovisioningFactor: 140, Localities: []api.Locality{l}},
	}
}

func newHouse(t *testing.T, change func(*api.Cluster)) *house {
	t.Helper()
	w, err := loop.New(0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go w.Run()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	c := clusterConfig(ln.Addr().(*net.TCPAddr).AddrPort())
	if change != nil {
		change(c)
	}
	h := &house{T: t, worker: w, pool: NewPool(w), store: stats.New(), ln: ln}
	h.cluster = upstream.New(c, h.store, upstream.Watch{})
	t.Cleanup(func() {
		w.Do(h.pool.Close)
		if h.cluster != nil {
			h.cluster.Close()
		}
		w.Close()
		ln.Close()
	})
	return h
}

// do runs f on the worker's thread.
func (h *house) do(f func()) { h.worker.Do(f) }

// client is the owner of a stream.
type client struct {
	h      *house
	stream *Stream
	told   chan error
	woken  chan struct{}
	over   chan struct{}
}

func (c *client) Answered(_ *Stream, err error) { c.told <- err }
func (c *client) Wake(uint32) {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}
func (c *client) Alone(int, *tls.Conn, upstream.Connection) { c.told <- errors.New("HTTP/1.1") }
func (c *client) Finished()                                 { close(c.over) }

func (h *house) open() *client {
	h.Helper()
	c := &client{h: h, told: make(chan error, 9), woken: make(chan struct{}, 1), over: make(chan struct{})}
	h.do(func() { c.open() })
	return c
}

func (c *client) open() {
	choice := c.h.cluster.Choose(0, &balance.Asked{})
	if choice.Host == nil {
		c.h.Error("there is no host")
		return
	}
	c.stream = c.h.pool.Open(Target{Host: choice.Host, Generation: choice.Generation()},
		Request{Method: "CONNECT", Authority: "a.example:443"}, c)
}

func (c *client) answer() error {
	c.h.Helper()
	select {
	case err := <-c.told:
		return err
	case <-time.After(patience):
		c.h.Fatal("the stream was not answered")
		return nil
	}
}

// stands wants the stream to be there.
func (c *client) stands() {
	c.h.Helper()
	if err := c.answer(); err != nil {
		c.h.Fatalf("the stream failed: %v", err)
	}
}

// read reads n bytes, or until the end or an error.
func (c *client) read(n int) (string, error) {
	c.h.Helper()
	late := time.After(patience)
	out := make([]byte, 0, n)
	for len(out) < n {
		var got int
		var err error
		c.h.do(func() {
			k, errno := c.stream.Recv(out[len(out):n])
			if got = k; errno != 0 {
				err = errno
			} else if k == 0 {
				err = io.EOF
			}
		})
		out = out[:len(out)+got]
		if err == nil {
			continue
		}
		if !errors.Is(err, unix.EAGAIN) {
			return string(out), err
		}
		select {
		case <-c.woken:
		case <-late:
			c.h.Fatalf("%d bytes of %d came", len(out), n)
		}
	}
	return string(out), nil
}

// send sends as much as is taken.
func (c *client) send(b []byte) (n int) {
	c.h.do(func() { n, _ = c.stream.Send(b) })
	return n
}

// host is one connection, as its other end has it.
type host struct {
	h *house
	*http2.Framer
	conn net.Conn
	enc  *hpack.Encoder
	buf  bytes.Buffer
}

// accept takes a connection, and begins to speak.
func (h *house) accept(settings ...http2.Setting) *host {
	h.Helper()
	p := h.meet()
	h.must(p.WriteSettings(settings...))
	return p
}

func (h *house) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// meet takes a connection, and says nothing.
func (h *house) meet() *host {
	h.Helper()
	h.must(h.ln.SetDeadline(time.Now().Add(patience)))
	conn, err := h.ln.Accept()
	h.must(err)
	h.Cleanup(func() { conn.Close() })
	h.must(conn.SetDeadline(time.Now().Add(patience)))
	preface := make([]byte, len(http2.ClientPreface))
	_, err = io.ReadFull(conn, preface)
	h.must(err)
	if string(preface) != http2.ClientPreface {
		h.Fatalf("preface %q", preface)
	}
	p := &host{h: h, conn: conn, Framer: http2.NewFramer(conn, conn)}
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.enc = hpack.NewEncoder(&p.buf)
	return p
}

// next is the next frame that is of one of the types; nil at the connection's end.
func (p *host) next(types ...http2.FrameType) http2.Frame {
	p.h.Helper()
	for {
		f, err := p.ReadFrame()
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				p.h.Fatalf("no frame of %v came", types)
			}
			return nil
		}
		for _, t := range types {
			if f.Header().Type == t {
				return f
			}
		}
	}
}

// asked is the next request.
func (p *host) asked() *http2.MetaHeadersFrame {
	p.h.Helper()
	f, ok := p.next(http2.FrameHeaders).(*http2.MetaHeadersFrame)
	if !ok {
		p.h.Fatal("the connection ended before it was asked anything")
	}
	return f
}

func (p *host) head(id uint32, end bool, pairs ...string) {
	p.h.Helper()
	p.buf.Reset()
	for i := 0; i < len(pairs); i += 2 {
		p.h.must(p.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}))
	}
	p.h.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.buf.Bytes(), EndHeaders: true, EndStream: end}))
}

// answered opens a stream, and accepts it.
func (h *house) answered() (*client, *host, uint32) {
	h.Helper()
	c := h.open()
	p := h.accept()
	id := p.asked().StreamID
	p.head(id, false, ":status", "200")
	c.stands()
	return c, p, id
}

// figure waits until a figure of the cluster has a value.
func (h *house) figure(name string, want uint64) {
	h.Helper()
	var got uint64
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if got = h.value(name); got == want {
			return
		}
	}
	h.Errorf("%s is %d, want %d", name, got, want)
}

func (h *house) value(name string) uint64 {
	s, _ := h.store.Lookup("cluster.c." + name)
	return s.Value
}
