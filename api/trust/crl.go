package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"time"
)

// list is a revocation list, of version 1 or 2.
type list struct {
	issuer     []byte
	from, till time.Time // till may be zero
	serials    map[string]bool
	signedBy   func(*x509.Certificate) error
}

const crlBlock = "X509 CRL"

// revocations are the lists among what is PEM in b.
func revocations(b []byte) (all []list, err error) {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != crlBlock {
			continue
		}
		l, err := readList(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

func readList(der []byte) (list, error) {
	if v2, err := x509.ParseRevocationList(der); err == nil {
		l := list{issuer: v2.RawIssuer, from: v2.ThisUpdate, till: v2.NextUpdate, serials: map[string]bool{}, signedBy: v2.CheckSignatureFrom}
		for _, r := range v2.RevokedCertificateEntries {
			l.serials[r.SerialNumber.String()] = true
		}
		return l, nil
	}
	//lint:ignore SA1019 its successor does not read version 1, which `openssl ca` writes unless told otherwise
	v1, err := x509.ParseDERCRL(der)
	if err != nil {
		return list{}, err
	}
	tbs := v1.TBSCertList
	issuer, err := asn1.Marshal(tbs.Issuer)
	if err != nil {
		return list{}, err
	}
	l := list{issuer: issuer, from: tbs.ThisUpdate, till: tbs.NextUpdate, serials: map[string]bool{}, signedBy: func(c *x509.Certificate) error {
		if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCRLSign == 0 {
			return errors.New("authority does not sign lists")
		}
		//lint:ignore SA1019 as above
		return c.CheckCRLSignature(v1)
	}}
	for _, r := range tbs.RevokedCertificates {
		l.serials[r.SerialNumber.String()] = true
	}
	return l, nil
}

// unrevoked: with a list, every issuer needs one.
func (v *Verifier) unrevoked(chain []*x509.Certificate, now time.Time) error {
	if len(v.revoked) == 0 {
		return nil
	}
	for i := 0; i+1 < len(chain); i++ {
		if i > 0 && v.leafOnly {
			break
		}
		found := false
		for _, l := range v.revoked {
			if !bytes.Equal(l.issuer, chain[i].RawIssuer) || l.signedBy(chain[i+1]) != nil {
				continue
			}
			found = true
			switch {
			case v.expired: // of lists too
			case now.Before(l.from):
				return chainError(i, byList+"CRL is not yet valid")
			case !l.till.IsZero() && now.After(l.till):
				return chainError(i, byList+"CRL has expired")
			}
			if l.serials[chain[i].SerialNumber.String()] {
				return chainError(i, byList+"certificate revoked")
			}
		}
		if !found {
			return chainError(i, byList+"unable to get certificate CRL")
		}
	}
	return nil
}
