// Package pki makes certificates for tests: an authority, and what it issues.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"testing"
	"time"
)

// CA is a certificate authority of one test.
type CA struct {
	tb   testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// PEM is its certificate.
	PEM []byte
}

// New makes an authority.
func New(tb testing.TB, name string) *CA {
	tb.Helper()
	return authority(tb, name, nil)
}

// Under makes an authority that this one vouches for. changes may alter it before
// it is signed.
func (c *CA) Under(name string, changes ...func(*x509.Certificate)) *CA {
	c.tb.Helper()
	return authority(c.tb, name, c, changes...)
}

func authority(tb testing.TB, name string, above *CA, changes ...func(*x509.Certificate)) *CA {
	tb.Helper()
	key := newKey(tb)
	t := &x509.Certificate{
		SerialNumber: serial(tb), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	for _, f := range changes {
		f(t)
	}
	parent, signer := t, key
	if above != nil {
		parent, signer = above.cert, above.key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err != nil {
		tb.Fatalf("create authority: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatalf("parse authority: %v", err)
	}
	return &CA{tb: tb, cert: cert, key: key, PEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// Cert is its certificate.
func (c *CA) Cert() *x509.Certificate { return c.cert }

// Pool holds the authority alone.
func (c *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.cert)
	return p
}

// Leaf is a certificate with its key.
type Leaf struct {
	Cert *x509.Certificate
	// PEM is the certificate, Key its key.
	PEM, Key []byte
}

// Issue makes a certificate for servers and clients with these alternative names:
// URIs, IP addresses, else DNS names. changes may alter it before it is signed.
func (c *CA) Issue(names []string, changes ...func(*x509.Certificate)) Leaf {
	c.tb.Helper()
	key := newKey(c.tb)
	t := &x509.Certificate{
		SerialNumber: serial(c.tb), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	for _, n := range names {
		if u, err := url.Parse(n); err == nil && u.Scheme != "" && u.Host != "" {
			t.URIs = append(t.URIs, u)
		} else if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	for _, f := range changes {
		f(t)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, c.cert, key.Public(), c.key)
	if err != nil {
		c.tb.Fatalf("create certificate: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		c.tb.Fatalf("parse certificate: %v", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		c.tb.Fatalf("marshal key: %v", err)
	}
	return Leaf{
		Cert: cert, PEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}
}

// Revoke makes a list of revoked certificates.
func (c *CA) Revoke(leaves ...Leaf) []byte {
	c.tb.Helper()
	return c.RevokeAt(time.Now().Add(-time.Minute), leaves...)
}

// Sign signs a SHA-256 sum with the authority's key.
func (c *CA) Sign(sum []byte) []byte {
	c.tb.Helper()
	sig, err := ecdsa.SignASN1(rand.Reader, c.key, sum)
	if err != nil {
		c.tb.Fatalf("sign: %v", err)
	}
	return sig
}

// RevokeAt makes a list that is good for an hour from then.
func (c *CA) RevokeAt(from time.Time, leaves ...Leaf) []byte {
	c.tb.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: from, NextUpdate: from.Add(time.Hour)}
	for _, leaf := range leaves {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: leaf.Cert.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, c.cert, c.key)
	if err != nil {
		c.tb.Fatalf("create revocation list: %v", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// TLS is the leaf for crypto/tls.
func (l Leaf) TLS(tb testing.TB) tls.Certificate {
	tb.Helper()
	c, err := tls.X509KeyPair(l.PEM, l.Key)
	if err != nil {
		tb.Fatalf("load certificate: %v", err)
	}
	return c
}

// Write puts content into a file.
func Write(tb testing.TB, path string, content []byte) {
	tb.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		tb.Fatal(err)
	}
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatalf("generate key: %v", err)
	}
	return key
}

func serial(tb testing.TB) *big.Int {
	tb.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		tb.Fatalf("draw serial: %v", err)
	}
	return n
}
