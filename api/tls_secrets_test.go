package api

import (
	"reflect"
	"testing"
)

func TestSecretsAreResolved(t *testing.T) {
	cert, other := &TLSCertificate{Chain: []byte("a")}, &TLSCertificate{Chain: []byte("b")}
	ca := &TLSValidation{TrustedCA: []byte("ca"), Keys: [][]byte{{1}}}
	keys := &TicketKeys{Keys: [][]byte{{2}}}
	names := &TLSValidation{Names: []SubjectAltName{{Type: SANURI}}, TrustedCA: []byte("older"), Keys: [][]byte{{0}}}
	s := Secrets{"c": {Certificate: cert}, "o": {Certificate: other}, "v": {Validation: ca}, "k": {TicketKeys: keys}}

	in := &DownstreamTLS{TLSContext: TLSContext{
		CertificateRefs: []SecretRef{{Key: "c"}, {Key: "o"}}, Validation: names, ValidationRef: SecretRef{Key: "v"},
	}, TicketKeysRef: SecretRef{Key: "k"}}
	got, ready := s.Downstream(in)
	want := &DownstreamTLS{TLSContext: TLSContext{Certificates: []*TLSCertificate{cert, other}, Validation: &TLSValidation{
		Names: names.Names, TrustedCA: []byte("ca"), Keys: [][]byte{{0}, {1}},
	}}, TicketKeys: keys}
	if !ready || !reflect.DeepEqual(got, want) {
		t.Errorf("resolved to %+v, ready %v", got, ready)
	}
	if got.Certificates[0] != cert {
		t.Error("a certificate was copied")
	}
	if len(in.CertificateRefs) != 2 || in.Certificates != nil {
		t.Error("what was resolved was changed itself")
	}

	for name, missing := range map[string]Secrets{
		"no certificate": {"o": {Certificate: other}, "v": {Validation: ca}, "k": {TicketKeys: keys}},
		"no validation":  {"c": {Certificate: cert}, "o": {Certificate: other}, "k": {TicketKeys: keys}},
		"no keys":        {"c": {Certificate: cert}, "o": {Certificate: other}, "v": {Validation: ca}},
		"another kind":   {"c": {Validation: ca}, "o": {Certificate: other}, "v": {Validation: ca}, "k": {TicketKeys: keys}},
	} {
		if _, ready := missing.Downstream(in); ready {
			t.Errorf("%s: ready", name)
		}
	}
	fixed := &UpstreamTLS{TLSContext: TLSContext{Certificates: []*TLSCertificate{cert}}}
	if got, ready := s.Upstream(fixed); got != fixed || !ready {
		t.Error("what refers to nothing is not itself")
	}
}
