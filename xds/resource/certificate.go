package resource

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/youmark/pkcs8"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/sluice-proxy/sluice/api"
)

// BoringSSL's words for what is wrong with a key.
const (
	noStartLine   = "error:0900006e:PEM routines:OPENSSL_internal:NO_START_LINE"
	noPassword    = "error:09000068:PEM routines:OPENSSL_internal:BAD_PASSWORD_READ"
	badDecrypt    = "error:1e000065:Cipher functions:OPENSSL_internal:BAD_DECRYPT"
	badKey        = "error:0900000c:PEM routines:OPENSSL_internal:ASN1_LIB"
	keyMismatch   = "error:0b000074:X.509 certificate routines:OPENSSL_internal:KEY_VALUES_MISMATCH"
	otherKindOf   = "error:0b000073:X.509 certificate routines:OPENSSL_internal:KEY_TYPE_MISMATCH"
	inlinePath    = "<inline>"
	minRSAKeyBits = 2048
)

// Certificate reads a TlsCertificate that passed its constraints, with its files.
func Certificate(path string, p *tlsv3.TlsCertificate) (*api.TLSCertificate, error) {
	w := walker{policies: table()}
	c := w.certificate(path, p)
	return c, w.err()
}

// certificate reads one; the fields were walked.
func (w *walker) certificate(path string, p *tlsv3.TlsCertificate) *api.TLSCertificate {
	before := len(w.errs)
	c := w.chainAndKey(path, p)
	if p.GetTlsParams() != nil {
		params := w.tlsParams(path+".tls_params", p.GetTlsParams(), api.TLSParams{})
		c.Params = &params
	}
	c.Staple = w.staple(path+".ocsp_staple", p.GetOcspStaple())
	if len(w.errs) > before {
		return nil
	}
	return c
}

func (w *walker) chainAndKey(path string, p *tlsv3.TlsCertificate) *api.TLSCertificate {
	c := &api.TLSCertificate{ChainPath: pathOf(p.GetCertificateChain()), KeyPath: pathOf(p.GetPrivateKey())}
	password, err := optional(p.GetPassword())
	if err != nil {
		w.fail(path+".password", err)
		return c
	}
	if p.GetPkcs12() != nil {
		w.pkcs12(path, p, c, password)
		return c
	}
	// What cannot be read is as good as empty, as in Envoy.
	chain, _ := optional(p.GetCertificateChain())
	key, _ := optional(p.GetPrivateKey())
	switch {
	case p.GetPrivateKeyProvider() != nil:
		w.fail(path+".private_key_provider", fmt.Errorf("Failed to load private key provider: %s", short(p.GetPrivateKeyProvider().GetProviderName())))
		return c
	case key == "" && (chain != "" || p.GetPrivateKey() != nil || p.GetCertificateChain() != nil):
		w.fail(path+".private_key", fmt.Errorf("Failed to load incomplete private key from path: %s", filename(p.GetPrivateKey())))
		return c
	case chain == "":
		w.fail(path+".certificate_chain", fmt.Errorf("Failed to load incomplete certificate from %s: certificate chain not set", filename(p.GetCertificateChain())))
		return c
	}
	c.Chain = []byte(chain)
	leaf, err := leafOf(c.Chain)
	if err != nil {
		w.fail(path+".certificate_chain", fmt.Errorf("Failed to load certificate chain from %s%w", c.ChainPath, err))
		return c
	}
	if c.Key, err = plainKey([]byte(key), password); err == nil {
		err = fits(leaf, c)
	}
	if err != nil {
		w.fail(path+".private_key", fmt.Errorf("Failed to load private key from %s, Cause: %w", c.KeyPath, err))
	}
	return c
}

