package tls

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/trust"
)

// ErrNotReady says that secrets of the configuration have not come. Its text is the
// failure reason of a connection that came before them.
var ErrNotReady = errors.New("TLS error: Secret is not supplied by SDS")

// common is what both sides have of a context.
type common struct {
	verifier *trust.Verifier
	certs    []tls.Certificate
}

func newCommon(c *api.TLSContext) (*common, error) {
	out := &common{}
	var err error
	if out.verifier, err = trust.New(c.Validation); err != nil {
		return nil, err
	}
	for _, in := range c.Certificates {
		cert, err := tls.X509KeyPair(in.Chain, in.Key)
		if err != nil {
			return nil, fmt.Errorf("read certificate %s: %w", in.ChainPath, err)
		}
		cert.OCSPStaple = in.Staple
		out.certs = append(out.certs, cert)
	}
	return out, nil
}

// config is the beginning of one of crypto/tls's.
func config(p *api.TLSParams) *tls.Config {
	c := &tls.Config{
		MinVersion: p.MinVersion, MaxVersion: p.MaxVersion, CipherSuites: p.Ciphers,
		// Records are full from the first one on, as BoringSSL's are.
		DynamicRecordSizingDisabled: true,
	}
	for _, id := range p.Curves {
		c.CurvePreferences = append(c.CurvePreferences, tls.CurveID(id))
	}
	return c
}

// judge is the VerifyConnection of a side whose peer is to be good for usage.
func judge(v *trust.Verifier, usage x509.ExtKeyUsage, s *Stats) func(tls.ConnectionState) error {
	return func(c tls.ConnectionState) error {
		if len(c.PeerCertificates) == 0 {
			return nil // that one is asked for is the library's business
		}
		err := v.Verify(c.PeerCertificates, usage, time.Now())
		if err != nil && v.AcceptsUntrusted() {
			s.failed(err)
			return nil
		}
		return err
	}
}

// expiries shows when the certificates of a context end: those that have no name of
// their own under the one that Envoy gives them.
func (s *Stats) expiries(original, c *api.TLSContext) {
	for i, cert := range c.Certificates {
		name := "unnamed_cert_e3b0c442"
		if i < len(original.CertificateRefs) {
			name = original.CertificateRefs[i].Name
		}
		s.expiry(name, cert.Chain)
	}
	if v := c.Validation; v != nil && len(v.TrustedCA) > 0 {
		name := "unnamed_ca_cert_e3b0c442"
		if r := original.ValidationRef; r.Key != "" {
			name = r.Name
		}
		s.expiry(name, v.TrustedCA)
	}
}

func (s *Stats) expiry(name string, chain []byte) {
	block, _ := pem.Decode(chain)
	if block == nil {
		return
	}
	if c, err := x509.ParseCertificate(block.Bytes); err == nil {
		s.scope.Gauge("certificate." + name + ".expiration_unix_time_seconds").Set(uint64(max(c.NotAfter.Unix(), 0)))
	}
}

// used are the secrets that refs name, in order.
func used(secrets api.Secrets, refs []api.SecretRef) []*api.Secret {
	out := make([]*api.Secret, len(refs))
	for i := range refs {
		out[i] = secrets[refs[i].Key]
	}
	return out
}
