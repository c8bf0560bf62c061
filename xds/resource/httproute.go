package resource

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	healthcheckv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
)

// httpFilter reads a filter that has a policy.
func (d *httpDecoder) httpFilter(path string, m proto.Message, h *api.HTTP) {
	d.message(path, m.ProtoReflect())
	switch c := m.(type) {
	case *routerv3.Router:
		h.Quiet = c.GetSuppressEnvoyHeaders()
	case *healthcheckv3.HealthCheck:
		if c.GetCacheTime() != nil && !c.GetPassThroughMode().GetValue() {
			d.bad.fail(path+".cache_time", errors.New("cache_time_ms must not be set when path_through_mode is disabled"))
		}
		h.HealthChecks = append(h.HealthChecks, api.HTTPHealthCheck{Headers: d.headerMatches(path+".headers", c.GetHeaders())})
	}
}

// virtualHosts reads the virtual hosts, in order.
func (d *httpDecoder) virtualHosts(path string, c *routev3.RouteConfiguration, h *api.HTTP, upgrades map[string]bool) {
	seen := map[string]bool{}
	for i, p := range c.GetVirtualHosts() {
		at := fmt.Sprintf("%s.virtual_hosts[%d]", path, i)
		v := api.HTTPVirtualHost{Name: p.GetName(), Headers: d.headers(at, p)}
		for j, name := range p.GetDomains() {
			name = strings.ToLower(name)
			if seen[name] {
				cause := fmt.Errorf("Only unique values for domains are permitted. Duplicate entry of domain %s in route %s", short(name), short(c.GetName()))
				if name == "*" {
					cause = fmt.Errorf("Only a single wildcard domain is permitted in route %s", short(c.GetName()))
				}
				d.bad.fail(fmt.Sprintf("%s.domains[%d]", at, j), cause)
			}
			seen[name] = true
			v.Domains = append(v.Domains, name)
		}
		for j, r := range p.GetRoutes() {
			v.Routes = append(v.Routes, d.route(fmt.Sprintf("%s.routes[%d]", at, j), r, upgrades))
		}
		h.VirtualHosts = append(h.VirtualHosts, v)
	}
}

func (d *httpDecoder) route(path string, p *routev3.Route, upgrades map[string]bool) api.HTTPRoute {
	r := api.HTTPRoute{Match: d.routeMatch(path+".match", p.GetMatch()), Headers: d.headers(path, p)}
	switch a := p.GetAction().(type) {
	case *routev3.Route_Route:
		r.Forward = d.forward(path+".route", a.Route, upgrades)
	case *routev3.Route_Redirect:
		r.Redirect = d.redirect(path+".redirect", a.Redirect)
	case *routev3.Route_DirectResponse:
		r.Direct = &api.HTTPDirect{Code: int(a.DirectResponse.GetStatus())}
		if b := a.DirectResponse.GetBody(); b != nil {
			text, err := dataSource(b)
			switch {
			case err != nil:
				d.bad.fail(path+".direct_response.body", err)
			case len(text) > int(d.bodyMax):
				d.bad.fail(path+".direct_response.body", fmt.Errorf("response body size is %d bytes; maximum is %d", len(text), d.bodyMax))
			}
			r.Direct.Body = text
		}
	}
	return r
}

func (d *httpDecoder) routeMatch(path string, p *routev3.RouteMatch) api.HTTPMatch {
	m := api.HTTPMatch{IgnoreCase: p.GetCaseSensitive() != nil && !p.GetCaseSensitive().GetValue(), GRPC: p.GetGrpc() != nil}
	switch s := p.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		m.Path, m.Value = api.PathPrefix, s.Prefix
	case *routev3.RouteMatch_Path:
		m.Path, m.Value = api.PathExact, s.Path
	case *routev3.RouteMatch_PathSeparatedPrefix:
		m.Path, m.Value = api.PathSeparatedPrefix, s.PathSeparatedPrefix
	case *routev3.RouteMatch_SafeRegex:
		m.Path, m.Value = api.PathRegex, s.SafeRegex.GetRegex()
		d.expression(path+".safe_regex.regex", m.Value)
	}
	m.Headers = d.headerMatches(path+".headers", p.GetHeaders())
	for i, q := range p.GetQueryParameters() {
		one := api.HTTPQueryMatch{Name: q.GetName()}
		if s := q.GetStringMatch(); s != nil {
			one.Value = d.bad.stringMatch(fmt.Sprintf("%s.query_parameters[%d].string_match", path, i), s)
		}
		m.Query = append(m.Query, one)
	}
	return m
}

