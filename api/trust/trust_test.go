package trust

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/test/pki"
)

func exact(kind api.SANType, s string) []api.SubjectAltName {
	return []api.SubjectAltName{{Type: kind, Match: api.StringMatch{Value: s}}}
}

func depth(n uint32) *uint32 { return &n }

// What Envoy 1.40 says to the like of these was recorded from it.
func TestVerdicts(t *testing.T) {
	ca, other := pki.New(t, "ca"), pki.New(t, "other")
	one := ca.Under("one")
	two := one.Under("two")
	three := two.Under("three")
	forClients := ca.Under("clients", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	old := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-3*time.Hour), time.Now().Add(-2*time.Hour)
	}
	usage := func(u x509.KeyUsage) func(*x509.Certificate) { return func(c *x509.Certificate) { c.KeyUsage = u } }

	srv := ca.Issue([]string{"srv.example.com", "spiffe://td/ns/x"})
	wild := ca.Issue([]string{"*.example.com"})
	none := ca.Issue(nil)
	stale := ca.Issue([]string{"exp.example.com"}, old)
	future := ca.Issue(nil, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(2*time.Hour), time.Now().Add(3*time.Hour)
	})
	deep, deepest := one.Issue([]string{"deep.example.com"}), three.Issue([]string{"deep.example.com"})
	clientOnly := ca.Issue(nil, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	below := forClients.Issue(nil, func(c *x509.Certificate) { c.ExtKeyUsage = nil })
	names := ca.Issue([]string{"10.0.0.1", "spiffe://td/ns/x", "z.example.com", "fe80::1"}, func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b.c"} })
	otherName := ca.Issue(nil, func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, upn(t, "user@corp")) })
	self := pki.New(t, "self")
	staleCA := pki.New(t, "stale").Under("stale2", old)
	underStale := staleCA.Issue(nil)
	hash, key := sha256.Sum256(srv.Cert.Raw), sha256.Sum256(srv.Cert.RawSubjectPublicKeyInfo)
	spiffe := func(domain string, ca *pki.CA) *api.SPIFFE {
		return &api.SPIFFE{Domains: []api.TrustDomain{{Name: domain, Bundle: ca.PEM}}}
	}
	by := func(v api.TLSValidation) api.TLSValidation { v.TrustedCA = ca.PEM; return v }
	both := append(append([]byte{}, ca.PEM...), ca.Revoke(srv)...)
	certs := func(l pki.Leaf, above ...*pki.CA) []*x509.Certificate {
		c := []*x509.Certificate{l.Cert}
		for _, a := range above {
			c = append(c, a.Cert())
		}
		return c
	}
	const x509at = "X509_verify_cert: certificate verification error at depth "

	for name, c := range map[string]struct {
		v      api.TLSValidation
		chain  []*x509.Certificate
		client bool // the peer is one
		kind   Kind
		want   string
	}{
		"good":                                  {v: by(api.TLSValidation{}), chain: certs(srv)},
		"nothing is asked for":                  {chain: certs(srv)},
		"another authority":                     {v: api.TLSValidation{TrustedCA: other.PEM}, chain: certs(srv), want: x509at + "0: unable to get local issuer certificate"},
		"self-signed":                           {v: by(api.TLSValidation{}), chain: []*x509.Certificate{self.Cert()}, want: x509at + "0: self signed certificate"},
		"self-signed and trusted":               {v: api.TLSValidation{TrustedCA: self.PEM}, chain: []*x509.Certificate{self.Cert()}},
		"expired":                               {v: by(api.TLSValidation{}), chain: certs(stale), want: x509at + "0: certificate has expired"},
		"not yet valid":                         {v: by(api.TLSValidation{}), chain: certs(future), want: x509at + "0: certificate is not yet valid"},
		"expired and allowed":                   {v: by(api.TLSValidation{AllowExpired: true}), chain: certs(stale)},
		"not yet valid and allowed":             {v: by(api.TLSValidation{AllowExpired: true}), chain: certs(future)},
		"an expired authority":                  {v: api.TLSValidation{TrustedCA: staleCA.PEM}, chain: certs(underStale), want: x509at + "0: certificate has expired"},
		"an expired authority and allowed":      {v: api.TLSValidation{TrustedCA: staleCA.PEM, AllowExpired: true}, chain: certs(underStale)},
		"another name":                          {v: by(api.TLSValidation{Names: exact(api.SANDNS, "x")}), chain: certs(srv), kind: SAN, want: "SAN matcher, certificate SANs are [srv.example.com, spiffe://td/ns/x]"},
		"no name":                               {v: by(api.TLSValidation{Names: exact(api.SANDNS, "x")}), chain: certs(none), kind: SAN, want: "SAN matcher, certificate SANs are []"},
		"an other name":                         {v: by(api.TLSValidation{Names: exact(api.SANDNS, "x")}), chain: certs(otherName), kind: SAN, want: "SAN matcher, certificate SANs are [user@corp]"},
		"the other name":                        {v: by(api.TLSValidation{Names: []api.SubjectAltName{{Type: api.SANOtherName, OID: "1.3.6.1.4.1.311.20.2.3", Match: api.StringMatch{Value: "user@corp"}}}}), chain: certs(otherName)},
		"the other name by another OID":         {v: by(api.TLSValidation{Names: []api.SubjectAltName{{Type: api.SANOtherName, OID: "1.3.6", Match: api.StringMatch{Value: "user@corp"}}}}), chain: certs(otherName), kind: SAN, want: "SAN matcher, certificate SANs are [user@corp]"},
		"an IPv6 address":                       {v: by(api.TLSValidation{Names: exact(api.SANIPAddress, "fe80::1")}), chain: certs(names)},
		"an IPv4 address":                       {v: by(api.TLSValidation{Names: exact(api.SANIPAddress, "10.0.0.1")}), chain: certs(names)},
		"an e-mail address":                     {v: by(api.TLSValidation{Names: exact(api.SANEmail, "a@b.c")}), chain: certs(names)},
		"a DNS name in another case":            {v: by(api.TLSValidation{Names: exact(api.SANDNS, "Z.example.com")}), chain: certs(names)},
		"a URI where a DNS name is asked":       {v: by(api.TLSValidation{Names: exact(api.SANDNS, "spiffe://td/ns/x")}), chain: certs(names), kind: SAN, want: "SAN matcher, certificate SANs are [z.example.com, a@b.c, 10.0.0.1, fe80::1, spiffe://td/ns/x]"},
		"a URI of any kind":                     {v: by(api.TLSValidation{Names: exact(api.SANAny, "spiffe://td/ns/x")}), chain: certs(names)},
		"under a wildcard":                      {v: by(api.TLSValidation{Names: exact(api.SANDNS, "a.example.com")}), chain: certs(wild)},
		"two labels under a wildcard":           {v: by(api.TLSValidation{Names: exact(api.SANDNS, "a.b.example.com")}), chain: certs(wild), kind: SAN, want: "SAN matcher, certificate SANs are [*.example.com]"},
		"a suffix that is in the wildcard":      {v: by(api.TLSValidation{Names: []api.SubjectAltName{{Type: api.SANDNS, Match: api.StringMatch{Kind: api.MatchSuffix, Value: ".example.com"}}}}), chain: certs(wild)},
		"a suffix that the star stands for":     {v: by(api.TLSValidation{Names: []api.SubjectAltName{{Type: api.SANDNS, Match: api.StringMatch{Kind: api.MatchSuffix, Value: "a.example.com"}}}}), chain: certs(wild), kind: SAN, want: "SAN matcher, certificate SANs are [*.example.com]"},
		"its hash":                              {v: api.TLSValidation{Hashes: [][]byte{hash[:]}}, chain: certs(srv)},
		"its key's hash":                        {v: api.TLSValidation{Hashes: [][]byte{make([]byte, 32)}, Keys: [][]byte{key[:]}}, chain: certs(srv)},
		"another hash":                          {v: api.TLSValidation{Hashes: [][]byte{key[:]}}, chain: certs(srv), kind: Hash, want: "cert hash and spki"},
		"another name and another hash":         {v: by(api.TLSValidation{Names: exact(api.SANDNS, "x"), Hashes: [][]byte{key[:]}}), chain: certs(srv), kind: SAN, want: "SAN matcher, certificate SANs are [srv.example.com, spiffe://td/ns/x]"},
		"for clients only":                      {v: by(api.TLSValidation{}), chain: certs(clientOnly), want: x509at + "0: unsupported certificate purpose"},
		"a client, for clients only":            {v: by(api.TLSValidation{}), chain: certs(clientOnly), client: true},
		"by an authority for clients":           {v: by(api.TLSValidation{}), chain: certs(below, forClients), want: x509at + "1: unsupported certificate purpose"},
		"by way of another":                     {v: by(api.TLSValidation{}), chain: certs(deep, one)},
		"the way is missing":                    {v: by(api.TLSValidation{}), chain: certs(deep), want: x509at + "0: unable to get local issuer certificate"},
		"trusted in between":                    {v: api.TLSValidation{TrustedCA: one.PEM}, chain: certs(deep)},
		"another's root in the chain":           {v: api.TLSValidation{TrustedCA: other.PEM}, chain: certs(deep, one, ca), want: x509at + "2: self signed certificate in certificate chain"},
		"a server's depth is not looked at":     {v: by(api.TLSValidation{MaxDepth: depth(1)}), chain: certs(deepest, three, two, one)},
		"depth 0 of one":                        {v: by(api.TLSValidation{MaxDepth: depth(0)}), chain: certs(srv), client: true},
		"depth 1 of two":                        {v: by(api.TLSValidation{MaxDepth: depth(1)}), chain: certs(deep, one), client: true, want: x509at + "1: unable to get local issuer certificate"},
		"depth 0 of two":                        {v: by(api.TLSValidation{MaxDepth: depth(0)}), chain: certs(deep, one), client: true, want: x509at + "1: unable to get local issuer certificate"},
		"depth 2 of two":                        {v: by(api.TLSValidation{MaxDepth: depth(2)}), chain: certs(deep, one), client: true},
		"depth 3 of four":                       {v: by(api.TLSValidation{MaxDepth: depth(3)}), chain: certs(deepest, three, two, one), client: true, want: x509at + "3: unable to get local issuer certificate"},
		"depth 4 of four":                       {v: by(api.TLSValidation{MaxDepth: depth(4)}), chain: certs(deepest, three, two, one), client: true},
		"revoked":                               {v: by(api.TLSValidation{Revoked: ca.Revoke(srv)}), chain: certs(srv), want: x509at + "0: " + byList + "certificate revoked"},
		"revoked by a list beside the CA":       {v: api.TLSValidation{TrustedCA: both}, chain: certs(srv), want: x509at + "0: " + byList + "certificate revoked"},
		"revoked by a list of version 1":        {v: by(api.TLSValidation{Revoked: version1(t, ca, srv)}), chain: certs(srv), want: x509at + "0: " + byList + "certificate revoked"},
		"an expired list":                       {v: by(api.TLSValidation{Revoked: ca.RevokeAt(time.Now().Add(-3*time.Hour), wild)}), chain: certs(srv), want: x509at + "0: " + byList + "CRL has expired"},
		"an expired list and allowed":           {v: by(api.TLSValidation{AllowExpired: true, Revoked: ca.RevokeAt(time.Now().Add(-3*time.Hour), wild)}), chain: certs(srv)},
		"a list of tomorrow":                    {v: by(api.TLSValidation{Revoked: ca.RevokeAt(time.Now().Add(24*time.Hour), wild)}), chain: certs(srv), want: x509at + "0: " + byList + "CRL is not yet valid"},
		"another one is revoked":                {v: by(api.TLSValidation{Revoked: ca.Revoke(wild)}), chain: certs(srv)},
		"an issuer has no list":                 {v: by(api.TLSValidation{Revoked: ca.Revoke()}), chain: certs(deep, one), want: x509at + "0: " + byList + "unable to get certificate CRL"},
		"the leaf's issuer has no list":         {v: by(api.TLSValidation{Revoked: ca.Revoke(), LeafCRLOnly: true}), chain: certs(deep, one), want: x509at + "0: " + byList + "unable to get certificate CRL"},
		"only the leaf's issuer has a list":     {v: by(api.TLSValidation{Revoked: one.Revoke(), LeafCRLOnly: true}), chain: certs(deep, one)},
		"only the leaf's issuer has one of all": {v: by(api.TLSValidation{Revoked: one.Revoke()}), chain: certs(deep, one), want: x509at + "1: " + byList + "unable to get certificate CRL"},
		"SPIFFE":                                {v: api.TLSValidation{SPIFFE: spiffe("td", ca)}, chain: certs(srv)},
		"SPIFFE, another domain":                {v: api.TLSValidation{SPIFFE: spiffe("other", ca)}, chain: certs(srv), want: "no trust bundle store"},
		"SPIFFE, no ID":                         {v: api.TLSValidation{SPIFFE: spiffe("td", ca)}, chain: certs(wild), want: "no trust bundle store"},
		"SPIFFE, another authority":             {v: api.TLSValidation{SPIFFE: spiffe("td", other)}, chain: certs(srv), want: x509at + "0: unable to get local issuer certificate"},
		"SPIFFE, a leaf that signs":             {v: api.TLSValidation{SPIFFE: spiffe("td", ca)}, chain: certs(ca.Issue([]string{"spiffe://td/x"}, usage(x509.KeyUsageDigitalSignature|x509.KeyUsageCertSign))), want: "cert precheck"},
		"SPIFFE, a leaf without usages":         {v: api.TLSValidation{SPIFFE: spiffe("td", ca)}, chain: certs(ca.Issue([]string{"spiffe://td/x"}, usage(0))), want: "cert precheck"},
		"SPIFFE and a DNS name":                 {v: api.TLSValidation{SPIFFE: spiffe("td", ca), Names: exact(api.SANDNS, "x")}, chain: certs(srv)},
		"SPIFFE and a URI":                      {v: api.TLSValidation{SPIFFE: spiffe("td", ca), Names: exact(api.SANURI, "spiffe://td/y")}, chain: certs(srv), kind: SAN, want: "SAN matcher, certificate SANs are [srv.example.com, spiffe://td/ns/x]"},
		"SPIFFE and a hash":                     {v: api.TLSValidation{SPIFFE: spiffe("td", ca), Hashes: [][]byte{key[:]}}, chain: certs(srv)},
	} {
		v, err := New(&c.v)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		peer := x509.ExtKeyUsageServerAuth
		if c.client {
			peer = x509.ExtKeyUsageClientAuth
		}
		err = v.Verify(c.chain, peer, time.Now())
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		why := &Error{}
		if !errors.As(err, &why) || why.Text != c.want || why.Kind != c.kind {
			t.Errorf("%s: %v, want %s (%d)", name, err, c.want, c.kind)
		}
	}
}

