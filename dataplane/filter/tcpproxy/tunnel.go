package tcpproxy

import (
	"errors"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/pair"
	"github.com/sluice-proxy/sluice/dataplane/stream"
	"github.com/sluice-proxy/sluice/dataplane/tunnel"
)

// stateNoTunnel is the filter state object that has a connection go without one.
const stateNoTunnel = "envoy.tcp_proxy.disable_tunneling"

// tunneling is a configuration's tunnel, ready to be asked for.
type tunneling struct {
	config    *api.Tunnel
	authority *stream.Formatter
	headers   []tunnelHeader
}

type tunnelHeader struct {
	name   string
	action api.HTTPAppend
	value  *stream.Formatter
}

func newTunneling(c *api.Tunnel) *tunneling {
	if c == nil {
		return nil
	}
	t := &tunneling{config: c, authority: stream.NewText(c.Hostname, false)}
	for _, h := range c.Headers {
		t.headers = append(t.headers, tunnelHeader{name: h.Name, action: h.Action, value: stream.NewText(h.Value, true)})
	}
	return t
}

// request prints what a connection asks for: with nothing known of a host, and
// what overwrites before what is added, as in Envoy. There is nothing that could
// be there already.
func (t *tunneling) request(i *stream.Info) tunnel.Request {
	client := *i
	client.Upstream = stream.Upstream{}
	m := stream.Moment{Info: &client, Now: time.Now()}
	r := tunnel.Request{Authority: string(t.authority.Append(nil, m)), Path: t.config.PostPath}
	var added []tunnel.Header
	for _, h := range t.headers {
		one := tunnel.Header{Name: h.name, Value: string(h.value.Append(nil, m))}
		switch {
		case one.Value == "" || h.action == api.OverwriteIfPresent:
		case h.action != api.OverwriteOrAdd:
			added = append(added, one)
		default:
			same := func(o tunnel.Header) bool { return o.Name == one.Name }
			r.Headers = append(slices.DeleteFunc(r.Headers, same), one)
		}
	}
	r.Headers = append(r.Headers, added...)
	return r
}

// digging is a tunnel that is asked for on a connection that stands.
type digging struct {
	up      *standing
	since   int64
	opening *tunnel.Opening
	idle    loop.Timer
}

// reached goes on with a connection to the host that stands: by a tunnel, if one
// is asked for. Envoy counts it as connected then, and its idle timeout runs.
func (s *Session) reached(up *standing) {
	t := s.factory.tunnel
	if !s.tunnels() {
		s.stands(up)
		return
	}
	o, w := s.opening, s.conn.Core.Worker
	s.up.Connected(time.Since(o.dialing))
	up.counted = true
	g := &digging{up: up, since: w.Now()}
	o.digging = g
	var err error
	if g.opening, err = tunnel.Open(w, up.fd, up.transport, t.request(s.conn.Info), s.dug); err != nil {
		s.closeTunnel()
		s.missed(err.Error(), false)
		return
	}
	s.idleWhileAsked(&g.idle)
}

// tunnels says that the connection goes through a tunnel.
func (s *Session) tunnels() bool {
	return s.factory.tunnel != nil && s.conn.Info.State()[stateNoTunnel].Value != "true"
}

// idleWhileAsked has the idle timeout run while a tunnel is asked for.
func (s *Session) idleWhileAsked(t *loop.Timer) {
	d := s.idleTimeout()
	if d <= 0 {
		return
	}
	t.F = func() {
		s.factory.stats.idleTimeout.Inc()
		s.conn.Info.Flags.Set(stream.UpstreamConnectionFailure)
		s.closedFor("tcp_session_idle_timeout")
		s.Close()
	}
	s.conn.Core.Worker.After(t, d)
}

// dug is the end of that, one way or the other.
func (s *Session) dug(t pair.Transport, err error) {
	g := s.opening.digging
	if err != nil {
		why := ""
		if !errors.Is(err, tunnel.ErrEnded) {
			why = err.Error()
		}
		s.closeTunnel()
		s.conn.Info.Flags.Set(stream.UpstreamConnectionFailure) // also if another attempt succeeds
		s.missed(why, false)
		return
	}
	s.opening.digging = nil
	s.conn.Core.Worker.Stop(&g.idle)
	g.up.heard = g.opening.Read()
	if g.up.silent = false; t != nil {
		g.up.transport = t
	}
	s.stands(g.up)
}

// closeTunnel ends the connection to the host that had none.
func (s *Session) closeTunnel() {
	g, w := s.opening.digging, s.conn.Core.Worker
	s.opening.digging = nil
	w.Stop(&g.idle)
	if g.opening != nil {
		g.opening.Cancel()
	}
	s.up.Ended(time.Duration(w.Now()-g.since), false)
	filter.CloseQuietly(g.up.fd)
}

func (s *Session) giveUpTunnel() {
	if s.opening != nil && s.opening.digging != nil {
		s.closeTunnel()
	}
}
