// Package tlsname has BoringSSL's names for what TLS negotiates: they stand in
// configuration, in counters and in access logs.
package tlsname

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"strings"
)

var curves = map[string]uint16{
	"X25519": uint16(tls.X25519), "P-256": uint16(tls.CurveP256), "P-384": uint16(tls.CurveP384),
	"P-521": uint16(tls.CurveP521), "X25519MLKEM768": uint16(tls.X25519MLKEM768),
}

var signatures = map[string]uint16{
	"rsa_pkcs1_sha1":         uint16(tls.PKCS1WithSHA1),
	"rsa_pkcs1_sha256":       uint16(tls.PKCS1WithSHA256),
	"rsa_pkcs1_sha384":       uint16(tls.PKCS1WithSHA384),
	"rsa_pkcs1_sha512":       uint16(tls.PKCS1WithSHA512),
	"ecdsa_sha1":             uint16(tls.ECDSAWithSHA1),
	"ecdsa_secp256r1_sha256": uint16(tls.ECDSAWithP256AndSHA256),
	"ecdsa_secp384r1_sha384": uint16(tls.ECDSAWithP384AndSHA384),
	"ecdsa_secp521r1_sha512": uint16(tls.ECDSAWithP521AndSHA512),
	"rsa_pss_rsae_sha256":    uint16(tls.PSSWithSHA256),
	"rsa_pss_rsae_sha384":    uint16(tls.PSSWithSHA384),
	"rsa_pss_rsae_sha512":    uint16(tls.PSSWithSHA512),
	"ed25519":                uint16(tls.Ed25519),
}

// CurveID is the number of a curve.
func CurveID(name string) (uint16, bool) { id, ok := curves[name]; return id, ok }

// SignatureID is the number of a signature algorithm.
func SignatureID(name string) (uint16, bool) { id, ok := signatures[name]; return id, ok }

// Curve is a curve's name.
func Curve(id uint16) string { return orNumber(nameOf(curves, id), id) }

// Signature is a signature algorithm's name.
func Signature(id uint16) string { return orNumber(nameOf(signatures, id), id) }

// Version is a protocol version's name, as in `TLSv1.3`.
func Version(id uint16) string {
	switch id {
	case tls.VersionTLS10:
		return "TLSv1"
	case tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13:
		return strings.Replace(tls.VersionName(id), "TLS ", "TLSv", 1)
	}
	return orNumber("", id)
}

func nameOf(m map[string]uint16, id uint16) (name string) {
	for n, i := range m {
		if i == id && (name == "" || cmp.Less(n, name)) {
			name = n
		}
	}
	return name
}

func orNumber(name string, id uint16) string {
	if name != "" {
		return name
	}
	return fmt.Sprintf("0x%04x", id)
}