// upn is a subject alternative name of the kind that Windows has for users.
func upn(t *testing.T, user string) pkix.Extension {
	t.Helper()
	marshal := func(v any, params string) []byte {
		b, err := asn1.MarshalWithParams(v, params)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	inner := append(marshal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}, ""),
		marshal(asn1.RawValue{Class: 2, Tag: 0, IsCompound: true, Bytes: marshal(user, "utf8")}, "")...)
	seq := marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: marshal(asn1.RawValue{Class: 2, Tag: 0, IsCompound: true, Bytes: inner}, "")}, "")
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: seq}
}

// version1 is a list without a version and extensions, as `openssl ca` makes it.
func version1(t *testing.T, ca *pki.CA, leaf pki.Leaf) []byte {
	t.Helper()
	algorithm := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}} // ECDSA with SHA-256
	issuer := pkix.RDNSequence{}
	if _, err := asn1.Unmarshal(ca.Cert().RawSubject, &issuer); err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 its successor has no version 1
	tbs, err := asn1.Marshal(pkix.TBSCertificateList{Signature: algorithm, Issuer: issuer, ThisUpdate: time.Now().Add(-time.Hour).UTC(), NextUpdate: time.Now().Add(time.Hour).UTC(),
		RevokedCertificates: []pkix.RevokedCertificate{{SerialNumber: leaf.Cert.SerialNumber, RevocationTime: time.Now().UTC()}}})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(tbs)
	sig := ca.Sign(sum[:])
	der, err := asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, algorithm, asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}})
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: crlBlock, Bytes: der})
}

