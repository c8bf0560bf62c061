package transport

import (
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// san matches one kind of subject alternative name, or all kinds.
type san struct {
	kind  tlsv3.SubjectAltNameMatcher_SanType // unspecified: all
	match func(string) bool
	exact string // set if the pattern is exact: a wildcard in a certificate's DNS name may stand for it
}

func readSAN(kind tlsv3.SubjectAltNameMatcher_SanType, m *matcherv3.StringMatcher) (san, error) {
	if kind == tlsv3.SubjectAltNameMatcher_OTHER_NAME {
		return san{}, errors.New("OTHER_NAME not supported yet")
	}
	f, err := readMatcher(m)
	if err != nil {
		return san{}, err
	}
	return san{kind: kind, match: f, exact: m.GetExact()}, nil
}

func readMatcher(m *matcherv3.StringMatcher) (func(string) bool, error) {
	fold := func(s string) string { return s }
	if m.GetIgnoreCase() {
		fold = strings.ToLower
	}
	with := func(test func(s, pattern string) bool, pattern string) (func(string) bool, error) {
		pattern = fold(pattern)
		return func(s string) bool { return test(fold(s), pattern) }, nil
	}
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return with(func(s, p string) bool { return s == p }, p.Exact)
	case *matcherv3.StringMatcher_Prefix:
		return with(strings.HasPrefix, p.Prefix)
	case *matcherv3.StringMatcher_Suffix:
		return with(strings.HasSuffix, p.Suffix)
	case *matcherv3.StringMatcher_Contains:
		return with(strings.Contains, p.Contains)
	case *matcherv3.StringMatcher_SafeRegex:
		re, err := regexp.Compile(`\A(?:` + p.SafeRegex.GetRegex() + `)\z`)
		if err != nil {
			return nil, fmt.Errorf("safe_regex: %s", err)
		}
		return re.MatchString, nil
	}
	return nil, fmt.Errorf("%T not supported yet", m.GetMatchPattern())
}

func matchesAny(sans []san, c *x509.Certificate) bool {
	for _, s := range sans {
		if s.matches(c) {
			return true
		}
	}
	return false
}

func (s san) matches(c *x509.Certificate) bool {
	wants := func(k tlsv3.SubjectAltNameMatcher_SanType) bool {
		return s.kind == k || s.kind == tlsv3.SubjectAltNameMatcher_SAN_TYPE_UNSPECIFIED
	}
	if wants(tlsv3.SubjectAltNameMatcher_DNS) {
		for _, n := range c.DNSNames {
			if s.exact != "" && dnsMatch(n, s.exact) || s.match(n) {
				return true
			}
		}
	}
	if wants(tlsv3.SubjectAltNameMatcher_URI) {
		for _, u := range c.URIs {
			if s.match(u.String()) {
				return true
			}
		}
	}
	if wants(tlsv3.SubjectAltNameMatcher_EMAIL) {
		for _, e := range c.EmailAddresses {
			if s.match(e) {
				return true
			}
		}
	}
	if wants(tlsv3.SubjectAltNameMatcher_IP_ADDRESS) {
		for _, ip := range c.IPAddresses {
			if s.match(ip.String()) {
				return true
			}
		}
	}
	return false
}

// dnsMatch is Envoy's Utility::dnsNameMatch: a name of a certificate may begin
// with a wildcard for one label, whole or in part.
func dnsMatch(pattern, name string) bool {
	pattern, name = strings.ToLower(pattern), strings.ToLower(name)
	if pattern == name {
		return true
	}
	star, rest, ok := strings.Cut(pattern, ".")
	label, tail, ok2 := strings.Cut(name, ".")
	before, after, wild := strings.Cut(star, "*")
	if !ok || !ok2 || !wild || rest != tail || strings.Contains(rest, "*") || strings.Contains(after, "*") || strings.HasPrefix(star, "xn--") {
		return false
	}
	return len(label) >= len(before)+len(after) && strings.HasPrefix(label, before) && strings.HasSuffix(label, after)
}
