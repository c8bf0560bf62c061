package resource

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	networkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	sslv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/ssl/v3"
	ipv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/input_matchers/ip/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/api"
)

// matching decodes an xds.type.matcher.v3.Matcher. Where it stands decides what
// an action is: action reads its configuration, and prefix comes before Envoy's
// words for a mistake.
type matching struct {
	*walker
	prefix string
	action func(path string, c *xdscorev3.TypedExtensionConfig) (string, error)
	// admits, if it is set, says what is wrong with an input in this place.
	admits func(c *xdscorev3.TypedExtensionConfig, in api.MatchInput) error
}

// chainMatcher decodes a filter_chain_matcher: its actions name filter chains.
func (w *walker) chainMatcher(path string, p *xdsmatcherv3.Matcher) *api.Matcher {
	m := matching{walker: w, prefix: "cannot create a filter chain matcher: ", action: chainName}
	return m.matcher(path, p)
}

func chainName(_ string, c *xdscorev3.TypedExtensionConfig) (string, error) {
	m, _, _, err := open(c.GetTypedConfig())
	if err != nil {
		return "", err
	}
	if name, ok := m.(*wrapperspb.StringValue); ok {
		return name.GetValue(), nil
	}
	return "", unregisteredExtension(c)
}

// unregisteredExtension is Envoy's word for a type that means nothing in its
// place.
func unregisteredExtension(c *xdscorev3.TypedExtensionConfig) error {
	return fmt.Errorf("Didn't find a registered implementation for '%s' with type URL: '%s'", short(c.GetName()), short(innerURL(c.GetTypedConfig())))
}

func (m *matching) fail(path string, err error) {
	m.walker.fail(path, fmt.Errorf("%s%w", m.prefix, err))
}

func (m *matching) matcher(path string, p *xdsmatcherv3.Matcher) *api.Matcher {
	out := &api.Matcher{}
	for i, f := range p.GetMatcherList().GetMatchers() {
		at := fmt.Sprintf("%s.matcher_list.matchers[%d]", path, i)
		out.List = append(out.List, api.FieldMatcher{
			Predicate: m.predicate(at+".predicate", f.GetPredicate()),
			OnMatch:   *m.onMatch(at+".on_match", f.GetOnMatch()),
		})
	}
	if t := p.GetMatcherTree(); t != nil {
		out.Tree = m.tree(path+".matcher_tree", t)
	}
	if p.GetOnNoMatch() != nil {
		out.OnNoMatch = m.onMatch(path+".on_no_match", p.GetOnNoMatch())
	}
	return out
}

func (m *matching) onMatch(path string, p *xdsmatcherv3.Matcher_OnMatch) *api.OnMatch {
	out := &api.OnMatch{KeepMatching: p.GetKeepMatching()}
	if p.GetMatcher() != nil {
		out.Matcher = m.matcher(path+".matcher", p.GetMatcher())
		return out
	}
	var err error
	if out.Action, err = m.action(path+".action", p.GetAction()); err != nil {
		m.fail(path+".action", err)
	}
	return out
}

func (m *matching) predicate(path string, p *xdsmatcherv3.Matcher_MatcherList_Predicate) (out api.Predicate) {
	list := func(path string, l *xdsmatcherv3.Matcher_MatcherList_Predicate_PredicateList) (out []api.Predicate) {
		for i, p := range l.GetPredicate() {
			out = append(out, m.predicate(fmt.Sprintf("%s.predicate[%d]", path, i), p))
		}
		return out
	}
	switch p.GetMatchType().(type) {
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_:
		out.Single = m.single(path+".single_predicate", p.GetSinglePredicate())
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_OrMatcher:
		out.Or = list(path+".or_matcher", p.GetOrMatcher())
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_AndMatcher:
		out.And = list(path+".and_matcher", p.GetAndMatcher())
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_NotMatcher:
		inner := m.predicate(path+".not_matcher", p.GetNotMatcher())
		out.Not = &inner
	}
	return out
}

func (m *matching) single(path string, p *xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate) *api.SinglePredicate {
	out := &api.SinglePredicate{Input: m.input(path+".input", p.GetInput())}
	if v := p.GetValueMatch(); v != nil {
		out.Value = m.text(path+".value_match", v)
		return out
	}
	path += ".custom_match"
	c := p.GetCustomMatch()
	switch in, name, _, err := open(c.GetTypedConfig()); v := in.(type) {
	case *ipv3.Ip:
		out.Prefixes = []netip.Prefix{}
		for i, r := range v.GetCidrRanges() {
			m.addRange(&out.Prefixes, fmt.Sprintf("%s ip.cidr_ranges[%d]", path, i), cidr{r.GetAddressPrefix(), r.GetPrefixLen().GetValue()})
		}
	default:
		m.unfit(path, c, name, err)
	}
	return out
}

