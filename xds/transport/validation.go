package transport

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
)

// validation is a CertificateValidationContext: what the server's certificate
// must be like. Without anything in it every certificate will do, as in Envoy.
type validation struct {
	roots                    *x509.CertPool // nil: no chain is verified
	sans                     []san
	hashes, keys             [][]byte // SHA-256 of certificate and of public key
	expired, untrusted, leaf bool
	depth                    int // -1: any
	revoked                  []*x509.RevocationList
	now                      func() time.Time
	host                     string // that the certificate must be for; empty: any
}

// readValidation loads it, with the files that it names.
func readValidation(p *tlsv3.CertificateValidationContext) (*validation, error) {
	v := &validation{
		expired: p.GetAllowExpiredCertificate(), leaf: p.GetOnlyVerifyLeafCertCrl(), depth: -1, now: time.Now,
		untrusted: p.GetTrustChainVerification() == tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED,
	}
	if d := p.GetMaxVerifyDepth(); d != nil {
		v.depth = int(d.GetValue())
	}
	switch {
	case p.GetCaCertificateProviderInstance() != nil:
		return nil, errors.New("ca_certificate_provider_instance: not supported yet")
	case p.GetCustomValidatorConfig() != nil:
		return nil, fmt.Errorf("custom_validator_config: not supported yet (%s)", p.GetCustomValidatorConfig().GetTypedConfig().MessageName())
	case p.GetTrustedCa() != nil:
		b, err := readData(p.GetTrustedCa())
		if err != nil {
			return nil, fmt.Errorf("trusted_ca: %w", err)
		}
		v.roots = x509.NewCertPool()
		if !v.roots.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("trusted_ca: Failed to load trusted CA certificates from %s", where(p.GetTrustedCa()))
		}
	case p.GetSystemRootCerts() != nil:
		roots, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("system_root_certs: %w", err)
		}
		v.roots = roots
	}
	if err := v.readCRL(p); err != nil {
		return nil, err
	}
	if err := v.readNames(p); err != nil {
		return nil, err
	}
	return v, nil
}

func (v *validation) readCRL(p *tlsv3.CertificateValidationContext) error {
	if p.GetCrl() == nil {
		return nil
	}
	b, err := readData(p.GetCrl())
	if err != nil {
		return fmt.Errorf("crl: %w", err)
	}
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		if l, err := x509.ParseRevocationList(block.Bytes); err == nil {
			v.revoked = append(v.revoked, l)
		}
		b = rest
	}
	if len(v.revoked) == 0 {
		return fmt.Errorf("crl: Failed to load CRL from %s", where(p.GetCrl()))
	}
	return nil
}

func (v *validation) readNames(p *tlsv3.CertificateValidationContext) error {
	for i, m := range p.GetMatchTypedSubjectAltNames() {
		s, err := readSAN(m.GetSanType(), m.GetMatcher())
		if err != nil {
			return fmt.Errorf("match_typed_subject_alt_names[%d]: %w", i, err)
		}
		v.sans = append(v.sans, s)
	}
	// Envoy reads the older list only if the newer one is empty.
	if len(v.sans) == 0 {
		for i, m := range p.GetMatchSubjectAltNames() {
			s, err := readSAN(tlsv3.SubjectAltNameMatcher_SAN_TYPE_UNSPECIFIED, m)
			if err != nil {
				return fmt.Errorf("match_subject_alt_names[%d]: %w", i, err)
			}
			v.sans = append(v.sans, s)
		}
	}
	if len(v.sans) > 0 && v.roots == nil {
		return errors.New("SAN-based verification of peer certificates without trusted CA is insecure and not allowed")
	}
	for i, s := range p.GetVerifyCertificateHash() {
		b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
		if err != nil || len(b) != sha256.Size {
			return fmt.Errorf("verify_certificate_hash[%d]: Invalid hex-encoded SHA-256 %s", i, s)
		}
		v.hashes = append(v.hashes, b)
	}
	for i, s := range p.GetVerifyCertificateSpki() {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil || len(b) != sha256.Size {
			return fmt.Errorf("verify_certificate_spki[%d]: Invalid base64-encoded SHA-256 %s", i, s)
		}
		v.keys = append(v.keys, b)
	}
	return nil
}

// combine is Envoy's: what is secret is merged over the default.
func combine(base, over *tlsv3.CertificateValidationContext) *tlsv3.CertificateValidationContext {
	out := &tlsv3.CertificateValidationContext{}
	proto.Merge(out, base)
	proto.Merge(out, over)
	return out
}

// verify judges the certificates of a handshake.
func (v *validation) verify(cs tls.ConnectionState) error {
	if v.untrusted {
		return nil
	}
	if len(cs.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	cert := cs.PeerCertificates[0]
	if v.roots != nil {
		if err := v.chain(cert, cs.PeerCertificates[1:]); err != nil {
			return err
		}
	}
	if v.host != "" {
		if err := cert.VerifyHostname(v.host); err != nil {
			return fmt.Errorf("verify host: %s", strings.TrimPrefix(err.Error(), "x509: "))
		}
	}
	if len(v.sans) > 0 && !matchesAny(v.sans, cert) {
		return errors.New("verify SAN list: no name of the certificate fits")
	}
	if len(v.hashes)+len(v.keys) > 0 {
		hash, key := sha256.Sum256(cert.Raw), sha256.Sum256(cert.RawSubjectPublicKeyInfo)
		if !has(v.hashes, hash[:]) && !has(v.keys, key[:]) {
			return errors.New("verify hash: neither the certificate's nor its key's is in the list")
		}
	}
	return nil
}

func (v *validation) chain(cert *x509.Certificate, rest []*x509.Certificate) error {
	o := x509.VerifyOptions{
		Roots: v.roots, Intermediates: x509.NewCertPool(), CurrentTime: v.now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, c := range rest {
		o.Intermediates.AddCert(c)
	}
	chains, err := cert.Verify(o)
	if invalid := (x509.CertificateInvalidError{}); v.expired && errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		o.CurrentTime = cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 2)
		chains, err = cert.Verify(o)
	}
	if err != nil {
		return fmt.Errorf("verify cert: %s", strings.TrimPrefix(err.Error(), "x509: "))
	}
	err = nil
	for _, chain := range chains {
		if v.depth >= 0 && len(chain)-2 > v.depth { // leaf and root do not count
			err = fmt.Errorf("verify cert: chain of %d is deeper than %d", len(chain), v.depth)
			continue
		}
		if err = v.unrevoked(chain); err == nil {
			return nil
		}
	}
	return err
}

// unrevoked: with a CRL, every issuer needs one.
func (v *validation) unrevoked(chain []*x509.Certificate) error {
	if len(v.revoked) == 0 {
		return nil
	}
	for i := 0; i+1 < len(chain); i++ {
		if i > 0 && v.leaf {
			break
		}
		found := false
		for _, l := range v.revoked {
			if !bytes.Equal(l.RawIssuer, chain[i].RawIssuer) || l.CheckSignatureFrom(chain[i+1]) != nil {
				continue
			}
			found = true
			for _, r := range l.RevokedCertificateEntries {
				if r.SerialNumber.Cmp(chain[i].SerialNumber) == 0 {
					return errors.New("verify cert: certificate revoked")
				}
			}
		}
		if !found {
			return errors.New("verify cert: unable to get certificate CRL")
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
