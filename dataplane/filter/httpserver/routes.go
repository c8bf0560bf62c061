package httpserver

import (
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/match"
)

// table finds the route of a request.
type table struct {
	exact map[string]*host
	// suffixes are `*.name` without the asterisk, prefixes `name.*` without it,
	// longest first.
	suffixes, prefixes []wildcard
	any                *host
	ignorePort         bool
}

type wildcard struct {
	text string
	host *host
}

type host struct {
	config *api.HTTPVirtualHost
	routes []*route
}

// route is a route made ready; rewrite is the compiled expression of its rewrite,
// if it has one.
type route struct {
	config  *api.HTTPRoute
	host    *api.HTTPVirtualHost
	path    func(path string) bool
	headers []headerMatch
	query   []func(url.Values) bool
	rewrite *regexp.Regexp
}

func newTable(c *api.HTTP) *table {
	t := &table{exact: map[string]*host{}, ignorePort: c.IgnorePort}
	for i := range c.VirtualHosts {
		v := &c.VirtualHosts[i]
		h := &host{config: v}
		for j := range v.Routes {
			h.routes = append(h.routes, newRoute(&v.Routes[j], v))
		}
		for _, d := range v.Domains {
			switch {
			case d == "*":
				t.any = h
			case strings.HasPrefix(d, "*"):
				t.suffixes = insert(t.suffixes, wildcard{d[1:], h})
			case strings.HasSuffix(d, "*"):
				t.prefixes = insert(t.prefixes, wildcard{d[:len(d)-1], h})
			default:
				t.exact[d] = h
			}
		}
	}
	return t
}

// insert keeps the longest first.
func insert(list []wildcard, w wildcard) []wildcard {
	at := 0
	for at < len(list) && len(list[at].text) >= len(w.text) {
		at++
	}
	return append(list[:at], append([]wildcard{w}, list[at:]...)...)
}

// host finds the virtual host: the exact name, the longest suffix, the longest
// prefix, any (route.proto, VirtualHost.domains).
func (t *table) host(authority string) *host {
	name := strings.ToLower(authority)
	if t.ignorePort {
		name = withoutPort(name)
	}
	if h := t.exact[name]; h != nil {
		return h
	}
	for _, w := range t.suffixes {
		if len(name) > len(w.text) && strings.HasSuffix(name, w.text) {
			return w.host
		}
	}
	for _, w := range t.prefixes {
		if len(name) > len(w.text) && strings.HasPrefix(name, w.text) {
			return w.host
		}
	}
	return t.any
}

func withoutPort(authority string) string {
	i := strings.LastIndexByte(authority, ':')
	if i < 0 || strings.HasSuffix(authority, "]") {
		return authority
	}
	if _, err := strconv.ParseUint(authority[i+1:], 10, 16); err != nil {
		return authority
	}
	return authority[:i]
}

// find is the first route that fits, or nil.
func (t *table) find(r *http.Request, path string) *route {
	h := t.host(r.Host)
	if h == nil {
		return nil
	}
	var query url.Values
	for _, rt := range h.routes {
		if !rt.path(path) || rt.config.Match.GRPC && !isGRPC(r) || !all(rt.headers, r) {
			continue
		}
		if len(rt.query) > 0 && query == nil {
			query, _ = url.ParseQuery(r.URL.RawQuery) // what can be read of it
		}
		fits := true
		for _, q := range rt.query {
			fits = fits && q(query)
		}
		if fits {
			return rt
		}
	}
	return nil
}

// isGRPC looks as Envoy does: at the content type.
func isGRPC(r *http.Request) bool {
	t := r.Header.Get("Content-Type")
	return t == "application/grpc" || strings.HasPrefix(t, "application/grpc+")
}

func newRoute(c *api.HTTPRoute, v *api.HTTPVirtualHost) *route {
	r := &route{config: c, host: v, path: newPath(&c.Match), headers: newHeaderMatches(c.Match.Headers)}
	for i := range c.Match.Query {
		q := &c.Match.Query[i]
		holds := func(string) bool { return true }
		if q.Value != nil {
			holds = match.NewString(q.Value)
		}
		r.query = append(r.query, func(values url.Values) bool { return values.Has(q.Name) && holds(values.Get(q.Name)) })
	}
	var rewrite *api.HTTPRewrite
	switch {
	case c.Forward != nil:
		rewrite = &c.Forward.Rewrite
	case c.Redirect != nil:
		rewrite = &c.Redirect.Rewrite
	}
	if rewrite != nil && rewrite.Regex != "" {
		r.rewrite = regexp.MustCompile(rewrite.Regex) // it was compiled when it was read
	}
	return r
}

func newPath(m *api.HTTPMatch) func(string) bool {
	fold := func(s string) string { return s }
	if m.IgnoreCase && m.Path != api.PathRegex {
		fold = strings.ToLower
	}
	want := fold(m.Value)
	switch m.Path {
	case api.PathExact:
		return func(p string) bool { return fold(p) == want }
	case api.PathRegex:
		return match.NewString(&api.StringMatch{Kind: api.MatchRegex, Value: m.Value})
	case api.PathSeparatedPrefix:
		return func(p string) bool {
			rest, ok := strings.CutPrefix(fold(p), want)
			return ok && (rest == "" || rest[0] == '/')
		}
	}
	return func(p string) bool { return strings.HasPrefix(fold(p), want) }
}

// rewritten is a path as the route's rewrite has it.
func (r *route) rewritten(w *api.HTTPRewrite, path string) string {
	switch {
	case r.rewrite != nil:
		return r.rewrite.ReplaceAllString(path, substitution(w.Substitution))
	case w.Prefix == "":
		return path
	case r.config.Match.Path == api.PathExact || r.config.Match.Path == api.PathRegex:
		return w.Prefix // the whole path was matched
	}
	return w.Prefix + path[len(r.config.Match.Value):]
}

// substitution turns RE2's \1 into Go's ${1}.
func substitution(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '$':
			b.WriteString("$$")
		case s[i] == '\\' && i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '9':
			i++
			b.WriteString("${" + s[i:i+1] + "}")
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == '\\':
			i++
			b.WriteByte('\\')
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
