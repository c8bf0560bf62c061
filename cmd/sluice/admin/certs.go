package admin

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/xds"
)

// secretType is the type URL that xds.Dump has secrets under.
const secretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// loaded remembers the first certificate of what is PEM, by its bytes' place:
// values of a snapshot never change, and thousands of clusters share one.
type loaded map[*byte]*x509.Certificate

func (l loaded) first(b []byte) *x509.Certificate {
	if len(b) == 0 {
		return nil
	}
	if c, ok := l[&b[0]]; ok {
		return c
	}
	var c *x509.Certificate
	for block, rest := pem.Decode(b); block != nil && c == nil; block, rest = pem.Decode(rest) {
		c, _ = x509.ParseCertificate(block.Bytes) // what is no certificate is passed over
	}
	l[&b[0]] = c
	return c
}

// certs lists the certificates of the TLS contexts in force, as Envoy's
// certs_handler does: of a bundle the first, of a chain the leaf.
func (s *Server) certs(a *answer, _ query) {
	out, known, now := &adminv3.Certificates{}, loaded{}, time.Now()
	for _, c := range s.o.Configs.TLSContexts() {
		one := &adminv3.Certificate{}
		if v := c.Validation; v != nil {
			for _, b := range bundles(v) {
				if cert := known.first(b.Bundle); cert != nil {
					one.CaCert = append(one.CaCert, details(cert, b.Path, now))
				}
			}
		}
		for _, chain := range c.Certificates {
			if cert := known.first(chain.Chain); cert != nil {
				one.CertChain = append(one.CertChain, details(cert, chain.ChainPath, now))
			}
		}
		out.Certificates = append(out.Certificates, one)
	}
	writeProto(a, out, true)
}

// bundles are the authorities of a context.
func bundles(v *api.TLSValidation) []api.TrustDomain {
	if v.SPIFFE != nil {
		return v.SPIFFE.Domains
	}
	return []api.TrustDomain{{Bundle: v.TrustedCA, Path: v.CAPath}}
}

func details(c *x509.Certificate, path string, now time.Time) *adminv3.CertificateDetails {
	d := &adminv3.CertificateDetails{
		Path: path, SerialNumber: fmt.Sprintf("%x", c.SerialNumber.Bytes()), DaysUntilExpiration: daysLeft(c, now),
		ValidFrom: timestamppb.New(c.NotBefore), ExpirationTime: timestamppb.New(c.NotAfter),
	}
	for _, n := range c.DNSNames {
		d.SubjectAltNames = append(d.SubjectAltNames, &adminv3.SubjectAlternateName{Name: &adminv3.SubjectAlternateName_Dns{Dns: n}})
	}
	for _, u := range c.URIs {
		d.SubjectAltNames = append(d.SubjectAltNames, &adminv3.SubjectAlternateName{Name: &adminv3.SubjectAlternateName_Uri{Uri: u.String()}})
	}
	for _, ip := range c.IPAddresses {
		d.SubjectAltNames = append(d.SubjectAltNames, &adminv3.SubjectAlternateName{Name: &adminv3.SubjectAlternateName_IpAddress{IpAddress: ip.String()}})
	}
	return d
}

func daysLeft(c *x509.Certificate, now time.Time) uint64 {
	return uint64(max(c.NotAfter.Sub(now), 0) / (24 * time.Hour))
}

// firstExpiry is in how many days the first of all certificates expires; Envoy's
// word for none is the largest number.
func (s *Server) firstExpiry() uint64 {
	first, known, now := uint64(math.MaxUint32), loaded{}, time.Now()
	seen := func(b []byte) {
		if _, old := known[firstByte(b)]; old {
			return
		}
		if c := known.first(b); c != nil {
			first = min(first, daysLeft(c, now))
		}
	}
	for _, c := range s.o.Configs.TLSContexts() {
		if c.Validation != nil {
			for _, b := range bundles(c.Validation) {
				seen(b.Bundle)
			}
		}
		for _, chain := range c.Certificates {
			seen(chain.Chain)
		}
	}
	return first
}

func firstByte(b []byte) *byte {
	if len(b) == 0 {
		return nil
	}
	return &b[0]
}

// secretsDump shows secrets by what became of them; the private parts are redacted
// where the dump is written.
func secretsDump(d xds.Dump, match func(string) bool) *adminv3.SecretsConfigDump {
	out := &adminv3.SecretsConfigDump{}
	for _, r := range byName(d.Resources[secretType], match) {
		if r.Static {
			out.StaticSecrets = append(out.StaticSecrets, &adminv3.SecretsConfigDump_StaticSecret{
				Name: r.Name, Secret: r.Active})
			continue
		}
		one := &adminv3.SecretsConfigDump_DynamicSecret{
			Name: r.Name, VersionInfo: r.Version, LastUpdated: timestamp(r.Updated), Secret: r.Active, ErrorState: failure(r.Failed)}
		if r.Active != nil {
			out.DynamicActiveSecrets = append(out.DynamicActiveSecrets, one)
			continue
		}
		one.VersionInfo = "uninitialized"
		one.Secret, _ = anypb.New(&tlsv3.Secret{Name: r.Name}) // a name that is not UTF-8 shows nothing
		out.DynamicWarmingSecrets = append(out.DynamicWarmingSecrets, one)
	}
	return out
}
