package http2

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/pair"
	"github.com/sluice-proxy/sluice/dataplane/tls"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"
)

// wire is what frames travel by.
type wire interface {
	Recv(b []byte) (int, syscall.Errno)
	Send(b []byte) (int, syscall.Errno)
	Flush() syscall.Errno
}

// Conn is one connection to a host, from its dial on.
type Conn struct {
	pool   *hosted
	worker *loop.Worker
	shared *upstream.Shared

	dial      *upstream.Dial
	handshake *tls.Handshake
	deadline  loop.Timer // of the handshake, then of idleness
	fd        int
	wire      wire
	began     time.Time
	standing  bool
	closed    bool
	draining  bool // takes no more streams
	broken    error
	remote    bool // it was the host who broke it

	streams      map[uint32]*Stream
	next         uint32
	opened       uint32 // streams, in all
	limit        uint32 // of streams at a time
	told         bool   // the host has told its limit
	greeted      bool   // it has begun with SETTINGS
	streamWindow int
	connWindow   int
	inbound      inbound
	controls     int        // answers among out
	probe        loop.Timer // of keep-alive, then of its answer
	age          loop.Timer

	in      []byte // was read, and is no whole frame yet
	reader  bytes.Reader
	framer  *http2.Framer
	out     []byte
	headers bytes.Buffer
	encoder *hpack.Encoder
	window  int64 // for what we send
	initial int64 // a new stream's
	owed    int
	// peerFrame is the largest frame that the host takes.
	peerFrame int
	again     bool      // there may be more to read
	waiting   []*Stream // to send
	woken     []*Stream
	turns     loop.Timer
}

func newConn(p *hosted, shared *upstream.Shared) *Conn {
	c := &Conn{pool: p, worker: p.pool.worker, shared: shared, fd: -1, streams: map[uint32]*Stream{}, next: 1,
		window: 65535, initial: 65535, peerFrame: maxFrame}
	o := p.options()
	c.streamWindow, c.connWindow = int(o.StreamWindow), int(o.ConnWindow)
	if o.StreamWindow == 0 {
		c.streamWindow = int(min(shared.Cluster().Config().PerConnectionBufferLimit, api.DefaultStreamWindow))
		if c.streamWindow == 0 { // that is no limit
			c.streamWindow = api.DefaultStreamWindow
		}
	}
	if o.ConnWindow == 0 {
		c.connWindow = api.DefaultConnWindow
	}
	c.framer = http2.NewFramer((*sink)(&c.out), &c.reader)
	c.framer.SetMaxReadFrameSize(maxFrame)
	c.framer.MaxHeaderListSize = o.MaxHeaders
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.framer.SetReuseFrames()
	c.encoder = hpack.NewEncoder(&c.headers)
	c.limit = o.MaxStreams
	c.turns.F = c.turn
	if !o.ByALPN {
		shared.Speaks()
	}
	return c
}

// sink is where frames are written.
type sink []byte

func (s *sink) Write(b []byte) (int, error) {
	*s = append(*s, b...)
	return len(b), nil
}

// connect dials; a handshake, if there is one, is part of that.
func (c *Conn) connect() {
	t := &c.pool.target
	c.began = time.Now()
	c.dial = c.shared.Dial(c.worker, t.From, []byte(t.Header), func(fd int, err error) {
		c.dial = nil
		if err != nil {
			c.missed(err, errors.Is(err, upstream.ErrConnectTimeout))
			return
		}
		c.fd = fd
		if t.TLS != nil {
			c.secure()
			return
		}
		c.wire = pair.Plain(fd)
		c.stands()
	})
}

func (c *Conn) secure() {
	t := &c.pool.target
	var err error
	c.handshake, err = t.TLS.Connect(c.worker, c.fd, c.shared.Host.Addr(), c.shared.Host.Endpoint().Hostname, t.Wish.wish(), func(err error) {
		c.worker.Stop(&c.deadline)
		h := c.handshake
		c.handshake = nil
		if err != nil {
			c.missed(errors.New(h.Failure()), false)
			return
		}
		c.wire, c.pool.tls = h.Conn, h.Info()
		if c.pool.options().ByALPN {
			c.shared.Agreed()
		}
		if c.pool.options().ByALPN && h.Protocol() != "h2" {
			c.handOver(h.Conn)
			return
		}
		c.stands()
	})
	if err != nil {
		c.missed(err, false)
		return
	}
	c.deadline.F = func() {
		c.handshake.Cancel()
		c.handshake = nil
		c.missed(upstream.ErrConnectTimeout, true)
	}
	c.worker.After(&c.deadline, max(0, c.shared.Cluster().Config().ConnectTimeout-time.Since(c.began)))
}

// handOver gives a connection of HTTP/1.1 to who has waited longest.
func (c *Conn) handOver(t *tls.Conn) {
	h, fd := c.pool, c.fd
	c.fd, c.closed = -1, true
	if len(h.pending) == 0 { // everybody has left
		c.fd = fd
		c.shut()
		c.shared.End(false, false, false)
		h.remove(c)
		return
	}
	s := h.pending[0]
	h.pending = h.pending[1:]
	s.over, s.answered = true, true
	s.request.Alone()
	h.remove(c)
	s.owner.Alone(fd, t, c.shared.Alone())
	h.serve()
}

// missed is the end of a connection that never stood.
func (c *Conn) missed(err error, timeout bool) {
	c.shut()
	c.shared.End(!timeout, timeout, false)
	c.pool.missed(c, err)
}

