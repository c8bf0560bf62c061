package http2

import (
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/stream"
	"github.com/sluice-proxy/sluice/dataplane/tls"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// Target is what a connection is opened to. Requests with equal targets share
// connections.
type Target struct {
	Host *upstream.Host
	// Generation is the cluster's when Host was chosen.
	Generation upstream.Generation
	// TLS is what originates it; nil: it is in the clear.
	TLS  *tls.Client
	Wish Wish
	From upstream.Source
	// Header is sent first.
	Header string
}

// Wish is tls.Wish, comparable: lists are joined by commas.
type Wish struct{ ServerName, Names, Protocols string }

func (w Wish) wish() tls.Wish {
	return tls.Wish{ServerName: w.ServerName, Names: list(w.Names), Protocols: list(w.Protocols)}
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// Pool holds the connections of one worker.
type Pool struct {
	worker *loop.Worker
	hosts  map[Target]*hosted
	closed bool
}

// hosted are the connections to one target, and who waits for one.
type hosted struct {
	pool    *Pool
	target  Target
	sharing *upstream.Sharing
	conns   []*Conn
	pending []*Stream
	tell    []*Stream // who is to be told without a connection
	telling loop.Timer
	unwatch func()
	tls     *stream.TLS // of the last handshake
}

// NewPool makes a worker's.
func NewPool(w *loop.Worker) *Pool { return &Pool{worker: w, hosts: map[Target]*hosted{}} }

// Open asks for a stream. It is for the worker's thread.
func (p *Pool) Open(t Target, r Request, o Owner) *Stream {
	h := p.hosts[t]
	if h == nil {
		h = &hosted{pool: p, target: t, sharing: t.Generation.Sharing(t.Host)}
		h.telling.F = h.tellNow
		h.unwatch = t.Host.OnLeave(func() { p.worker.Post(h.drain) })
		p.hosts[t] = h
	}
	s := &Stream{pool: h, asks: r, owner: o, request: h.sharing.Request()}
	for _, c := range h.conns {
		if c.standing && c.room() > 0 && len(h.pending) == 0 {
			c.open(s)
			return s
		}
	}
	if err := s.request.Wait(); err != nil {
		s.over = true
		s.answer(err)
		return s
	}
	h.pending = append(h.pending, s)
	h.provide()
	return s
}

// TLS is what the last handshake with the stream's host agreed on, nil in the clear.
func (s *Stream) TLS() *stream.TLS { return s.pool.tls }

// Descriptor is that of the stream's connection.
func (s *Stream) Descriptor() int { return s.conn.fd }

// options are those in force.
func (h *hosted) options() *api.HTTP2 { return h.target.Host.Cluster().Config().HTTP2Options() }

// provide opens connections until there are enough for who waits.
func (h *hosted) provide() {
	room := 0
	for _, c := range h.conns {
		if !c.standing {
			room += c.room()
		}
	}
	for room < len(h.pending) {
		shared := h.sharing.Open()
		if shared == nil {
			return // until there is room on another
		}
		c := newConn(h, shared)
		h.conns = append(h.conns, c)
		room += max(1, c.room())
		c.connect()
	}
}

// serve gives connections that stand to who waits.
func (h *hosted) serve() {
	for _, c := range slices.Clone(h.conns) {
		for c.standing && len(h.pending) > 0 && c.room() > 0 {
			s := h.pending[0]
			h.pending = h.pending[1:]
			c.open(s)
		}
	}
	if len(h.pending) > 0 && !h.pool.closed {
		h.provide()
	}
}

// missed is the end of a connection that never stood: who waits fails with it, unless
// another is on its way.
func (h *hosted) missed(c *Conn, err error) {
	h.conns = slices.DeleteFunc(h.conns, func(o *Conn) bool { return o == c })
	if slices.ContainsFunc(h.conns, func(o *Conn) bool { return !o.standing }) {
		return
	}
	failed := h.pending
	h.pending = nil
	for _, s := range failed {
		s.over = true
		s.request.Eject()
		s.answer(err)
	}
	h.empty()
}

func (h *hosted) remove(c *Conn) {
	h.conns = slices.DeleteFunc(h.conns, func(o *Conn) bool { return o == c })
	h.empty()
}

// forget is for who does not wait any more.
func (h *hosted) forget(s *Stream) {
	h.pending = slices.DeleteFunc(h.pending, func(o *Stream) bool { return o == s })
}

// empty forgets a target without connections.
func (h *hosted) empty() {
	if len(h.conns) == 0 && len(h.pending) == 0 && h.pool.hosts[h.target] == h {
		delete(h.pool.hosts, h.target)
		h.unwatch()
	}
}

// drain is for a host that left its cluster.
func (h *hosted) drain() {
	for _, c := range slices.Clone(h.conns) {
		c.drain()
	}
}

func (h *hosted) tellLater(s *Stream) {
	h.tell = append(h.tell, s)
	if !h.telling.Armed() {
		h.pool.worker.After(&h.telling, 0)
	}
}

func (h *hosted) tellNow() {
	tell := h.tell
	h.tell = nil
	for _, s := range tell {
		if s.owner != nil {
			s.owner.Answered(s, s.unanswered)
		}
	}
}

// Close ends everything; no stream has an owner any more.
func (p *Pool) Close() {
	p.closed = true
	for _, h := range p.hosts {
		h.pending = nil
		for _, c := range slices.Clone(h.conns) {
			c.shut()
			c.shared.End(false, false, false)
			h.remove(c)
		}
	}
}