func (d *httpDecoder) expression(path, regex string) {
	if _, err := regexp.Compile(regex); err != nil {
		d.bad.fail(path, re2(err))
	}
}

func (d *httpDecoder) headerMatches(path string, in []*routev3.HeaderMatcher) []api.HTTPHeaderMatch {
	var out []api.HTTPHeaderMatch
	for i, p := range in {
		at := fmt.Sprintf("%s[%d]", path, i)
		m := api.HTTPHeaderMatch{Name: strings.ToLower(p.GetName()), Invert: p.GetInvertMatch(), MissingIsEmpty: p.GetTreatMissingHeaderAsEmpty()}
		text := func(kind api.StringMatchKind, v string) { m.Value = &api.StringMatch{Kind: kind, Value: v} }
		switch s := p.GetHeaderMatchSpecifier().(type) {
		case *routev3.HeaderMatcher_StringMatch:
			m.Value = d.bad.stringMatch(at+".string_match", s.StringMatch)
		case *routev3.HeaderMatcher_ExactMatch:
			text(api.MatchExact, s.ExactMatch)
		case *routev3.HeaderMatcher_PrefixMatch:
			text(api.MatchPrefix, s.PrefixMatch)
		case *routev3.HeaderMatcher_SuffixMatch:
			text(api.MatchSuffix, s.SuffixMatch)
		case *routev3.HeaderMatcher_ContainsMatch:
			text(api.MatchContains, s.ContainsMatch)
		case *routev3.HeaderMatcher_SafeRegexMatch:
			text(api.MatchRegex, s.SafeRegexMatch.GetRegex())
			d.expression(at+".safe_regex_match.regex", m.Value.Value)
		case *routev3.HeaderMatcher_RangeMatch:
			m.Range = &api.HTTPRange{Start: s.RangeMatch.GetStart(), End: s.RangeMatch.GetEnd()}
		case *routev3.HeaderMatcher_PresentMatch:
			m.Absent = !s.PresentMatch
		}
		out = append(out, m)
	}
	return out
}

func (d *httpDecoder) forward(path string, p *routev3.RouteAction, upgrades map[string]bool) *api.HTTPForward {
	f := &api.HTTPForward{
		Cluster: p.GetCluster(), NotFound: http.StatusServiceUnavailable,
		Host: p.GetHostRewriteLiteral(), AutoHost: p.GetAutoHostRewrite().GetValue(),
		Timeout: d.bad.duration(path+".timeout", p.GetTimeout(), api.DefaultRouteTimeout),
		Rewrite: d.rewrite(path, p.GetPrefixRewrite(), p.GetRegexRewrite()),
	}
	if p.GetPrefixRewrite() != "" && p.GetRegexRewrite() != nil {
		d.bad.fail(path, errors.New("Specify only one of prefix_rewrite, regex_rewrite or path_rewrite_policy"))
	}
	switch p.GetClusterNotFoundResponseCode() {
	case routev3.RouteAction_NOT_FOUND:
		f.NotFound = http.StatusNotFound
	case routev3.RouteAction_INTERNAL_SERVER_ERROR:
		f.NotFound = http.StatusInternalServerError
	}
	sum := uint64(0)
	for _, c := range p.GetWeightedClusters().GetClusters() {
		sum += uint64(c.GetWeight().GetValue())
		f.Clusters = append(f.Clusters, api.WeightedCluster{Name: c.GetName(), Weight: c.GetWeight().GetValue()})
	}
	if p.GetWeightedClusters() != nil && sum == 0 {
		d.bad.fail(path+".weighted_clusters", errors.New("Sum of weights in the weighted_cluster must be greater than 0."))
	}
	own := map[string]bool{}
	for _, u := range p.GetUpgradeConfigs() {
		own[strings.ToLower(u.GetUpgradeType())] = u.GetEnabled() == nil || u.GetEnabled().GetValue()
	}
	for _, name := range names(upgrades, own) {
		on, told := own[name]
		if !told {
			on = upgrades[name]
		}
		switch {
		case on && name == "connect":
			d.fail(path+".upgrade_configs", errors.New("not supported yet (CONNECT)"))
		case on:
			f.Upgrades = append(f.Upgrades, name)
		}
	}
	d.chooses = d.chooses || f.Host != "" || f.AutoHost || f.Rewrite != (api.HTTPRewrite{})
	return f
}