// stands begins to speak.
func (c *Conn) stands() {
	if err := c.worker.Add(c.fd, upstream.Events, c); err != nil {
		c.missed(fmt.Errorf("watch socket: %w", err), false)
		return
	}
	c.standing = true
	if c.pool.options().ByALPN {
		c.shared.Speaks()
	}
	c.shared.Stands()
	c.out = append(c.out, http2.ClientPreface...)
	c.put(func(f *http2.Framer) error {
		if err := f.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(c.streamWindow)},
			http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: c.framer.MaxHeaderListSize}); err != nil || c.connWindow == 65535 {
			return err
		}
		return f.WriteWindowUpdate(0, uint32(c.connWindow-65535))
	})
	c.lives()
	c.pool.serve()
	c.vacant()
	c.Ready(0) // a handshake may have read ahead
}

// room tells how many more streams it takes.
func (c *Conn) room() int {
	if c.draining || c.closed || c.broken != nil {
		return 0
	}
	limit := int64(c.limit)
	if !c.told {
		limit = min(limit, unknownStreams)
	}
	if most := c.pool.options().MaxRequests; most > 0 {
		limit = min(limit, int64(len(c.streams))+int64(most)-int64(c.opened))
	}
	return int(max(0, limit-int64(len(c.streams))))
}

// open asks for a stream.
func (c *Conn) open(s *Stream) {
	s.conn, s.id = c, c.next
	if err := s.request.Begin(); err != nil {
		s.over = true
		s.answer(err)
		return
	}
	c.next += 2
	c.opened++
	c.worker.Stop(&c.deadline)
	c.streams[s.id] = s
	s.window, s.credit = c.initial, int64(c.streamWindow)
	c.shared.HTTP2.StreamsActive.Inc()
	c.put(func(f *http2.Framer) error { return c.writeHead(f, s) })
	if most := c.pool.options().MaxRequests; most > 0 && c.opened >= most || c.next > math.MaxInt32 {
		c.draining = true
		c.shared.HTTP2.MaxRequests.Inc()
	}
}

func (c *Conn) writeHead(f *http2.Framer, s *Stream) error {
	c.headers.Reset()
	field := func(name, value string) {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) // to a buffer
	}
	field(":method", s.asks.Method)
	field(":authority", s.asks.Authority)
	if s.asks.Path != "" {
		field(":path", s.asks.Path)
		scheme := "http"
		if c.pool.target.TLS != nil {
			scheme = "https"
		}
		field(":scheme", scheme)
	}
	for _, h := range s.asks.Headers {
		field(h.Name, h.Value)
	}
	rest := c.headers.Bytes()
	part := rest[:min(len(rest), c.peerFrame)]
	rest = rest[len(part):]
	err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: part, EndHeaders: len(rest) == 0})
	for len(rest) > 0 && err == nil {
		part, rest = rest[:min(len(rest), c.peerFrame)], rest[min(len(rest), c.peerFrame):]
		err = f.WriteContinuation(s.id, len(rest) == 0, part)
	}
	return err
}

// vacant is called when there may be no stream left.
func (c *Conn) vacant() {
	if len(c.streams) > 0 || c.closed || !c.standing {
		return
	}
	if c.draining {
		c.fail(errDrained, false)
		return
	}
	if d := c.pool.options().IdleTimeout; d > 0 {
		c.deadline.F = func() {
			c.shared.HTTP2.CxIdleTimeout.Inc()
			c.fail(errIdle, false)
		}
		c.worker.After(&c.deadline, d)
	}
	if len(c.pool.pending) > 0 {
		c.soon() // for who waits for room
	}
}

// drain lets the streams go on, and takes no others.
func (c *Conn) drain() {
	c.draining = true
	c.vacant()
}

// fail notes the connection's end; it comes with the next turn.
func (c *Conn) fail(err error, remote bool) {
	if c.broken == nil && !c.closed {
		c.broken, c.remote = err, remote
		c.soon()
	}
}

// finish is the end of a connection that stood.
func (c *Conn) finish() {
	busy := len(c.streams) > 0
	if c.broken == ErrProtocol || c.broken == errFlood {
		c.shared.HTTP2.ProtocolError.Inc()
		busy = false // it is not the connection's end that ends them
	}
	c.shut()
	c.shared.End(c.remote, false, busy)
	c.pool.remove(c)
	for _, s := range c.streams {
		if c.broken == ErrProtocol || c.broken == errFlood {
			c.shared.HTTP2.RqTxReset.Inc()
		} else {
			c.shared.Cluster().Stats.PendingFailureEject.Inc()
		}
		s.fail(unix.ECONNRESET, ErrLost)
	}
	c.deliver()
	c.pool.serve()
}

// shut closes what there is.
func (c *Conn) shut() {
	c.closed = true
	c.worker.Stop(&c.deadline)
	c.worker.Stop(&c.turns)
	c.worker.Stop(&c.probe)
	c.worker.Stop(&c.age)
	if c.dial != nil {
		c.dial.Cancel()
		c.dial = nil
	}
	if c.handshake != nil {
		c.handshake.Cancel()
		c.handshake = nil
	}
	if c.fd < 0 {
		return
	}
	if t, ok := c.wire.(pair.Transport); ok {
		t.CloseWrite()
		_ = t.Flush() // who does not read it learns of the end from the socket
	}
	if c.standing {
		c.worker.Forget(c.fd)
	}
	closeQuietly(c.fd)
	c.fd = -1
}
