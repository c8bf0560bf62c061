package tls

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/api"
)

// served is a certificate of a server, and how it is served.
type served struct {
	cert  *tls.Certificate
	leaf  *x509.Certificate
	names []string // lower case; `.example.com` for `*.example.com`
	ecdsa bool
	// plain is config without ALPN: crypto/tls fails where client and server have no
	// protocol in common, Envoy goes on without one.
	config, plain *tls.Config
}

func newServed(c *tls.Config, alpn []string) *served {
	out := &served{cert: &c.Certificates[0], leaf: c.Certificates[0].Leaf, plain: c, config: c}
	if len(alpn) > 0 {
		out.config = c.Clone()
		out.config.NextProtos = alpn
	}
	_, out.ecdsa = out.leaf.PublicKey.(*ecdsa.PublicKey)
	names := out.leaf.DNSNames
	if len(names) == 0 && out.leaf.Subject.CommonName != "" {
		names = []string{out.leaf.Subject.CommonName}
	}
	for _, n := range names {
		n = strings.ToLower(n)
		if rest, wild := strings.CutPrefix(n, "*"); wild {
			n = rest
		}
		out.names = append(out.names, n)
	}
	return out
}

// statusRequest is the extension of a client that wants an OCSP response.
const statusRequest = 5

// choose is the server's GetConfigForClient.
func (s *service) choose(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	c := s.pick(hello)
	if c == nil {
		return nil, errors.New("no certificate")
	}
	socket, _ := hello.Conn.(*socket)
	if socket != nil {
		socket.owner.local = c.leaf
	}
	if slices.Contains(hello.Extensions, statusRequest) {
		s.stats.stapleRequests.Inc()
		switch {
		case len(c.cert.OCSPStaple) > 0:
			s.stats.stapled.Inc()
		case s.staples == api.MustStaple:
			s.stats.stapleFailed.Inc()
			return nil, errors.New("no OCSP response")
		default:
			s.stats.stapleOmitted.Inc()
		}
	}
	for _, p := range hello.SupportedProtos {
		if slices.Contains(s.alpn, p) {
			return s.logged(c.config, socket), nil
		}
	}
	return s.logged(c.plain, socket), nil
}

func (s *service) logged(c *tls.Config, of *socket) *tls.Config {
	if s.keys == nil || of == nil {
		return c
	}
	return logKeys(c, s.keys, of.local.Addr(), of.peer.Addr())
}

// pick is Envoy's choice (DefaultTlsCertificateSelector): by the exact name, then by
// the wildcard of its first label, an ECDSA certificate before others if the client
// can; without a fit the first one, or of all that there are the first that the
// client can, if it named no server or full_scan_certs_on_sni_mismatch is set.
func (s *service) pick(hello *tls.ClientHelloInfo) *served {
	if len(s.certs) == 0 {
		return nil
	}
	// Whether the client can is asked of its algorithms, not of the name.
	able := *hello
	able.ServerName = ""
	can := func(c *served) bool { return able.SupportsCertificate(c.cert) == nil }
	best := func(fits func(*served) bool) (out *served) {
		for _, c := range s.certs {
			if fits(c) && can(c) && (out == nil || c.ecdsa && !out.ecdsa) {
				out = c
			}
		}
		return out
	}
	if sni := strings.ToLower(hello.ServerName); sni != "" {
		if c := best(func(c *served) bool { return slices.Contains(c.names, sni) }); c != nil {
			return c
		}
		if dot := strings.IndexByte(sni, '.'); dot > 0 {
			if c := best(func(c *served) bool { return slices.Contains(c.names, sni[dot:]) }); c != nil {
				return c
			}
		}
		if !s.fullScan {
			return s.certs[0]
		}
	}
	if c := best(func(*served) bool { return true }); c != nil {
		return c
	}
	return s.certs[0]
}
