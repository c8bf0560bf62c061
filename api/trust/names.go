package trust

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/sluice-proxy/sluice/api"
)

// name matches one kind of subject alternative name, or all kinds.
type name struct {
	kind  api.SANType
	oid   asn1.ObjectIdentifier // of SANOtherName
	match func(string) bool
	exact string // set if the pattern is exact: a wildcard in a certificate's DNS name may stand for it
}

func readNames(all []api.SubjectAltName) (out []name, err error) {
	for i, s := range all {
		n := name{kind: s.Type}
		if s.Match.Kind == api.MatchExact {
			n.exact = s.Match.Value
		}
		if n.match, err = matcher(s.Match); err != nil {
			return nil, fmt.Errorf("match_typed_subject_alt_names[%d].matcher.safe_regex.regex: %w", i, err)
		}
		if s.Type == api.SANOtherName {
			if n.oid = objectIdentifier(s.OID); n.oid == nil {
				return nil, fmt.Errorf("match_typed_subject_alt_names[%d].oid: Failed to create SAN matcher for OTHER_NAME with OID: %s", i, s.OID)
			}
		}
		out = append(out, n)
	}
	return out, nil
}

func matcher(m api.StringMatch) (func(string) bool, error) {
	fold := func(s string) string { return s }
	if m.IgnoreCase {
		fold = strings.ToLower
	}
	want := fold(m.Value)
	switch m.Kind {
	case api.MatchPrefix:
		return func(s string) bool { return strings.HasPrefix(fold(s), want) }, nil
	case api.MatchSuffix:
		return func(s string) bool { return strings.HasSuffix(fold(s), want) }, nil
	case api.MatchContains:
		return func(s string) bool { return strings.Contains(fold(s), want) }, nil
	case api.MatchRegex:
		re, err := regexp.Compile(`\A(?:` + m.Value + `)\z`)
		if err != nil {
			return nil, err
		}
		return re.MatchString, nil
	}
	return func(s string) bool { return fold(s) == want }, nil
}

func matchesAny(names []name, c *x509.Certificate) bool {
	all := general(c)
	for _, n := range names {
		for _, g := range all {
			if n.matches(g) {
				return true
			}
		}
	}
	return false
}

func (n name) matches(g generalName) bool {
	if n.kind != api.SANAny && n.kind != g.kind || n.kind == api.SANOtherName && !n.oid.Equal(g.oid) {
		return false
	}
	if g.kind == api.SANDNS && n.exact != "" {
		return DNSMatch(g.text, n.exact)
	}
	return n.match(g.text)
}

// generalName is one of a certificate's subject alternative names, as text.
type generalName struct {
	kind api.SANType
	oid  asn1.ObjectIdentifier
	text string
}

// general lists them in the certificate's order, which the library does not keep,
// and with those of kind otherName, which it does not read.
func general(c *x509.Certificate) (all []generalName) {
	for _, e := range c.Extensions {
		if !e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		seq := asn1.RawValue{}
		if rest, err := asn1.Unmarshal(e.Value, &seq); err != nil || len(rest) > 0 || !seq.IsCompound || seq.Tag != asn1.TagSequence {
			return all
		}
		for b := seq.Bytes; len(b) > 0; {
			v := asn1.RawValue{}
			rest, err := asn1.Unmarshal(b, &v)
			if err != nil {
				return all
			}
			b = rest
			if g, ok := readGeneral(v); ok {
				all = append(all, g)
			}
		}
	}
	return all
}

// The tags of GeneralName (RFC 5280, 4.2.1.6).
const (
	tagOther = 0
	tagEmail = 1
	tagDNS   = 2
	tagURI   = 6
	tagIP    = 7
)

func readGeneral(v asn1.RawValue) (generalName, bool) {
	switch v.Tag {
	case tagEmail:
		return generalName{kind: api.SANEmail, text: string(v.Bytes)}, true
	case tagDNS:
		return generalName{kind: api.SANDNS, text: string(v.Bytes)}, true
	case tagURI:
		return generalName{kind: api.SANURI, text: string(v.Bytes)}, true
	case tagIP:
		a, ok := netip.AddrFromSlice(v.Bytes)
		return generalName{kind: api.SANIPAddress, text: a.String()}, ok
	case tagOther:
		g := generalName{kind: api.SANOtherName}
		rest, err := asn1.Unmarshal(v.Bytes, &g.oid)
		if err != nil {
			return g, false
		}
		outer, value := asn1.RawValue{}, asn1.RawValue{}
		if _, err := asn1.Unmarshal(rest, &outer); err != nil {
			return g, false
		}
		if _, err := asn1.Unmarshal(outer.Bytes, &value); err != nil {
			return g, false
		}
		g.text = string(value.Bytes)
		return g, true
	}
	return generalName{}, false
}

// alternatives are all names as text.
func alternatives(c *x509.Certificate) (all []string) {
	for _, g := range general(c) {
		all = append(all, g.text)
	}
	return all
}

func objectIdentifier(s string) (id asn1.ObjectIdentifier) {
	parts := strings.Split(s, ".")
	if len(parts) < 2 {
		return nil
	}
	for _, p := range parts {
		n, err := strconv.ParseUint(p, 10, 31)
		if err != nil {
			return nil
		}
		id = append(id, int(n))
	}
	return id
}

// DNSMatch is Envoy's Utility::dnsNameMatch: a name of a certificate may begin
// with a wildcard for one label, whole or in part.
func DNSMatch(pattern, name string) bool {
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
