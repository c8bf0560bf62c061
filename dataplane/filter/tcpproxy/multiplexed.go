package tcpproxy

import (
	"errors"
	"time"

	"github.com/sluice-proxy/sluice/dataplane/http2"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/stream"
	"github.com/sluice-proxy/sluice/dataplane/tls"
	"github.com/sluice-proxy/sluice/dataplane/tunnel"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// multiplexed is a tunnel that is one of several on a connection.
type multiplexed struct {
	session *Session
	stream  *http2.Stream
	since   int64
	idle    loop.Timer
	open    bool
}

// multiplexes says that the connection is to be a stream to the cluster's host.
func (s *Session) multiplexes(c *upstream.Cluster) bool {
	h := c.Config().HTTP2
	return h != nil && s.tunnels()
}

// multiplex asks for a stream on a connection to the host that others may share.
func (s *Session) multiplex(c upstream.Choice) {
	s.conn.Info.Connecting(c.Host.Endpoint())
	s.selected(c.Host)
	o, w := s.opening, s.conn.Core.Worker
	o.attempts++
	o.dialing = time.Now()
	s.up = upstream.OnShared(c.Host)
	from := s.conn.Info.Source()
	t := http2.Target{Host: c.Host, Generation: c.Generation(), TLS: c.TLS(), From: upstream.Source{Addr: from.Addr, Mark: from.Mark}, Header: string(s.proxyHeader())}
	if t.TLS != nil {
		t.Wish = http2.Wish{ServerName: s.conn.Info.State()[stateServerName].Value, Names: s.conn.Info.State()[stateNames].Value,
			Protocols: s.conn.Info.State()[stateProtocols].Value}
		if t.Wish.Protocols == "" && len(t.TLS.Config().ALPN) == 0 {
			t.Wish.Protocols = "h2"
			if c.Host.Cluster().Config().HTTP2.ByALPN {
				t.Wish.Protocols = "h2,http/1.1"
			}
		}
	}
	asked := s.factory.tunnel.request(s.conn.Info)
	r := http2.Request{Method: "CONNECT", Authority: asked.Authority, Path: asked.Path}
	if r.Path != "" {
		r.Method = "POST"
	}
	for _, h := range asked.Headers {
		r.Headers = append(r.Headers, http2.Header(h))
	}
	m := &multiplexed{session: s, since: w.Now()}
	s.needSeldom().shared = m
	s.idleWhileAsked(&m.idle)
	m.stream = s.conn.Core.HTTP2.Open(t, r, m)
}

// Answered is the end of the opening, one way or the other.
func (m *multiplexed) Answered(_ *http2.Stream, err error) {
	s := m.session
	s.conn.Core.Worker.Stop(&m.idle)
	if err == nil {
		m.open = true
		s.conn.Info.SetUpstreamTLS(m.stream.TLS())
		s.stands(&standing{fd: -1, counted: true, transport: m.stream})
		return
	}
	s.seldom.shared = nil
	m.stream.Close(false)
	info := s.conn.Info
	var status http2.StatusError
	switch {
	case errors.As(err, &status):
		info.Flags.Set(stream.UpstreamConnectionFailure) // also if another attempt succeeds
		s.missed(tunnel.StatusError(status).Error(), false)
	case errors.Is(err, upstream.ErrPendingOverflow), errors.Is(err, upstream.ErrRequestOverflow):
		s.missed("", true)
	case errors.Is(err, http2.ErrLost), errors.Is(err, http2.ErrReset), errors.Is(err, http2.ErrProtocol):
		info.Flags.Set(stream.UpstreamConnectionFailure)
		s.missed("", false)
	default:
		s.missed(failure(err), errors.As(err, new(*upstream.BindError)))
	}
}

// Alone goes on over HTTP/1.1, on a connection of its own.
func (m *multiplexed) Alone(fd int, t *tls.Conn, c upstream.Connection) {
	s := m.session
	s.conn.Core.Worker.Stop(&m.idle)
	s.seldom.shared, s.up = nil, c
	s.conn.Info.SetUpstreamTLS(t.Info())
	s.reached(&standing{fd: fd, transport: t})
}

// Wake is told of the stream's events.
func (m *multiplexed) Wake(events uint32) {
	if p := m.session.pair; p != nil {
		p.Wake(events)
	}
}

// Finished ends the connection of a stream that its host has ended both ways.
func (m *multiplexed) Finished() {
	if m.session.pair != nil {
		m.session.Close()
	}
}

// leaveShared gives the stream up, or hands it back.
func (s *Session) leaveShared(complete bool) {
	if m := s.shared(); m != nil {
		s.seldom.shared = nil
		s.conn.Core.Worker.Stop(&m.idle)
		m.stream.Close(complete)
	}
}
