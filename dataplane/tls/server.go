package tls

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// Server terminates the TLS of a filter chain. It is safe for concurrent use, and
// outlives its secrets.
type Server struct {
	Stats   *Stats
	limiter *Limiter
	config  *api.DownstreamTLS
	current atomic.Pointer[service] // nil: its secrets have not come

	mu   sync.Mutex
	used []*api.Secret
}

// service is one state of a Server, read-only.
type service struct {
	entry    *tls.Config // asks choose for the one that serves
	certs    []*served
	alpn     []string
	fullScan bool
	staples  api.StaplePolicy
	stats    *Stats
	verifies bool
	keys     *api.TLSKeyLog // nil: none
	first    *stream.TLS    // what is known before the handshake
}

// NewServer makes one; its secrets may come later, by Update.
func NewServer(c *api.DownstreamTLS, secrets api.Secrets, s *Stats, l *Limiter) (*Server, error) {
	out := &Server{Stats: s, limiter: l, config: c}
	return out, out.Update(secrets)
}

// Update puts other secrets in force, for handshakes to come. Where those that are
// used are the same it does nothing; with an error the old ones stay.
func (s *Server) Update(secrets api.Secrets) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := used(secrets, s.config.Refs())
	have := s.current.Load()
	if have != nil && slices.Equal(now, s.used) {
		return nil
	}
	c, ready := secrets.Downstream(s.config)
	if !ready {
		return nil
	}
	next, err := newService(c, s.Stats)
	if err != nil {
		return err
	}
	s.Stats.expiries(&s.config.TLSContext, &c.TLSContext)
	s.used = now
	s.current.Store(next)
	if len(now) > 0 {
		s.Stats.updatedBySDS.Inc()
	}
	return nil
}

// Accept begins a handshake on a connected, non-blocking descriptor that is
// registered nowhere. done is called once, on the worker, never before Accept
// returns; Cancel prevents it. The first value is what is known by now.
func (s *Server) Accept(w *loop.Worker, fd int, local, peer netip.AddrPort, done func(error)) (*Handshake, *stream.TLS, error) {
	now := s.current.Load()
	if now == nil {
		s.Stats.NotReady()
		return nil, nil, ErrNotReady
	}
	c := newConn(fd, peer, s.limiter, s.Stats)
	c.tls = tls.Server(&c.socket, now.entry)
	c.socket.owner, c.socket.local = c, local
	c.verifies = now.verifies
	h := &Handshake{Conn: c, worker: w, done: done}
	return h, now.first, w.Add(fd, handshakeEvents, h)
}

func newService(c *api.DownstreamTLS, s *Stats) (*service, error) {
	com, err := newCommon(&c.TLSContext)
	if err != nil {
		return nil, err
	}
	out := &service{verifies: com.verifier.Asks() && !com.verifier.AcceptsUntrusted(), alpn: c.ALPN, fullScan: c.FullScan, keys: c.KeyLog, staples: c.Stapling, stats: s}
	out.entry = config(&c.Params)
	out.entry.GetConfigForClient = out.choose
	out.setTickets(c)
	for i := range com.certs {
		params := c.Params
		if own := c.Certificates[i].Params; own != nil {
			params = over(params, own)
		}
		cfg := config(&params)
		cfg.Certificates = com.certs[i : i+1]
		cfg.VerifyConnection = judge(com.verifier, x509.ExtKeyUsageClientAuth, s)
		switch {
		case com.verifier.RequireFor(c.RequireClientCertificate):
			cfg.ClientAuth = tls.RequireAnyClientCert
		case com.verifier.Asks():
			cfg.ClientAuth = tls.RequestClientCert
		}
		cfg.ClientCAs = com.verifier.Authorities()
		cfg.SessionTicketsDisabled = out.entry.SessionTicketsDisabled
		cfg.WrapSession, cfg.UnwrapSession = out.entry.WrapSession, out.entry.UnwrapSession
		out.certs = append(out.certs, newServed(cfg, c.ALPN))
	}
	out.first = &stream.TLS{Version: "TLSv1.2"}
	if len(out.certs) > 0 {
		out.first.Local = out.certs[0].leaf
		// Also for a client that says nothing of a name.
		out.entry.Certificates = com.certs[:1]
	}
	return out, nil
}

// over is p with what o sets in its place.
func over(p api.TLSParams, o *api.TLSParams) api.TLSParams {
	if o.MinVersion != 0 {
		p.MinVersion = o.MinVersion
	}
	if o.MaxVersion != 0 {
		p.MaxVersion = o.MaxVersion
	}
	if len(o.Ciphers) > 0 {
		p.Ciphers = o.Ciphers
	}
	if len(o.Curves) > 0 {
		p.Curves = o.Curves
	}
	return p
}

// setTickets says how sessions are resumed: by tickets alone, for crypto/tls has no
// cache. All certificates share the keys of the entry.
func (s *service) setTickets(c *api.DownstreamTLS) {
	if c.NoTickets {
		s.entry.SessionTicketsDisabled = true
		return
	}
	if c.TicketKeys != nil {
		var keys [][32]byte
		for _, k := range c.TicketKeys.Keys {
			keys = append(keys, sha256.Sum256(k))
		}
		s.entry.SetSessionTicketKeys(keys)
	}
	if c.SessionTimeout > 0 {
		aged := &ageing{config: s.entry, limit: c.SessionTimeout}
		s.entry.WrapSession, s.entry.UnwrapSession = aged.wrap, aged.unwrap
	}
}
