package tlsname

import (
	"crypto/tls"
	"slices"
	"strings"
)

// cipher is a cipher suite of TLS up to 1.2, with what BoringSSL's rules select it
// by.
type cipher struct {
	name, standard string
	id             uint16
	tags           string // of aliases, between spaces
}

// none is the number of a suite that BoringSSL has and the library has not: those
// of pre-shared keys, which no configuration of Envoy's can use.
const none = 0

// ciphers in BoringSSL's order of preference.
var ciphers = []cipher{
	{"ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, ecdheECDSA + "AES AES128 AESGCM TLSv1.2 "},
	{"ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, ecdheRSA + "AES AES128 AESGCM TLSv1.2 "},
	{"ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, ecdheECDSA + "AES AES256 AESGCM TLSv1.2 "},
	{"ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, ecdheRSA + "AES AES256 AESGCM TLSv1.2 "},
	{"ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, ecdheECDSA + "CHACHA20 TLSv1.2 "},
	{"ECDHE-RSA-CHACHA20-POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, ecdheRSA + "CHACHA20 TLSv1.2 "},
	{"ECDHE-PSK-CHACHA20-POLY1305", "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256", none, ecdhePSK + "CHACHA20 TLSv1.2 "},
	{"ECDHE-ECDSA-AES128-SHA", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, ecdheECDSA + "AES AES128 " + old},
	{"ECDHE-RSA-AES128-SHA", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, ecdheRSA + "AES AES128 " + old},
	{"ECDHE-ECDSA-AES128-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, ecdheECDSA + "AES AES128 TLSv1.2 "},
	{"ECDHE-RSA-AES128-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256, ecdheRSA + "AES AES128 TLSv1.2 "},
	{"ECDHE-PSK-AES128-CBC-SHA", "TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA", none, ecdhePSK + "AES AES128 " + old},
	{"ECDHE-ECDSA-AES256-SHA", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, ecdheECDSA + "AES AES256 " + old},
	{"ECDHE-RSA-AES256-SHA", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, ecdheRSA + "AES AES256 " + old},
	{"ECDHE-PSK-AES256-CBC-SHA", "TLS_ECDHE_PSK_WITH_AES_256_CBC_SHA", none, ecdhePSK + "AES AES256 " + old},
	{"AES128-GCM-SHA256", "TLS_RSA_WITH_AES_128_GCM_SHA256", tls.TLS_RSA_WITH_AES_128_GCM_SHA256, plainRSA + "AES AES128 AESGCM TLSv1.2 "},
	{"AES256-GCM-SHA384", "TLS_RSA_WITH_AES_256_GCM_SHA384", tls.TLS_RSA_WITH_AES_256_GCM_SHA384, plainRSA + "AES AES256 AESGCM TLSv1.2 "},
	{"AES128-SHA", "TLS_RSA_WITH_AES_128_CBC_SHA", tls.TLS_RSA_WITH_AES_128_CBC_SHA, plainRSA + "AES AES128 " + old},
	{"PSK-AES128-CBC-SHA", "TLS_PSK_WITH_AES_128_CBC_SHA", none, plainPSK + "AES AES128 " + old},
	{"AES256-SHA", "TLS_RSA_WITH_AES_256_CBC_SHA", tls.TLS_RSA_WITH_AES_256_CBC_SHA, plainRSA + "AES AES256 " + old},
	{"PSK-AES256-CBC-SHA", "TLS_PSK_WITH_AES_256_CBC_SHA", none, plainPSK + "AES AES256 " + old},
	{"DES-CBC3-SHA", "TLS_RSA_WITH_3DES_EDE_CBC_SHA", tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, plainRSA + "3DES " + old},
}

const (
	every      = " ALL HIGH FIPS "
	ecdheECDSA = every + "kECDHE kEECDH ECDH ECDHE EECDH aECDSA ECDSA "
	ecdheRSA   = every + "kECDHE kEECDH ECDH ECDHE EECDH aRSA "
	ecdhePSK   = every + "kECDHE kEECDH ECDH ECDHE EECDH aPSK PSK "
	plainRSA   = every + "kRSA aRSA RSA "
	plainPSK   = every + "kPSK aPSK PSK "
	old        = "SHA SHA1 SSLv3 TLSv1 "
)

// DefaultCiphers are Envoy's, of servers and of clients.
const DefaultCiphers = "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]:[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]:" +
	"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"

// CipherList reads BoringSSL's rules (SSL_CTX_set_strict_cipher_list): names and
// aliases, joined by + where all are to hold, with - and ! to take away, + to put
// last, and brackets around equals. The result is not nil if it is good. If it is
// not, rejected are the names that are unknown by themselves.
func CipherList(rules string) (ids []uint16, rejected []string, ok bool) {
	chosen, ok := apply(rules)
	if !ok {
		for _, name := range strings.FieldsFunc(rules, func(r rune) bool { return strings.ContainsRune(":+![|]", r) }) {
			name = strings.TrimPrefix(name, "-")
			if _, fine := apply(name); !fine {
				rejected = append(rejected, name)
			}
		}
		return nil, rejected, false
	}
	ids = []uint16{}
	for _, c := range chosen {
		if c.id != none {
			ids = append(ids, c.id)
		}
	}
	return ids, nil, true
}

func apply(rules string) (chosen []cipher, ok bool) {
	banned := map[string]bool{}
	if rest, is := strings.CutPrefix(rules, "DEFAULT"); is {
		chosen, rules = slices.Clone(ciphers), strings.TrimPrefix(rest, ":")
	}
	open := false
	for len(rules) > 0 {
		end := strings.IndexAny(rules, ":|]")
		word, sep := rules, byte(0)
		if end >= 0 {
			word, sep, rules = rules[:end], rules[end], rules[end+1:]
		} else {
			rules = ""
		}
		if rest, is := strings.CutPrefix(word, "["); is {
			if open {
				return nil, false
			}
			open, word = true, rest
		}
		op := byte(0)
		if word != "" && strings.IndexByte("-+!", word[0]) >= 0 {
			if op, word = word[0], word[1:]; open {
				return nil, false
			}
		}
		if word == "" && sep != 0 && op == 0 {
			open = open && sep != ']'
			continue
		}
		some, known := named(word)
		if !known || sep == '|' && !open || sep == ']' && !open {
			return nil, false
		}
		chosen = change(chosen, some, op, banned)
		open = open && sep != ']'
	}
	return chosen, !open && len(chosen) > 0
}

func change(chosen, some []cipher, op byte, banned map[string]bool) []cipher {
	in := func(list []cipher, c cipher) bool {
		return slices.ContainsFunc(list, func(o cipher) bool { return o.name == c.name })
	}
	switch op {
	case 0:
		for _, c := range some {
			if !banned[c.name] && !in(chosen, c) {
				chosen = append(chosen, c)
			}
		}
		return chosen
	case '+':
		var last []cipher
		for _, c := range chosen {
			if in(some, c) {
				last = append(last, c)
			}
		}
		return append(slices.DeleteFunc(chosen, func(c cipher) bool { return in(some, c) }), last...)
	}
	for _, c := range some {
		banned[c.name] = banned[c.name] || op == '!'
	}
	return slices.DeleteFunc(chosen, func(c cipher) bool { return in(some, c) })
}

// named are the suites that a name, an alias, or several joined by + stand for.
func named(word string) (some []cipher, known bool) {
	for i, part := range strings.Split(word, "+") {
		fit := slices.DeleteFunc(slices.Clone(ciphers), func(c cipher) bool {
			return c.name != part && c.standard != part && !strings.Contains(c.tags, " "+part+" ")
		})
		if len(fit) == 0 || part == "" {
			return nil, false
		}
		if i == 0 {
			some = fit
			continue
		}
		some = slices.DeleteFunc(some, func(c cipher) bool {
			return !slices.ContainsFunc(fit, func(o cipher) bool { return o.name == c.name })
		})
	}
	return some, true
}

// CipherID is the suite of a name that Cipher gives.
func CipherID(name string) (id uint16, ok bool) {
	for _, c := range ciphers {
		if c.name == name && c.id != none {
			return c.id, true
		}
	}
	for _, s := range tls.CipherSuites() {
		if s.Name == name {
			return s.ID, true
		}
	}
	return 0, false
}

// Cipher is a suite's name. Those of TLS 1.3 are called there as everywhere.
func Cipher(id uint16) string {
	for _, c := range ciphers {
		if c.id == id && id != none {
			return c.name
		}
	}
	return tls.CipherSuiteName(id)
}