func (d *httpDecoder) rewrite(path, prefix string, r *matcherv3.RegexMatchAndSubstitute) api.HTTPRewrite {
	out := api.HTTPRewrite{Prefix: prefix}
	if regex := r.GetPattern().GetRegex(); regex != "" {
		out.Regex, out.Substitution = regex, r.GetSubstitution()
		d.expression(path+".regex_rewrite.pattern.regex", regex)
	}
	return out
}

func (d *httpDecoder) redirect(path string, p *routev3.RedirectAction) *api.HTTPRedirect {
	r := &api.HTTPRedirect{
		Scheme: p.GetSchemeRedirect(), Host: p.GetHostRedirect(), Port: p.GetPortRedirect(), Path: p.GetPathRedirect(),
		Rewrite: d.rewrite(path, p.GetPrefixRewrite(), p.GetRegexRewrite()), StripQuery: p.GetStripQuery(), Code: http.StatusMovedPermanently,
	}
	if p.GetHttpsRedirect() {
		r.Scheme = "https"
	}
	switch p.GetResponseCode() {
	case routev3.RedirectAction_FOUND:
		r.Code = http.StatusFound
	case routev3.RedirectAction_SEE_OTHER:
		r.Code = http.StatusSeeOther
	case routev3.RedirectAction_TEMPORARY_REDIRECT:
		r.Code = http.StatusTemporaryRedirect
	case routev3.RedirectAction_PERMANENT_REDIRECT:
		r.Code = http.StatusPermanentRedirect
	}
	return r
}

// mutations is what the messages with headers to add and remove have in common.
type mutations interface {
	GetRequestHeadersToAdd() []*corev3.HeaderValueOption
	GetRequestHeadersToRemove() []string
	GetResponseHeadersToAdd() []*corev3.HeaderValueOption
	GetResponseHeadersToRemove() []string
}

func (d *httpDecoder) headers(path string, p mutations) api.HTTPHeaders {
	h := api.HTTPHeaders{
		Add:           d.added(path+".request_headers_to_add", p.GetRequestHeadersToAdd()),
		AddToResponse: d.added(path+".response_headers_to_add", p.GetResponseHeadersToAdd()),
		Remove:        d.removed(path+".request_headers_to_remove", p.GetRequestHeadersToRemove()),
	}
	for _, name := range p.GetResponseHeadersToRemove() {
		h.RemoveOfResponse = append(h.RemoveOfResponse, strings.ToLower(name))
	}
	d.chooses = d.chooses || len(h.Add)+len(h.AddToResponse)+len(h.Remove)+len(h.RemoveOfResponse) > 0
	return h
}

func (d *httpDecoder) added(path string, in []*corev3.HeaderValueOption) []api.HTTPHeader {
	var out []api.HTTPHeader
	for i, p := range in {
		key := strings.ToLower(p.GetHeader().GetKey())
		if strings.HasPrefix(key, ":") || key == "host" {
			d.bad.fail(fmt.Sprintf("%s[%d]", path, i), errors.New(":-prefixed or host headers may not be modified"))
		}
		if !isLiteral(p.GetHeader().GetValue()) {
			continue // noted
		}
		one := api.HTTPHeader{Key: key, Value: strings.ReplaceAll(p.GetHeader().GetValue(), "%%", "%"), Action: api.HTTPAppend(p.GetAppendAction()), KeepEmpty: p.GetKeepEmptyValue()}
		if a := p.GetAppend(); a != nil && !a.GetValue() { //nolint:staticcheck // Envoy still reads it
			one.Action = api.OverwriteOrAdd
		}
		out = append(out, one)
	}
	return out
}

func (d *httpDecoder) removed(path string, in []string) []string {
	var out []string
	for i, name := range in {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, ":") || name == "host" {
			d.bad.fail(fmt.Sprintf("%s[%d]", path, i), errors.New(":-prefixed or host headers may not be removed"))
		}
		out = append(out, name)
	}
	return out
}

// isLiteral says whether a header's value holds no command: %% is a percent sign.
func isLiteral(v string) bool { return !strings.Contains(strings.ReplaceAll(v, "%%", ""), "%") }

// names are the keys of all, sorted.
func names(all ...map[string]bool) []string {
	var out []string
	for _, m := range all {
		for name := range m {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
