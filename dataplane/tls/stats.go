package tls

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"syscall"

	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/api/tlsname"
	"github.com/sluice-proxy/sluice/api/trust"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// Stats are the `ssl.` figures of a listener or cluster, and those of its
// `…_ssl_socket_factory.`.
type Stats struct {
	scope, factory *stats.Scope

	connectionError, handshake, sessionReused, noCertificate *stats.Counter
	noCert, verifyError, verifySAN, verifyHash               *stats.Counter
	stapleRequests, stapled, stapleOmitted, stapleFailed     *stats.Counter
	updatedBySDS, notReady                                   *stats.Counter
}

// NewServerStats and NewClientStats find the figures under `listener.<…>.` and
// `cluster.<…>.`.
func NewServerStats(store *stats.Store, listener string) *Stats {
	return newStats(store, "server_ssl_socket_factory", "downstream_context_secrets_not_ready", "listener", stats.Tag{Name: "envoy.listener_address", Value: listener})
}

// NewClientStats is for a cluster, by the name that statistics have for it.
func NewClientStats(store *stats.Store, cluster string) *Stats {
	return newStats(store, "client_ssl_socket_factory", "upstream_context_secrets_not_ready", "cluster", stats.Tag{Name: "envoy.cluster_name", Value: cluster})
}

func newStats(store *stats.Store, factory, notReady string, path ...any) *Stats {
	sc := store.Scope(append(path[:len(path):len(path)], "ssl")...)
	f := store.Scope(append(path[:len(path):len(path)], factory)...)
	for _, always := range []string{"downstream_context_secrets_not_ready", "upstream_context_secrets_not_ready"} {
		f.Counter(always) // as Envoy names both on both sides
	}
	return &Stats{
		scope: sc, factory: f,
		connectionError: sc.Counter("connection_error"), handshake: sc.Counter("handshake"),
		sessionReused: sc.Counter("session_reused"), noCertificate: sc.Counter("no_certificate"),
		noCert: sc.Counter("fail_verify_no_cert"), verifyError: sc.Counter("fail_verify_error"),
		verifySAN: sc.Counter("fail_verify_san"), verifyHash: sc.Counter("fail_verify_cert_hash"),
		stapleRequests: sc.Counter("ocsp_staple_requests"), stapled: sc.Counter("ocsp_staple_responses"),
		stapleOmitted: sc.Counter("ocsp_staple_omitted"), stapleFailed: sc.Counter("ocsp_staple_failed"),
		updatedBySDS: f.Counter("ssl_context_update_by_sds"), notReady: f.Counter(notReady),
	}
}

// Release gives the figures back.
func (s *Stats) Release() {
	s.scope.Release()
	s.factory.Release()
}

// NotReady counts a connection that came before its secrets.
func (s *Stats) NotReady() { s.notReady.Inc() }

// completed counts a handshake.
func (s *Stats) completed(c tls.ConnectionState) {
	s.handshake.Inc()
	if c.DidResume {
		s.sessionReused.Inc()
	}
	s.scope.Counter("ciphers." + tlsname.Cipher(c.CipherSuite)).Inc()
	if c.CurveID != 0 {
		s.scope.Counter("curves." + tlsname.Curve(uint16(c.CurveID))).Inc()
	}
	s.scope.Counter("versions." + tlsname.Version(c.Version)).Inc()
	if len(c.PeerCertificates) == 0 {
		s.noCertificate.Inc()
	} else if name := signature(c.PeerCertificates[0]); name != "" {
		s.scope.Counter("sigalgs." + name).Inc()
	}
}

// signature is the algorithm that a key of the peer's kind signs a handshake by.
// crypto/tls does not tell: of RSA it is taken to be the first that both sides
// offer by default.
func signature(c *x509.Certificate) string {
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return tlsname.Signature(uint16(tls.ECDSAWithP256AndSHA256))
		case 384:
			return tlsname.Signature(uint16(tls.ECDSAWithP384AndSHA384))
		case 521:
			return tlsname.Signature(uint16(tls.ECDSAWithP521AndSHA512))
		}
	case ed25519.PublicKey:
		return tlsname.Signature(uint16(tls.Ed25519))
	case *rsa.PublicKey:
		return tlsname.Signature(uint16(tls.PSSWithSHA256))
	}
	return ""
}

// failed counts why a connection broke. As in Envoy, what the peer's TCP did, and
// what the verification has counted, is no connection_error.
func (s *Stats) failed(err error) {
	var errno syscall.Errno
	var bad *trust.Error
	switch {
	case errors.As(err, &bad):
		switch bad.Kind {
		case trust.SAN:
			s.verifySAN.Inc()
		case trust.Hash:
			s.verifyHash.Inc()
		default:
			s.verifyError.Inc()
		}
	case isMissing(err):
		s.noCert.Inc()
	case errors.As(err, &errno), isEOF(err):
	default:
		s.connectionError.Inc()
	}
}

// describe says what of a session others want to know.
func describe(c tls.ConnectionState, local *x509.Certificate) *stream.TLS {
	return &stream.TLS{Version: tlsname.Version(c.Version), Cipher: tlsname.Cipher(c.CipherSuite), Group: group(c), ServerName: c.ServerName, Peer: c.PeerCertificates, Local: local}
}

// group is BoringSSL's name of the group that the keys were agreed in, empty for none.
func group(c tls.ConnectionState) string {
	if c.CurveID == 0 {
		return ""
	}
	return tlsname.Curve(uint16(c.CurveID))
}