func (w *walker) pkcs12(path string, p *tlsv3.TlsCertificate, c *api.TLSCertificate, password string) {
	for field, set := range map[string]bool{"private_key": p.GetPrivateKey() != nil, "certificate_chain": p.GetCertificateChain() != nil, "private_key_provider": p.GetPrivateKeyProvider() != nil} {
		if set {
			w.fail(path+".pkcs12", fmt.Errorf("Certificate configuration can't have both pkcs12 and %s", field))
		}
	}
	c.ChainPath, c.KeyPath = pathOf(p.GetPkcs12()), pathOf(p.GetPkcs12())
	b, err := dataSource(p.GetPkcs12())
	if err != nil {
		w.fail(path+".pkcs12", err)
		return
	}
	key, leaf, above, err := pkcs12.DecodeChain([]byte(b), password)
	if err != nil {
		w.fail(path+".pkcs12", fmt.Errorf("Failed to load pkcs12 from %s", c.ChainPath))
		return
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		w.fail(path+".pkcs12", fmt.Errorf("Failed to load pkcs12 from %s", c.ChainPath))
		return
	}
	for _, one := range append([]*x509.Certificate{leaf}, above...) {
		c.Chain = append(c.Chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: one.Raw})...)
	}
	c.Key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// staple reads an OCSP response; that it is one is looked at where it is served.
func (w *walker) staple(path string, p *corev3.DataSource) []byte {
	if p == nil {
		return nil
	}
	if _, text := p.GetSpecifier().(*corev3.DataSource_InlineString); text {
		w.fail(path, errors.New("OCSP staple cannot be provided via inline_string"))
		return nil
	}
	s, err := dataSource(p)
	if err != nil {
		w.fail(path, err)
	}
	return []byte(s)
}

// leafOf checks the chain and returns its first certificate. Its errors are what
// Envoy puts behind the path.
func leafOf(chain []byte) (leaf *x509.Certificate, err error) {
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" && block.Type != "X509 CERTIFICATE" && block.Type != "TRUSTED CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("")
		}
		if leaf == nil {
			leaf = c
		}
	}
	if leaf == nil {
		return nil, errors.New("")
	}
	switch k := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSAKeyBits {
			return nil, errors.New(", only RSA certificates with 2048-bit or larger keys are supported")
		}
	case *ecdsa.PublicKey:
		// BoringSSL takes none that may not sign.
		if leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
			return nil, errors.New("")
		}
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return nil, errors.New(", only P-256, P-384 or P-521 ECDSA certificates are supported")
		}
	}
	return leaf, nil
}

// plainKey finds the private key in b and takes its password off. Its errors are
// BoringSSL's.
func plainKey(b []byte, password string) ([]byte, error) {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY":
			if password == "" {
				return nil, errors.New(noPassword)
			}
			key, err := pkcs8.ParsePKCS8PrivateKey(block.Bytes, []byte(password))
			if err != nil {
				return nil, errors.New(badDecrypt)
			}
			der, err := x509.MarshalPKCS8PrivateKey(key)
			if err != nil {
				return nil, errors.New(badKey)
			}
			return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
		case block.Type != "PRIVATE KEY" && !strings.HasSuffix(block.Type, " PRIVATE KEY"):
		case strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			if password == "" {
				return nil, errors.New(noPassword)
			}
			//lint:ignore SA1019 weak as it is, Envoy reads keys like this one, and so do its users
			der, err := x509.DecryptPEMBlock(block, []byte(password))
			if err != nil {
				return nil, errors.New(badDecrypt)
			}
			return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: der}), nil
		default:
			return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}), nil
		}
	}
	return nil, errors.New(noStartLine)
}

// fits tells what keeps the key from being the certificate's.
func fits(leaf *x509.Certificate, c *api.TLSCertificate) error {
	one := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})
	_, err := tls.X509KeyPair(one, c.Key)
	switch {
	case err == nil:
		return nil
	case strings.Contains(err.Error(), "type does not match"):
		return errors.New(otherKindOf)
	case strings.Contains(err.Error(), "does not match"):
		return errors.New(keyMismatch)
	}
	return errors.New(badKey)
}

// optional reads a DataSource that may be missing.
func optional(p *corev3.DataSource) (string, error) {
	if p.GetSpecifier() == nil {
		return "", nil
	}
	return dataSource(p)
}

// pathOf names a DataSource in an error, as Envoy does.
func pathOf(p *corev3.DataSource) string {
	if f := p.GetFilename(); f != "" {
		return f
	}
	return inlinePath
}

// filename is pathOf where Envoy knows no inline.
func filename(p *corev3.DataSource) string { return p.GetFilename() }