// inputMatchers are Envoy's that are not built.
var inputMatchers = []string{
	"envoy.extensions.matching.input_matchers.consistent_hashing.v3.ConsistentHashing",
	"envoy.extensions.matching.input_matchers.runtime_fraction.v3.RuntimeFraction",
	"envoy.extensions.matching.input_matchers.metadata.v3.Metadata",
	"envoy.extensions.matching.input_matchers.dynamic_modules.v3.DynamicModuleMatcher",
	"xds.type.matcher.v3.CelMatcher",
}

// unfit refuses an extension: one that Envoy has in its place by name, another
// in Envoy's words.
func (m *matching) unfit(path string, c *xdscorev3.TypedExtensionConfig, name string, err error) {
	switch {
	case err != nil:
		m.fail(path, err)
	case slices.Contains(inputMatchers, name):
		m.walker.fail(path, fmt.Errorf("not supported yet (%s)", name))
	default:
		m.fail(path, unregisteredExtension(c))
	}
}

func (m *matching) text(path string, p *xdsmatcherv3.StringMatcher) *api.StringMatch {
	out := &api.StringMatch{IgnoreCase: p.GetIgnoreCase()}
	switch v := p.GetMatchPattern().(type) {
	case *xdsmatcherv3.StringMatcher_Exact:
		out.Kind, out.Value = api.MatchExact, v.Exact
	case *xdsmatcherv3.StringMatcher_Prefix:
		out.Kind, out.Value = api.MatchPrefix, v.Prefix
	case *xdsmatcherv3.StringMatcher_Suffix:
		out.Kind, out.Value = api.MatchSuffix, v.Suffix
	case *xdsmatcherv3.StringMatcher_Contains:
		out.Kind, out.Value = api.MatchContains, v.Contains
	case *xdsmatcherv3.StringMatcher_SafeRegex:
		out.Kind, out.Value = api.MatchRegex, v.SafeRegex.GetRegex()
		if _, err := regexp.Compile(out.Value); err != nil {
			m.fail(path+".safe_regex.regex", re2(err))
		}
	default:
		m.walker.fail(path, errors.New("not supported yet (custom)"))
	}
	return out
}

// re2 tells a mistake in a regular expression in RE2's words: `missing ): (a`.
func re2(err error) error {
	var e *syntax.Error
	if !errors.As(err, &e) {
		return err
	}
	code := strings.NewReplacer("missing closing ", "missing ", "missing argument to repetition operator", "no argument for repetition operator").Replace(e.Code.String())
	return fmt.Errorf("%s: %s", code, short(e.Expr))
}

func (m *matching) input(path string, c *xdscorev3.TypedExtensionConfig) (out api.MatchInput) {
	in, name, _, err := open(c.GetTypedConfig())
	switch v := in.(type) {
	case *networkv3.DestinationIPInput:
		out.Kind = api.InputDestinationIP
	case *networkv3.DestinationPortInput:
		out.Kind = api.InputDestinationPort
	case *networkv3.SourceIPInput:
		out.Kind = api.InputSourceIP
	case *networkv3.SourcePortInput:
		out.Kind = api.InputSourcePort
	case *networkv3.DirectSourceIPInput:
		out.Kind = api.InputDirectSourceIP
	case *networkv3.SourceTypeInput:
		out.Kind = api.InputSourceType
	case *networkv3.ServerNameInput:
		out.Kind = api.InputServerName
	case *networkv3.TransportProtocolInput:
		out.Kind = api.InputTransportProtocol
	case *networkv3.ApplicationProtocolInput:
		out.Kind = api.InputApplicationProtocol
	case *networkv3.FilterStateInput:
		out = api.MatchInput{Kind: api.InputFilterState, Key: v.GetKey(), Field: v.GetField()}
	case *networkv3.NetworkNamespaceInput:
		out.Kind = api.InputNetworkNamespace
	case *sslv3.UriSanInput:
		out.Kind = api.InputURISAN
	case *sslv3.DnsSanInput:
		out.Kind = api.InputDNSSAN
	case *sslv3.SubjectInput:
		out.Kind = api.InputSubject
	default:
		m.unfit(path, c, name, err)
		return out
	}
	if m.admits != nil {
		if err := m.admits(c, out); err != nil {
			m.fail(path, err)
		}
	}
	return out
}

