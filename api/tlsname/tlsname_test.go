package tlsname

import (
	"crypto/tls"
	"strings"
	"testing"
)

// What Envoy 1.40 says to these was recorded from it.
func TestCipherRules(t *testing.T) {
	for rules, want := range map[string]string{
		"ECDHE-RSA-AES128-SHA":                 "ECDHE-RSA-AES128-SHA",
		"ECDHE-RSA-AES128-SHA:AES128-SHA":      "ECDHE-RSA-AES128-SHA AES128-SHA",
		"AES128-SHA:AES128-SHA":                "AES128-SHA",
		"[ECDHE-RSA-AES128-SHA|AES128-SHA]":    "ECDHE-RSA-AES128-SHA AES128-SHA",
		"[AES128-SHA|AES256-SHA]:DES-CBC3-SHA": "AES128-SHA AES256-SHA DES-CBC3-SHA",
		"ECDHE+AESGCM:!aECDSA":                 "ECDHE-RSA-AES128-GCM-SHA256 ECDHE-RSA-AES256-GCM-SHA384",
		"kRSA:-AES256:-3DES:AES256-SHA":        "AES128-GCM-SHA256 AES128-SHA AES256-SHA",
		"kRSA+AESGCM:+AES128":                  "AES256-GCM-SHA384 AES128-GCM-SHA256",
		"!AES128-SHA:AES128-SHA:AES256-SHA":    "AES256-SHA",
		"PSK":                                  "",
		"TLS_RSA_WITH_AES_128_GCM_SHA256":      "AES128-GCM-SHA256",
		DefaultCiphers:                         "ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-ECDSA-CHACHA20-POLY1305 ECDHE-RSA-AES128-GCM-SHA256 ECDHE-RSA-CHACHA20-POLY1305 ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-RSA-AES256-GCM-SHA384",
		"FOO:ECDHE-RSA-AES128-SHA":             "rejected FOO",
		"[FOO|BAR]:ECDHE-RSA-AES128-SHA":       "rejected FOO, BAR",
		"ALL:!RC4":                             "rejected RC4",
		"TLS_AES_128_GCM_SHA256":               "rejected TLS_AES_128_GCM_SHA256",
		"AES128-SHA256":                        "rejected AES128-SHA256",
		"SHA256":                               "rejected SHA256",
		"@STRENGTH":                            "rejected @STRENGTH",
		"-AES128-SHA":                          "rejected ",
		"-ALL":                                 "rejected ",
		"+AES":                                 "rejected ",
		"[ECDHE-RSA-AES128-SHA|":               "rejected ",
		"ECDHE-RSA-AES128-SHA,AES128-SHA":      "rejected ECDHE-RSA-AES128-SHA,AES128-SHA",
		"ALL:FOO:!BAR":                         "rejected FOO, BAR",
	} {
		ids, rejected, ok := CipherList(rules)
		got := make([]string, len(ids))
		for i, id := range ids {
			got[i] = Cipher(id)
		}
		s := strings.Join(got, " ")
		if !ok {
			s = "rejected " + strings.Join(rejected, ", ")
		}
		if s != want {
			t.Errorf("%s: %s, want %s", rules, s, want)
		}
	}
	for _, alias := range strings.Fields("ALL HIGH DEFAULT ECDHE AESGCM kRSA aRSA FIPS TLSv1.2 SHA AES128 AES256 CHACHA20 3DES kECDHE EECDH RSA aECDSA SSLv3 AES") {
		if ids, _, ok := CipherList(alias); !ok || len(ids) == 0 {
			t.Errorf("%s: %v, %v", alias, ids, ok)
		}
	}
}

func TestEveryCipherOfTheLibraryHasItsName(t *testing.T) {
	for _, c := range ciphers {
		if c.id != none && tls.CipherSuiteName(c.id) != c.standard && tls.CipherSuiteName(c.id)+"_SHA256" != c.standard {
			t.Errorf("%s is %s there and %s here", c.name, tls.CipherSuiteName(c.id), c.standard)
		}
	}
	for id, want := range map[uint16]string{tls.TLS_AES_128_GCM_SHA256: "TLS_AES_128_GCM_SHA256", tls.TLS_RSA_WITH_AES_128_CBC_SHA: "AES128-SHA"} {
		if got := Cipher(id); got != want {
			t.Errorf("cipher %d is %s, want %s", id, got, want)
		}
	}
	for id, want := range map[uint16]string{tls.VersionTLS10: "TLSv1", tls.VersionTLS12: "TLSv1.2", tls.VersionTLS13: "TLSv1.3"} {
		if got := Version(id); got != want {
			t.Errorf("version %d is %s, want %s", id, got, want)
		}
	}
	if got := Curve(uint16(tls.CurveP256)); got != "P-256" {
		t.Errorf("curve is %s", got)
	}
	if got := Signature(uint16(tls.PSSWithSHA256)); got != "rsa_pss_rsae_sha256" {
		t.Errorf("signature is %s", got)
	}
}

func FuzzCipherList(f *testing.F) {
	for _, s := range []string{DefaultCiphers, "ALL:!aRSA", "[A|B]", "DEFAULT:+AES", "[[", "+:-:!", "a+b+"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, rules string) {
		ids, _, ok := CipherList(rules)
		if ok != (ids != nil) {
			t.Errorf("%q: %v, %v", rules, ids, ok)
		}
	})
}
