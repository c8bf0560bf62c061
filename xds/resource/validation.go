package resource

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/trust"
)

const spiffeValidator = "envoy.tls.cert_validator.spiffe"

// Validation reads a CertificateValidationContext that passed its constraints, with
// its files. partial says that it is only a part of one.
func Validation(path string, p *tlsv3.CertificateValidationContext, partial bool) (*api.TLSValidation, error) {
	w := walker{policies: table()}
	v := w.validation(path, p, partial)
	return v, w.err()
}

// validation reads one; the fields were walked.
func (w *walker) validation(path string, p *tlsv3.CertificateValidationContext, partial bool) *api.TLSValidation {
	v := &api.TLSValidation{
		SystemRoots:     p.GetSystemRootCerts() != nil,
		AllowExpired:    p.GetAllowExpiredCertificate(),
		AcceptUntrusted: p.GetTrustChainVerification() == tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED,
		LeafCRLOnly:     p.GetOnlyVerifyLeafCertCrl(),
		NoCAList:        p.GetSuppressClientCaList(),
	}
	before := len(w.errs)
	if d := p.GetMaxVerifyDepth(); d != nil {
		n := d.GetValue()
		v.MaxDepth = &n
	}
	if ca := p.GetTrustedCa(); ca != nil {
		s, err := dataSource(ca)
		if err == nil && s == "" {
			err = errors.New("DataSource cannot be empty")
		}
		if err != nil {
			w.fail(path+".trusted_ca", err)
		}
		v.TrustedCA, v.CAPath = []byte(s), pathOf(ca)
	}
	if p.GetCrl() != nil {
		s, err := dataSource(p.GetCrl())
		if err != nil {
			w.fail(path+".crl", err)
		}
		v.Revoked, v.CRLPath = []byte(s), pathOf(p.GetCrl())
	}
	w.hashes(path, p, v)
	w.altNames(path, p, v)
	if p.GetCustomValidatorConfig() != nil {
		v.SPIFFE = w.spiffe(path+".custom_validator_config", p)
	}
	if len(w.errs) > before {
		return nil
	}
	check := *v
	if partial { // what it lacks may come with the rest
		if len(v.TrustedCA) == 0 {
			check.Names, check.AllowExpired, check.Revoked = nil, false, nil
		}
	}
	if _, err := trust.New(&check); err != nil {
		w.fail("", fmt.Errorf("%s.%w", path, err)) // it begins with the field
		return nil
	}
	return v
}

func (w *walker) hashes(path string, p *tlsv3.CertificateValidationContext, v *api.TLSValidation) {
	for i, s := range p.GetVerifyCertificateHash() {
		b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
		if err != nil || len(b) != sha256.Size {
			w.fail(fmt.Sprintf("%s.verify_certificate_hash[%d]", path, i), fmt.Errorf("Invalid hex-encoded SHA-256 %s", short(s)))
		}
		v.Hashes = append(v.Hashes, b)
	}
	for i, s := range p.GetVerifyCertificateSpki() {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil || len(b) != sha256.Size {
			w.fail(fmt.Sprintf("%s.verify_certificate_spki[%d]", path, i), fmt.Errorf("Invalid base64-encoded SHA-256 %s", short(s)))
		}
		v.Keys = append(v.Keys, b)
	}
}

func (w *walker) altNames(path string, p *tlsv3.CertificateValidationContext, v *api.TLSValidation) {
	for i, m := range p.GetMatchTypedSubjectAltNames() {
		at := fmt.Sprintf("%s.match_typed_subject_alt_names[%d]", path, i)
		n := api.SubjectAltName{Type: api.SANType(m.GetSanType()), Match: w.altName(at+".matcher", m.GetMatcher())} // the same numbers
		if n.Type == api.SANOtherName {
			n.OID = m.GetOid()
		}
		v.Names = append(v.Names, n)
	}
	// Envoy reads the older list only if the newer one is empty.
	if len(v.Names) > 0 {
		return
	}
	for i, m := range p.GetMatchSubjectAltNames() {
		at := fmt.Sprintf("%s.match_subject_alt_names[%d]", path, i)
		v.Names = append(v.Names, api.SubjectAltName{Match: w.altName(at, m)})
	}
}

func (w *walker) altName(path string, m *matcherv3.StringMatcher) api.StringMatch {
	s := api.StringMatch{IgnoreCase: m.GetIgnoreCase()}
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		s.Value = p.Exact
	case *matcherv3.StringMatcher_Prefix:
		s.Kind, s.Value = api.MatchPrefix, p.Prefix
	case *matcherv3.StringMatcher_Suffix:
		s.Kind, s.Value = api.MatchSuffix, p.Suffix
	case *matcherv3.StringMatcher_Contains:
		s.Kind, s.Value = api.MatchContains, p.Contains
	case *matcherv3.StringMatcher_SafeRegex:
		s.Kind, s.Value = api.MatchRegex, p.SafeRegex.GetRegex()
		if _, err := regexp.Compile(`\A(?:` + s.Value + `)\z`); err != nil {
			w.fail(path+".safe_regex.regex", fmt.Errorf("%s (%s)", strings.TrimPrefix(err.Error(), "error parsing regexp: "), short(s.Value)))
		}
	default:
		w.fail(path, fmt.Errorf("not supported yet (%T)", p))
	}
	return s
}

func (w *walker) spiffe(path string, p *tlsv3.CertificateValidationContext) *api.SPIFFE {
	c := p.GetCustomValidatorConfig()
	m, _, _, err := open(c.GetTypedConfig())
	if err != nil {
		w.fail(path, err)
		return nil
	}
	s, ok := m.(*tlsv3.SPIFFECertValidatorConfig)
	if !ok || c.GetName() != spiffeValidator { // Envoy finds it by name
		w.fail(path, fmt.Errorf("Failed to get certificate validator factory for %s", short(c.GetName())))
		return nil
	}
	w.message(anyPath(path, string(s.ProtoReflect().Descriptor().FullName())), s.ProtoReflect())
	out := &api.SPIFFE{}
	for i, d := range s.GetTrustDomains() {
		at := fmt.Sprintf("%s.trust_domains[%d].trust_bundle", path, i)
		b, err := optional(d.GetTrustBundle())
		if err != nil {
			w.fail(at, err)
			continue
		}
		if b == "" {
			w.fail(at, fmt.Errorf("Failed to load trusted CA certificate for %s", short(d.GetName())))
		}
		out.Domains = append(out.Domains, api.TrustDomain{Name: d.GetName(), Bundle: []byte(b), Path: pathOf(d.GetTrustBundle())})
	}
	slices.SortStableFunc(out.Domains, func(a, b api.TrustDomain) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
