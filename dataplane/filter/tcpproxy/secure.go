package tcpproxy

import (
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/stream"
	"github.com/sluice-proxy/sluice/dataplane/tls"
	"golang.org/x/sys/unix"
)

// Filter state objects that the transport socket of the host heeds.
const (
	stateServerName = "envoy.network.upstream_server_name"
	stateNames      = "envoy.network.upstream_subject_alt_names"
	stateProtocols  = "envoy.network.application_protocols"
)

// origin is a TLS handshake with a host.
type origin struct {
	fd        int
	handshake *tls.Handshake
	deadline  loop.Timer
}

// originate has the connection that stands encrypted: connect_timeout covers that,
// and a failure is one to connect.
func (s *Session) originate(fd int) {
	o, w := s.opening, s.conn.Core.Worker
	n := &origin{fd: fd}
	h := s.up.Host
	var err error
	n.handshake, err = o.tls.Connect(w, fd, h.Addr(), h.Endpoint().Hostname, s.wish(), s.originated)
	if err != nil {
		filter.CloseQuietly(fd)
		s.failed(err.Error(), false)
		return
	}
	o.origin = n
	n.deadline.F = func() {
		s.dropOrigin()
		s.failed("", true)
	}
	w.After(&n.deadline, max(0, s.up.Cluster().Config().ConnectTimeout-time.Since(o.dialing)))
}

// wish is what the client's filters want of the handshake.
func (s *Session) wish() (w tls.Wish) {
	state := s.conn.Info.State()
	if len(state) == 0 {
		return w
	}
	w.ServerName = state[stateServerName].Value
	w.Names = list(state[stateNames].Value)
	w.Protocols = list(state[stateProtocols].Value)
	return w
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func (s *Session) originated(err error) {
	o := s.opening
	n := o.origin
	o.origin = nil
	s.conn.Core.Worker.Stop(&n.deadline)
	if err != nil {
		filter.CloseQuietly(n.fd) // after the alert that says why
		s.failed(n.handshake.Failure(), false)
		return
	}
	s.conn.Info.SetUpstreamTLS(n.handshake.Info())
	s.reached(&standing{fd: n.fd, transport: n.handshake.Conn})
}

func (s *Session) dropOrigin() {
	n := s.opening.origin
	s.opening.origin = nil
	s.conn.Core.Worker.Stop(&n.deadline)
	n.handshake.Cancel()
	filter.CloseQuietly(n.fd)
}

// awaitClient keeps a connection to a host until the client's handshake is over. Its
// idle timeout runs already, as in Envoy.
func (s *Session) awaitClient(up *standing) {
	s.opening.standing = up
	up.silent = false // what it says meanwhile is told to nobody, but that it broke
	up.broke = s.hostBroke
	if err := s.conn.Core.Worker.Add(up.fd, unix.EPOLLET, up); err != nil {
		s.Kill()
		return
	}
	if d := s.idleTimeout(); d > 0 {
		up.idle.F = func() {
			s.factory.stats.idleTimeout.Inc()
			s.closedFor("tcp_session_idle_timeout")
			s.Close()
		}
		s.conn.Core.Worker.After(&up.idle, d)
	}
}

// Ready is called by the worker while the client's handshake goes on. An end of the
// stream, or an orderly close, waits for the client.
func (up *standing) Ready(events uint32) {
	if events&unix.EPOLLERR != 0 {
		up.broke()
	}
}

// hostBroke ends the connection of a client that still shakes hands, as Envoy does.
func (s *Session) hostBroke() {
	up := s.takeStanding()
	info := s.conn.Info
	info.Flags.Set(stream.UpstreamRemoteReset)
	info.Closed, info.Upstream.Closed = stream.LocalCloseReset, stream.RemoteReset
	s.up.Ended(time.Duration(s.conn.Core.Worker.Now()-s.connected), true)
	s.conn.Core.Worker.Forget(up.fd)
	unix.Close(up.fd)
	s.Kill()
}

// takeStanding ends the wait for the client's handshake.
func (s *Session) takeStanding() *standing {
	up := s.opening.standing
	s.opening.standing = nil
	s.conn.Core.Worker.Stop(&up.idle)
	return up
}

// Secured goes on after the client's handshake.
func (s *Session) Secured() {
	o := s.opening
	switch c := s.factory.config; {
	case o == nil:
	case o.standing != nil:
		up := s.takeStanding()
		s.conn.Core.Worker.Park(up.fd)
		s.pairUp(up)
	case c.ConnectMode == api.ConnectOnData:
		s.awaitData()
	case c.ConnectMode == api.ConnectOnTLSHandshake:
		s.connect()
	}
}

// giveUpTLS forgets a handshake with a host, or a host that waits for the client's.
func (s *Session) giveUpTLS() {
	o := s.opening
	if o == nil {
		return
	}
	if o.origin != nil {
		s.dropOrigin()
		s.up.Failed(false, "")
	}
	if o.standing != nil {
		up := s.takeStanding()
		s.conn.Core.Worker.Forget(up.fd)
		if r := s.conn.Info.Reasons(); r.LocalClose != "" {
			s.conn.Info.Explain().UpstreamLocalClose = r.LocalClose
		}
		s.up.Ended(time.Duration(s.conn.Core.Worker.Now()-s.connected), false)
		if up.fd < 0 {
			return // leaveShared has the rest
		}
		if up.transport != nil {
			up.transport.CloseWrite()
			_ = up.transport.Flush() // who does not read it learns of the end from the socket
		}
		filter.CloseQuietly(up.fd)
	}
}
