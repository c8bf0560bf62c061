package trust

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// Kind is what a certificate failed by; each has its counter, `fail_verify_…`.
type Kind uint8

// The kinds of an Error.
const (
	// Chain is `fail_verify_error`, SAN `fail_verify_san`, Hash `fail_verify_cert_hash`.
	Chain Kind = iota
	SAN
	Hash
)

// Error says why a certificate was not accepted. Its text is Envoy's, as it stands
// in a transport failure reason.
type Error struct {
	Kind Kind
	Text string
}

func (e *Error) Error() string { return "verify cert failed: " + e.Text }

func chainError(depth int, cause string) *Error {
	return &Error{Chain, fmt.Sprintf("X509_verify_cert: certificate verification error at depth %d: %s", depth, cause)}
}

// Verifier is a validation context, ready for use by many at once.
type Verifier struct {
	roots    *x509.CertPool // nil: no chain is verified
	revoked  []list
	names    []name
	hashes   [][]byte // of certificates
	keys     [][]byte // of public keys
	depth    int      // -1: any
	expired  bool
	accept   bool
	leafOnly bool
	noList   bool
	spiffe   map[string]*x509.CertPool // nil: not the SPIFFE validator
	all      *x509.CertPool            // of the SPIFFE validator's authorities
}

// New makes the verifier of v; nil verifies nothing. Its errors are Envoy's, and
// begin with the field.
func New(v *api.TLSValidation) (*Verifier, error) {
	if v == nil {
		v = &api.TLSValidation{}
	}
	out := &Verifier{
		hashes: v.Hashes, keys: v.Keys, expired: v.AllowExpired, accept: v.AcceptUntrusted,
		leafOnly: v.LeafCRLOnly, noList: v.NoCAList, depth: -1,
	}
	if v.MaxDepth != nil {
		out.depth = int(*v.MaxDepth)
	}
	var err error
	if out.names, err = readNames(v.Names); err != nil {
		return nil, err
	}
	if v.SPIFFE != nil {
		return out, out.readSPIFFE(v.SPIFFE)
	}
	if err := out.readAuthorities(v); err != nil {
		return nil, err
	}
	if out.roots == nil {
		switch {
		case len(v.Names) > 0:
			return nil, errors.New("match_typed_subject_alt_names: SAN-based verification of peer certificates without trusted CA is insecure and not allowed")
		case v.AllowExpired:
			return nil, errors.New("allow_expired_certificate: Certificate validity period is always ignored without trusted CA")
		}
	}
	return out, nil
}

func (v *Verifier) readAuthorities(c *api.TLSValidation) error {
	switch {
	case len(c.TrustedCA) > 0:
		if v.roots = v.pool(c.TrustedCA); v.roots == nil {
			return fmt.Errorf("trusted_ca: Failed to load trusted CA certificates from %s", orInline(c.CAPath))
		}
		var err error
		if v.revoked, err = revocations(c.TrustedCA); err != nil {
			return fmt.Errorf("trusted_ca: Failed to load trusted CA certificates from %s", orInline(c.CAPath))
		}
	case c.SystemRoots:
		roots, err := x509.SystemCertPool()
		if err != nil {
			return fmt.Errorf("system_root_certs: %w", err)
		}
		v.roots = roots
	}
	if len(c.Revoked) == 0 {
		return nil
	}
	if v.roots == nil {
		return fmt.Errorf("crl: Failed to load CRL from %s without trusted CA", orInline(c.CRLPath))
	}
	// What holds no list is as good as none, as in Envoy.
	more, err := revocations(c.Revoked)
	if err != nil {
		return fmt.Errorf("crl: Failed to load CRL from %s", orInline(c.CRLPath))
	}
	v.revoked = append(v.revoked, more...)
	return nil
}

func orInline(path string) string {
	if path == "" {
		return "<inline>"
	}
	return path
}

// WithNames is v with other names: what auto_sni_san_validation, or a filter, puts
// in the place of the configured ones. Names without an authority to vouch for them
// are no use, and are not looked at.
func (v *Verifier) WithNames(names []api.SubjectAltName) (*Verifier, error) {
	out := *v
	var err error
	out.names, err = readNames(names)
	return &out, err
}

// AcceptsUntrusted: a certificate that Verify is against is counted and taken
// (trust_chain_verification).
func (v *Verifier) AcceptsUntrusted() bool { return v.accept }

// Asks: a server asks its clients for a certificate.
func (v *Verifier) Asks() bool {
	return v.roots != nil || v.spiffe != nil || v.pins()
}

// Requires: a client without a certificate is turned away, whatever
// require_client_certificate says.
func (v *Verifier) Requires() bool {
	return v.spiffe != nil || v.pins() && !v.accept
}

// RequireFor says whether require_client_certificate has any effect: without
// anything to verify by, Envoy's server asks for nothing.
func (v *Verifier) RequireFor(set bool) bool { return v.Requires() || set && v.Asks() }

func (v *Verifier) pins() bool { return len(v.names)+len(v.hashes)+len(v.keys) > 0 }

// Authorities are those that a server names when it asks; nil is none.
func (v *Verifier) Authorities() *x509.CertPool {
	switch {
	case v.noList:
		return nil
	case v.spiffe != nil:
		return v.all
	}
	return v.roots
}

// Verify judges a peer's certificates, the leaf first. usage is that of the peer:
// a server judges by ExtKeyUsageClientAuth. The error is an *Error.
func (v *Verifier) Verify(chain []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	if len(chain) == 0 {
		return &Error{Chain, "no certificate"}
	}
	if v.spiffe != nil {
		return v.verifySPIFFE(chain, usage, now)
	}
	if v.roots != nil {
		if err := v.verifyChain(v.roots, chain, usage, now); err != nil {
			return err
		}
	}
	leaf := chain[0]
	if len(v.names) > 0 && !matchesAny(v.names, leaf) {
		return &Error{SAN, "SAN matcher, certificate SANs are [" + strings.Join(alternatives(leaf), ", ") + "]"}
	}
	if len(v.hashes)+len(v.keys) > 0 {
		hash, key := sha256.Sum256(leaf.Raw), sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
		if !has(v.hashes, hash[:]) && !has(v.keys, key[:]) {
			return &Error{Hash, "cert hash and spki"}
		}
	}
	return nil
}

func has(list [][]byte, b []byte) bool {
	for _, l := range list {
		if bytes.Equal(l, b) {
			return true
		}
	}
	return false
}
