package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"time"
)

// What OpenSSL calls the ways in which a chain is bad.
const (
	noIssuer    = "unable to get local issuer certificate"
	expired     = "certificate has expired"
	notYet      = "certificate is not yet valid"
	purpose     = "unsupported certificate purpose"
	selfSigned  = "self signed certificate"
	selfInChain = "self signed certificate in certificate chain"
	pathLength  = "path length constraint exceeded"
	subtree     = "permitted subtree violation"
	byList      = "certificate revocation check against provided CRLs failed: "
)

func (v *Verifier) verifyChain(roots *x509.CertPool, certs []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}
	leaf := v.aged(certs[0])
	for _, c := range certs[1:] {
		o.Intermediates.AddCert(v.aged(c))
	}
	chains, err := leaf.Verify(o)
	if err != nil {
		return explain(err, certs, now)
	}
	for _, chain := range chains {
		if err = v.shallow(chain, usage); err != nil {
			continue
		}
		if err = v.unrevoked(chain, now); err == nil {
			return nil
		}
	}
	return err
}

// aged is c or, if allow_expired_certificate says so, a copy that is good at any
// time: the library reads the times from there, and the signature's bytes elsewhere.
func (v *Verifier) aged(c *x509.Certificate) *x509.Certificate {
	if !v.expired {
		return c
	}
	out := *c
	out.NotBefore, out.NotAfter = time.Unix(0, 0), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	return &out
}

// pool holds the certificates among what is PEM in b; nil if there are none. What
// the library cannot read is left out.
func (v *Verifier) pool(bundles ...[]byte) *x509.CertPool {
	out, n := x509.NewCertPool(), 0
	for _, b := range bundles {
		for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
			if block.Type != "CERTIFICATE" && block.Type != "TRUSTED CERTIFICATE" && block.Type != "X509 CERTIFICATE" {
				continue
			}
			if c, err := x509.ParseCertificate(block.Bytes); err == nil {
				out.AddCert(v.aged(c))
				n++
			}
		}
	}
	if n == 0 {
		return nil
	}
	return out
}

// shallow holds a client's chain to max_verify_depth, which counts all but the leaf
// and is 1 at least. Envoy does not hold a server's to it (1.40, measured).
func (v *Verifier) shallow(chain []*x509.Certificate, usage x509.ExtKeyUsage) error {
	deepest := max(v.depth, 1)
	if v.depth < 0 || usage != x509.ExtKeyUsageClientAuth || len(chain)-1 <= deepest {
		return nil
	}
	return chainError(deepest, noIssuer)
}

// explain puts what the library found into OpenSSL's words.
func explain(err error, certs []*x509.Certificate, now time.Time) error {
	invalid := x509.CertificateInvalidError{}
	if !errors.As(err, &invalid) {
		return chainError(lastIssuer(certs))
	}
	depth := 0
	for i, c := range certs {
		if invalid.Cert != nil && c.Equal(invalid.Cert) {
			depth = i
		}
	}
	switch invalid.Reason {
	case x509.Expired:
		if now.Before(invalid.Cert.NotBefore) {
			return chainError(depth, notYet)
		}
		return chainError(depth, expired)
	case x509.IncompatibleUsage:
		return chainError(misused(certs), purpose)
	case x509.TooManyIntermediates:
		return chainError(depth, pathLength)
	case x509.CANotAuthorizedForThisName, x509.NameConstraintsWithoutSANs, x509.UnconstrainedName, x509.TooManyConstraints:
		return chainError(depth, subtree)
	}
	return chainError(lastIssuer(certs))
}

// lastIssuer follows the chain as far as the peer sent it.
func lastIssuer(certs []*x509.Certificate) (depth int, cause string) {
	c := certs[0]
	for depth < len(certs) {
		if bytes.Equal(c.RawIssuer, c.RawSubject) {
			if depth == 0 {
				return 0, selfSigned
			}
			return depth, selfInChain
		}
		next := issuer(c, certs)
		if next == nil {
			break
		}
		c = next
		depth++
	}
	return depth, noIssuer
}

func issuer(c *x509.Certificate, among []*x509.Certificate) *x509.Certificate {
	for _, i := range among {
		if bytes.Equal(i.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(i) == nil {
			return i
		}
	}
	return nil
}

// misused is the depth of the first that names usages: the leaf, or an authority.
func misused(certs []*x509.Certificate) int {
	for i, c := range certs {
		if len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) > 0 {
			return i
		}
	}
	return 0
}