func (m *matching) tree(path string, p *xdsmatcherv3.Matcher_MatcherTree) *api.MatcherTree {
	out := &api.MatcherTree{Input: m.input(path+".input", p.GetInput())}
	switch p.GetTreeType().(type) {
	case *xdsmatcherv3.Matcher_MatcherTree_ExactMatchMap:
		out.Exact = m.matchMap(path+".exact_match_map", p.GetExactMatchMap())
	case *xdsmatcherv3.Matcher_MatcherTree_PrefixMatchMap:
		out.Prefix = m.matchMap(path+".prefix_match_map", p.GetPrefixMatchMap())
	case *xdsmatcherv3.Matcher_MatcherTree_CustomMatch:
		m.custom(path+".custom_match", p.GetCustomMatch(), out)
	}
	return out
}

func (m *matching) matchMap(path string, p *xdsmatcherv3.Matcher_MatcherTree_MatchMap) map[string]*api.OnMatch {
	keys := make([]string, 0, len(p.GetMap()))
	for k := range p.GetMap() {
		keys = append(keys, k)
	}
	slices.Sort(keys) // so that errors come in one order
	out := make(map[string]*api.OnMatch, len(keys))
	for _, k := range keys {
		out[k] = m.onMatch(fmt.Sprintf("%s.map[%s]", path, short(k)), p.GetMap()[k])
	}
	return out
}

func (m *matching) custom(path string, c *xdscorev3.TypedExtensionConfig, out *api.MatcherTree) {
	in, name, _, err := open(c.GetTypedConfig())
	switch v := in.(type) {
	case *xdsmatcherv3.IPMatcher:
		out.Ranges = []api.RangeMatcher{}
		for i, r := range v.GetRangeMatchers() {
			at := fmt.Sprintf("%s ip_matcher.range_matchers[%d]", path, i)
			one := api.RangeMatcher{OnMatch: *m.onMatch(at+".on_match", r.GetOnMatch()), Exclusive: r.GetExclusive()}
			for j, r := range r.GetRanges() {
				m.addRange(&one.Prefixes, fmt.Sprintf("%s.ranges[%d]", at, j), cidr{r.GetAddressPrefix(), r.GetPrefixLen().GetValue()})
			}
			out.Ranges = append(out.Ranges, one)
		}
	case *xdsmatcherv3.ServerNameMatcher:
		m.domains(path+" server_name_matcher", v, out)
	default:
		m.unfit(path, c, name, err)
	}
}

func (m *matching) addRange(to *[]netip.Prefix, path string, c cidr) {
	w := walker{}
	p, ok := w.prefix(path, c)
	if !ok {
		m.fail(path+".address_prefix", fmt.Errorf("malformed IP address: %s", short(c.address)))
		return
	}
	*to = append(*to, p)
}

func (m *matching) domains(path string, p *xdsmatcherv3.ServerNameMatcher, out *api.MatcherTree) {
	out.Domains = []api.DomainMatcher{}
	seen := map[string]bool{}
	for i, d := range p.GetDomainMatchers() {
		at := fmt.Sprintf("%s.domain_matchers[%d]", path, i)
		one := api.DomainMatcher{OnMatch: *m.onMatch(at+".on_match", d.GetOnMatch())}
		for j, name := range d.GetDomains() {
			place := fmt.Sprintf("%s.domains[%d]", at, j)
			name = asciiLower(name)
			switch {
			case !wholeWildcard(name):
				m.fail(place, fmt.Errorf("Invalid wildcard domain format: %s. Only '*' and '*.domain' patterns are supported", short(name)))
			case seen[name]:
				m.fail(place, fmt.Errorf("Duplicate domain in ServerNameMatcher: %s", short(name)))
			}
			seen[name] = true
			one.Domains = append(one.Domains, name)
		}
		out.Domains = append(out.Domains, one)
	}
}

// wholeWildcard says whether an asterisk stands only where it may: alone, or
// for the first labels.
func wholeWildcard(name string) bool {
	if name == "*" {
		return true
	}
	rest, wild := name, false
	if len(name) > 2 && name[:2] == "*." {
		rest, wild = name[2:], true
	}
	for i := range len(rest) {
		if rest[i] == '*' {
			return false
		}
	}
	return !wild || rest != ""
}
