package resource

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/sluice-proxy/sluice/api"
)

// stringMatch decodes an envoy.type.matcher.v3.StringMatcher.
func (w *walker) stringMatch(path string, p *matcherv3.StringMatcher) *api.StringMatch {
	out := &api.StringMatch{IgnoreCase: p.GetIgnoreCase()}
	switch v := p.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		out.Kind, out.Value = api.MatchExact, v.Exact
	case *matcherv3.StringMatcher_Prefix:
		out.Kind, out.Value = api.MatchPrefix, v.Prefix
	case *matcherv3.StringMatcher_Suffix:
		out.Kind, out.Value = api.MatchSuffix, v.Suffix
	case *matcherv3.StringMatcher_Contains:
		out.Kind, out.Value = api.MatchContains, v.Contains
	case *matcherv3.StringMatcher_SafeRegex:
		out.Kind, out.Value = api.MatchRegex, v.SafeRegex.GetRegex()
		if out.IgnoreCase {
			w.fail(path+".ignore_case", errors.New("ignore_case has no effect for safe_regex."))
		}
		if _, err := regexp.Compile(out.Value); err != nil {
			w.fail(path+".safe_regex.regex", re2(err))
		}
	default:
		w.fail(path, errors.New("not supported yet (custom)"))
	}
	return out
}

// rbacRange decodes a CidrRange of RBAC.
func (w *walker) rbacRange(path string, p *corev3.CidrRange) *netip.Prefix {
	inner := walker{}
	r, ok := inner.prefix("", cidr{p.GetAddressPrefix(), p.GetPrefixLen().GetValue()})
	if !ok {
		w.fail(path+".address_prefix", fmt.Errorf("Failed to create CIDR range: malformed IP address: %s", short(p.GetAddressPrefix())))
	}
	return &r
}

// sourcedMetadata: a connection has no route, so that nothing of a route's
// metadata ever matches, inverted or not.
func (w *walker) sourcedMetadata(path string, p *rbacconfigv3.SourcedMetadata) api.RBACRule {
	m := w.metadataMatch(path+".sourced_metadata.metadata_matcher", p.GetMetadataMatcher())
	if p.GetMetadataSource() == rbacconfigv3.MetadataSource_ROUTE {
		return constRule(false)
	}
	return api.RBACRule{Metadata: m}
}

func (w *walker) metadataMatch(path string, p *matcherv3.MetadataMatcher) *api.MetadataMatch {
	out := &api.MetadataMatch{Filter: p.GetFilter(), Invert: p.GetInvert()}
	for _, s := range p.GetPath() {
		out.Path = append(out.Path, s.GetKey())
	}
	out.Value = w.valueMatch(path+".value", p.GetValue())
	return out
}

func (w *walker) valueMatch(path string, p *matcherv3.ValueMatcher) (out api.ValueMatch) {
	switch v := p.GetMatchPattern().(type) {
	case *matcherv3.ValueMatcher_NullMatch_:
		out.Null = true
	case *matcherv3.ValueMatcher_DoubleMatch:
		out.Number = &api.NumberMatch{Start: v.DoubleMatch.GetRange().GetStart(), End: v.DoubleMatch.GetRange().GetEnd()}
		if e, ok := v.DoubleMatch.GetMatchPattern().(*matcherv3.DoubleMatcher_Exact); ok {
			out.Number = &api.NumberMatch{Exact: true, Start: e.Exact}
		}
	case *matcherv3.ValueMatcher_StringMatch:
		out.String = w.stringMatch(path+".string_match", v.StringMatch)
	case *matcherv3.ValueMatcher_BoolMatch:
		out.Bool = &v.BoolMatch
	case *matcherv3.ValueMatcher_PresentMatch:
		out.Present = &v.PresentMatch
	case *matcherv3.ValueMatcher_ListMatch:
		inner := w.valueMatch(path+".list_match.one_of", v.ListMatch.GetOneOf())
		out.OneOf = &inner
	case *matcherv3.ValueMatcher_OrMatch:
		for i, one := range v.OrMatch.GetValueMatchers() {
			out.Or = append(out.Or, w.valueMatch(fmt.Sprintf("%s.or_match.value_matchers[%d]", path, i), one))
		}
	default:
		w.fail(path, errors.New("not supported yet"))
	}
	return out
}

func (w *walker) filterStateMatch(path string, p *matcherv3.FilterStateMatcher) *api.FilterStateMatch {
	out := &api.FilterStateMatch{Key: p.GetKey()}
	switch v := p.GetMatcher().(type) {
	case *matcherv3.FilterStateMatcher_StringMatch:
		out.Value = w.stringMatch(path+".string_match", v.StringMatch)
	case *matcherv3.FilterStateMatcher_AddressMatch:
		out.Invert, out.Ranges = v.AddressMatch.GetInvertMatch(), []netip.Prefix{}
		for i, r := range v.AddressMatch.GetRanges() {
			inner := walker{}
			one, ok := inner.prefix("", cidr{r.GetAddressPrefix(), r.GetPrefixLen().GetValue()})
			if !ok {
				w.fail(fmt.Sprintf("%s.address_match.ranges[%d].address_prefix", path, i), fmt.Errorf("invalid ip/mask combo '%s/%d' (format is <ip>/<# mask bits>)", short(r.GetAddressPrefix()), r.GetPrefixLen().GetValue()))
				continue
			}
			out.Ranges = append(out.Ranges, one)
		}
	default:
		w.fail(path, errors.New("not supported yet"))
	}
	return out
}