func TestBadContexts(t *testing.T) {
	ca := pki.New(t, "ca")
	for want, v := range map[string]api.TLSValidation{
		"trusted_ca: Failed to load trusted CA certificates from <inline>":                                                          {TrustedCA: []byte("x")},
		"trusted_ca: Failed to load trusted CA certificates from /a/b":                                                              {TrustedCA: []byte("x"), CAPath: "/a/b"},
		"crl: Failed to load CRL from /c/l":                                                                                         {TrustedCA: ca.PEM, CRLPath: "/c/l", Revoked: pem.EncodeToMemory(&pem.Block{Type: crlBlock, Bytes: []byte{1}})},
		"crl: Failed to load CRL from <inline> without trusted CA":                                                                  {Revoked: []byte("x")},
		"match_typed_subject_alt_names: SAN-based verification of peer certificates without trusted CA is insecure and not allowed": {Names: exact(api.SANDNS, "x")},
		"allow_expired_certificate: Certificate validity period is always ignored without trusted CA":                               {AllowExpired: true},
		"match_typed_subject_alt_names[0].oid: Failed to create SAN matcher for OTHER_NAME with OID: zz":                            {TrustedCA: ca.PEM, Names: []api.SubjectAltName{{Type: api.SANOtherName, OID: "zz"}}},
		"custom_validator_config: Failed to load trusted CA certificate for td":                                                     {SPIFFE: &api.SPIFFE{Domains: []api.TrustDomain{{Name: "td", Bundle: []byte("x")}}}},
		"custom_validator_config: Multiple trust bundles are given for one trust domain for td, workload: ":                         {SPIFFE: &api.SPIFFE{Domains: []api.TrustDomain{{Name: "td", Bundle: ca.PEM}, {Name: "td", Bundle: ca.PEM}}}},
	} {
		if _, err := New(&v); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := New(&api.TLSValidation{TrustedCA: ca.PEM, Revoked: []byte("no list")}); err != nil {
		t.Errorf("Envoy takes a CRL that holds no list: %v", err)
	}
}

func TestWhatAServerAsksFor(t *testing.T) {
	ca := pki.New(t, "ca")
	spiffe := &api.SPIFFE{Domains: []api.TrustDomain{{Name: "td", Bundle: ca.PEM}}}
	for name, c := range map[string]struct {
		v                        api.TLSValidation
		asks, requires, ifWanted bool
	}{
		"nothing":                 {},
		"an authority":            {v: api.TLSValidation{TrustedCA: ca.PEM}, asks: true, ifWanted: true},
		"a name":                  {v: api.TLSValidation{TrustedCA: ca.PEM, Names: exact(api.SANDNS, "x")}, asks: true, requires: true, ifWanted: true},
		"a hash":                  {v: api.TLSValidation{Hashes: [][]byte{{1}}}, asks: true, requires: true, ifWanted: true},
		"a name, and any will do": {v: api.TLSValidation{TrustedCA: ca.PEM, Names: exact(api.SANDNS, "x"), AcceptUntrusted: true}, asks: true, ifWanted: true},
		"SPIFFE":                  {v: api.TLSValidation{SPIFFE: spiffe}, asks: true, requires: true, ifWanted: true},
	} {
		v, err := New(&c.v)
		if err != nil {
			t.Fatal(err)
		}
		if v.Asks() != c.asks || v.Requires() != c.requires || v.RequireFor(true) != c.ifWanted || v.RequireFor(false) != c.requires {
			t.Errorf("%s: asks %v, requires %v, if wanted %v", name, v.Asks(), v.Requires(), v.RequireFor(true))
		}
		if has := v.Authorities() != nil; has != (c.v.TrustedCA != nil || c.v.SPIFFE != nil) {
			t.Errorf("%s: names its authorities: %v", name, has)
		}
	}
	quiet, err := New(&api.TLSValidation{TrustedCA: ca.PEM, NoCAList: true})
	if err != nil || quiet.Authorities() != nil {
		t.Errorf("suppress_client_ca_list: %v, %v", quiet.Authorities(), err)
	}
}

func TestOtherNamesTakeThePlaceOfTheConfiguredOnes(t *testing.T) {
	ca := pki.New(t, "ca")
	v, err := New(&api.TLSValidation{TrustedCA: ca.PEM, Names: exact(api.SANDNS, "configured")})
	if err != nil {
		t.Fatal(err)
	}
	own, err := v.WithNames(exact(api.SANDNS, "sni.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	leaf := []*x509.Certificate{ca.Issue([]string{"sni.example.com"}).Cert}
	if err := own.Verify(leaf, x509.ExtKeyUsageServerAuth, time.Now()); err != nil {
		t.Errorf("by the other name: %v", err)
	}
	if err := v.Verify(leaf, x509.ExtKeyUsageServerAuth, time.Now()); err == nil || !strings.Contains(err.Error(), "SAN matcher") {
		t.Errorf("by the configured name: %v", err)
	}
}

func TestDNSMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"a.b", "A.B", true}, {"*.b", "a.b", true}, {"*.b", "b", false}, {"*.b", "c.a.b", false}, {"a*.b", "ac.b", true}, {"a*c.b", "ac.b", true},
		{"a*c.b", "a.b", false}, {"a.*", "a.b", false}, {"*", "a", false}, {"xn--*.b", "xn--a.b", false}, {"*a*.b", "xax.b", false},
	} {
		if got := DNSMatch(c.pattern, c.name); got != c.want {
			t.Errorf("%s of %s: %v", c.name, c.pattern, got)
		}
	}
}

func FuzzNamesOfACertificate(f *testing.F) {
	f.Add([]byte{0x30, 3, 0x82, 1, 'a'})
	f.Add([]byte{0x30, 9, 0xa0, 7, 6, 1, 42, 0xa0, 2, 0x0c, 0})
	f.Fuzz(func(_ *testing.T, b []byte) {
		general(&x509.Certificate{Extensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: b}}})
	})
}
