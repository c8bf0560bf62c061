package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/trust"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// validation is what the server's certificate must be like. Without anything in it
// every certificate will do, as in Envoy.
type validation struct {
	*trust.Verifier
	host string // that the certificate must be for, too; empty: any
}

// readValidation loads it, with the files that it names.
func readValidation(path string, p *tlsv3.CertificateValidationContext) (*validation, error) {
	c, err := resource.Validation(path, p, false)
	if err != nil {
		return nil, err
	}
	v, err := trust.New(c)
	if err != nil {
		return nil, fmt.Errorf("%s.%w", path, err)
	}
	return &validation{Verifier: v}, nil
}

// named is v with the DNS name as the only one that counts.
func (v *validation) named(name string) (*validation, error) {
	own, err := v.WithNames([]api.SubjectAltName{{Type: api.SANDNS, Match: api.StringMatch{Value: name}}})
	return &validation{Verifier: own, host: v.host}, err
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
	if len(cs.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	if err := v.Verify(cs.PeerCertificates, x509.ExtKeyUsageServerAuth, time.Now()); err != nil && !v.AcceptsUntrusted() {
		return err
	}
	if v.host != "" {
		if err := cs.PeerCertificates[0].VerifyHostname(v.host); err != nil {
			return fmt.Errorf("verify host: %s", strings.TrimPrefix(err.Error(), "x509: "))
		}
	}
	return nil
}
