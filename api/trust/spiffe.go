package trust

import (
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// readSPIFFE takes the authorities of each trust domain. Of the names only URIs
// count, and hashes do not (Envoy 1.40, measured).
func (v *Verifier) readSPIFFE(c *api.SPIFFE) error {
	v.spiffe = map[string]*x509.CertPool{}
	v.hashes, v.keys = nil, nil
	uris := v.names[:0]
	for _, n := range v.names {
		if n.kind == api.SANURI {
			uris = append(uris, n)
		}
	}
	v.names = uris
	var bundles [][]byte
	for _, d := range c.Domains {
		if v.spiffe[d.Name] != nil {
			return fmt.Errorf("custom_validator_config: Multiple trust bundles are given for one trust domain for %s, workload: ", d.Name)
		}
		p := v.pool(d.Bundle)
		if p == nil {
			return fmt.Errorf("custom_validator_config: Failed to load trusted CA certificate for %s", d.Name)
		}
		v.spiffe[d.Name] = p
		bundles = append(bundles, d.Bundle)
	}
	v.all = v.pool(bundles...)
	return nil
}

func (v *Verifier) verifySPIFFE(chain []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	leaf := chain[0]
	// SPIFFE's rule for X.509 SVIDs: a leaf signs nothing. One that does not
	// say what its key is for is taken for one that may, as in Envoy.
	if leaf.IsCA || leaf.KeyUsage == 0 || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return &Error{Chain, "cert precheck"}
	}
	roots := v.spiffe[domain(leaf)]
	if roots == nil {
		return &Error{Chain, "no trust bundle store"}
	}
	if err := v.verifyChain(roots, chain, usage, now); err != nil {
		return err
	}
	if len(v.names) > 0 && !matchesAny(v.names, leaf) {
		return &Error{SAN, "SAN matcher, certificate SANs are [" + strings.Join(alternatives(leaf), ", ") + "]"}
	}
	return nil
}

// domain is the trust domain of the first URI that is a SPIFFE ID.
func domain(c *x509.Certificate) string {
	for _, g := range general(c) {
		if id, ok := strings.CutPrefix(g.text, "spiffe://"); ok && g.kind == api.SANURI {
			name, _, _ := strings.Cut(id, "/")
			return name
		}
	}
	return ""
}
