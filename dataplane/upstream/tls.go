package upstream

import (
	"context"
	"log/slog"
	"net"
	"reflect"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/tls"
)

// TLS is what clusters need for the transport sockets that are TLS.
type TLS struct {
	// Secrets are those in force.
	Secrets func() api.Secrets
	Limiter *tls.Limiter
	Log     *slog.Logger
}

// sockets are the transport sockets of a cluster's endpoints, read-only.
type sockets struct {
	own     *tls.Client // nil: raw_buffer
	matches []socketMatch
	// byHost is set if there are matches.
	byHost map[*Host]*tls.Client
}

type socketMatch struct {
	config *api.SocketMatch
	client *tls.Client
}

// newSockets makes those of c; what did not change goes on, with its sessions.
func (u *Cluster) newSockets(c *api.Cluster, old *view) *sockets {
	if c.Socket.TLS == nil && len(c.SocketMatches) == 0 {
		return nil
	}
	var have *sockets
	if old != nil {
		have = old.sockets
	}
	out := &sockets{own: u.client(c.Socket.TLS, have)}
	for i := range c.SocketMatches {
		m := &c.SocketMatches[i]
		out.matches = append(out.matches, socketMatch{m, u.client(m.Socket.TLS, have)})
	}
	return out
}

func (u *Cluster) client(c *api.UpstreamTLS, have *sockets) *tls.Client {
	if c == nil {
		return nil
	}
	for _, old := range have.clients() {
		if reflect.DeepEqual(old.Config(), c) {
			return old
		}
	}
	if u.tlsStats == nil {
		u.tlsStats = tls.NewClientStats(u.store, u.statName)
	}
	var secrets api.Secrets
	var limiter *tls.Limiter
	if u.tls != nil {
		secrets, limiter = u.tls.Secrets(), u.tls.Limiter
	}
	out, err := tls.NewClient(c, secrets, u.tlsStats, limiter)
	if err != nil && u.tls != nil {
		// It connects to nobody: never in the clear.
		u.tls.Log.Error("make TLS context", "cluster", u.statName, "error", err)
	}
	return out
}

// clients are all that are TLS. s may be nil.
func (s *sockets) clients() (all []*tls.Client) {
	if s == nil {
		return nil
	}
	if s.own != nil {
		all = append(all, s.own)
	}
	for _, m := range s.matches {
		if m.client != nil {
			all = append(all, m.client)
		}
	}
	return all
}

// assign finds the sockets of hosts by their metadata, or else by their locality's:
// the first match counts.
func (s *sockets) assign(h *Host, e *api.Endpoint, l *api.Locality) {
	if s == nil || len(s.matches) == 0 {
		return
	}
	if s.byHost == nil {
		s.byHost = map[*Host]*tls.Client{}
	}
	s.byHost[h] = s.find(e, l)
}

func (s *sockets) find(e *api.Endpoint, l *api.Locality) *tls.Client {
	for _, metadata := range []api.Metadata{e.Metadata, l.Metadata} {
		for _, m := range s.matches {
			if covers(metadata[api.SocketMatchMetadata], m.config.Match) {
				return m.client
			}
		}
	}
	return s.own
}

// assignRest is for hosts that are not in the configuration any more.
func (s *sockets) assignRest(hosts []*Host) {
	if s == nil {
		return
	}
	for _, h := range hosts {
		if _, known := s.byHost[h]; !known {
			s.assign(h, h.Endpoint(), &api.Locality{})
		}
	}
}

// SocketOf is the transport socket of a cluster's endpoint: the first of the matches
// that criteria hold, or without criteria the endpoint's metadata, else the
// cluster's own.
func SocketOf(c *api.Cluster, criteria map[string]any, e *api.Endpoint) *api.UpstreamSocket {
	if criteria == nil {
		criteria = e.Metadata[api.SocketMatchMetadata]
	}
	for i := range c.SocketMatches {
		if m := &c.SocketMatches[i]; covers(criteria, m.Match) {
			return &m.Socket
		}
	}
	return &c.Socket
}

// covers tells whether have holds everything of want.
func covers(have, want map[string]any) bool {
	for key, v := range want {
		if got, ok := have[key]; !ok || !reflect.DeepEqual(got, v) {
			return false
		}
	}
	return true
}

// of is the host's; nil is raw_buffer.
func (s *sockets) of(h *Host) *tls.Client {
	switch {
	case s == nil:
		return nil
	case len(s.matches) == 0:
		return s.own
	}
	if c, known := s.byHost[h]; known {
		return c
	}
	return s.find(h.Endpoint(), &api.Locality{}) // a connection brought it
}

// Refresh puts other secrets in force, for connections to come.
func (u *Cluster) Refresh(secrets api.Secrets) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range u.view.Load().sockets.clients() {
		if err := c.Update(secrets); err != nil {
			u.tls.Log.Error("update TLS context", "cluster", u.statName, "error", err)
		}
	}
}

func (u *Cluster) release() {
	u.Stats.release()
	if h := u.http2Stats.Load(); h != nil {
		h.release()
	}
	if t := u.tcpStats.Load(); t != nil {
		t.Release()
	}
	if u.tlsStats != nil {
		u.tlsStats.Release()
	}
}

// Secure has a connection that a library uses encrypted, if the host's socket is TLS.
// It waits for the handshake.
func (c *Picked) Secure(ctx context.Context, conn net.Conn, protocols ...string) (net.Conn, error) {
	if c.TLS == nil {
		return conn, nil
	}
	return c.TLS.Over(ctx, conn, c.Host.Endpoint().Hostname, protocols...)
}
