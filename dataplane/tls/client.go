package tls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/address"
	"github.com/sluice-proxy/sluice/dataplane/loop"
)

// Client originates the TLS of a cluster. It is safe for concurrent use, and
// outlives its secrets.
type Client struct {
	Stats   *Stats
	limiter *Limiter
	config  *api.UpstreamTLS
	current atomic.Pointer[origin] // nil: its secrets have not come

	mu   sync.Mutex
	used []*api.Secret
}

// origin is one state of a Client, read-only.
type origin struct {
	*common
	base      *tls.Config // for sni
	nameIsSNI bool
	stats     *Stats
}

// Wish is what a connection asks for itself, by the filter state of its client; the
// zero value leaves all to the configuration.
type Wish struct {
	ServerName string
	// Names are what the host's certificate has to have one of.
	Names []string
	// Protocols are offered in the place of the configured ones.
	Protocols []string
}

// NewClient makes one; its secrets may come later, by Update.
func NewClient(c *api.UpstreamTLS, secrets api.Secrets, s *Stats, l *Limiter) (*Client, error) {
	out := &Client{Stats: s, limiter: l, config: c}
	return out, out.Update(secrets)
}

// Config is the configuration that it was made of.
func (c *Client) Config() *api.UpstreamTLS { return c.config }

// Update puts other secrets in force, for handshakes to come. Where those that are
// used are the same it does nothing; with an error the old ones stay.
func (c *Client) Update(secrets api.Secrets) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := used(secrets, c.config.Refs())
	if c.current.Load() != nil && slices.Equal(now, c.used) {
		return nil
	}
	config, ready := secrets.Upstream(c.config)
	if !ready {
		return nil
	}
	next, err := newOrigin(config, c.Stats)
	if err != nil {
		return err
	}
	c.Stats.expiries(&c.config.TLSContext, &config.TLSContext)
	c.used = now
	c.current.Store(next)
	if len(now) > 0 {
		c.Stats.updatedBySDS.Inc()
	}
	return nil
}

func newOrigin(c *api.UpstreamTLS, s *Stats) (*origin, error) {
	com, err := newCommon(&c.TLSContext)
	if err != nil {
		return nil, err
	}
	out := &origin{common: com, nameIsSNI: c.NameIsSNI, stats: s}
	out.base = config(&c.Params)
	out.base.ServerName = c.SNI
	out.base.NextProtos = c.ALPN
	out.base.InsecureSkipVerify = true // the verifier does it, by Envoy's rules
	out.base.VerifyConnection = out.judgeBy(c.SNI, nil)
	if len(com.certs) > 0 {
		// Whatever authorities the server names, as Envoy.
		out.base.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &com.certs[0], nil }
	}
	if c.MaxSessionKeys > 0 {
		out.base.ClientSessionCache = tls.NewLRUClientSessionCache(int(c.MaxSessionKeys))
	}
	return out, nil
}

// judgeBy verifies the host, by other names if there are any.
func (o *origin) judgeBy(sni string, names []string) func(tls.ConnectionState) error {
	v := o.verifier
	var alternatives []api.SubjectAltName
	for _, n := range names {
		alternatives = append(alternatives, api.SubjectAltName{Type: api.SANAny, Match: api.StringMatch{Kind: api.MatchExact, Value: n}})
	}
	if o.nameIsSNI && sni != "" && len(names) == 0 {
		alternatives = []api.SubjectAltName{{Type: api.SANDNS, Match: api.StringMatch{Kind: api.MatchExact, Value: sni}}}
	}
	if alternatives != nil {
		if other, err := v.WithNames(alternatives); err == nil { // exact names have no errors
			v = other
		}
	}
	return judge(v, x509.ExtKeyUsageServerAuth, o.stats)
}

// Connect begins a handshake on a connected, non-blocking descriptor that the worker
// has parked. done is called once, on the worker, never before Connect returns;
// Cancel prevents it.
func (c *Client) Connect(w *loop.Worker, fd int, to netip.AddrPort, hostname string, wish Wish, done func(error)) (*Handshake, error) {
	now := c.current.Load()
	if now == nil {
		c.Stats.NotReady()
		return nil, ErrNotReady
	}
	conn := newConn(fd, to, c.limiter, c.Stats)
	conn.socket.owner = conn
	if len(now.certs) > 0 {
		conn.local = now.certs[0].Leaf
	}
	cfg := now.configFor(c.config, hostname, wish)
	if k := c.config.KeyLog; k != nil {
		cfg = logKeys(cfg, k, address.Local(fd).Addr(), to.Addr())
	}
	conn.tls = tls.Client(&conn.socket, cfg)
	h := &Handshake{Conn: conn, worker: w, done: done}
	if !w.Inherit(fd, h) {
		if err := w.Add(fd, handshakeEvents, h); err != nil {
			return nil, err
		}
	}
	h.start()
	return h, nil
}

func (o *origin) configFor(c *api.UpstreamTLS, hostname string, wish Wish) *tls.Config {
	sni := c.SNI
	switch {
	case wish.ServerName != "":
		sni = wish.ServerName
	case c.SNIFromHost && hostname != "":
		sni = hostname
	}
	if sni == c.SNI && len(wish.Names)+len(wish.Protocols) == 0 {
		return o.base
	}
	out := o.base.Clone()
	out.ServerName = sni
	out.VerifyConnection = o.judgeBy(sni, wish.Names)
	if len(wish.Protocols) > 0 {
		out.NextProtos = wish.Protocols
	}
	return out
}

// Over has a connection encrypted that belongs to a library, and to its goroutines:
// it waits for the handshake. protocols are offered unless the configuration has its
// own.
func (c *Client) Over(ctx context.Context, conn net.Conn, hostname string, protocols ...string) (net.Conn, error) {
	now := c.current.Load()
	if now == nil {
		c.Stats.NotReady()
		return nil, ErrNotReady
	}
	wish := Wish{}
	if len(c.config.ALPN) == 0 {
		wish.Protocols = protocols
	}
	out := tls.Client(conn, now.configFor(c.config, hostname, wish))
	if err := out.HandshakeContext(ctx); err != nil {
		c.Stats.failed(err)
		return nil, errors.New(reason(err))
	}
	c.Stats.completed(out.ConnectionState())
	return out, nil
}
