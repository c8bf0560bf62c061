package httpserver

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/match"
)

// headerMatch is a HeaderMatcher made ready.
type headerMatch struct {
	config *api.HTTPHeaderMatch
	value  func(string) bool // nil: presence decides
}

func newHeaderMatches(in []api.HTTPHeaderMatch) []headerMatch {
	var out []headerMatch
	for i := range in {
		m := headerMatch{config: &in[i]}
		switch {
		case m.config.Value != nil:
			m.value = match.NewString(m.config.Value)
		case m.config.Range != nil:
			limits := *m.config.Range
			m.value = func(v string) bool {
				n, err := strconv.ParseInt(v, 10, 64)
				return err == nil && limits.Start <= n && n < limits.End
			}
		}
		out = append(out, m)
	}
	return out
}

func all(headers []headerMatch, r *http.Request) bool {
	for i := range headers {
		if !headers[i].holds(r) {
			return false
		}
	}
	return true
}

// holds decides as HeaderUtility::HeaderData does: a header that is missing never
// matches a value, inverted or not, unless it counts as empty.
func (m *headerMatch) holds(r *http.Request) bool {
	c := m.config
	v, there := header(r, c.Name)
	if m.value == nil {
		if c.MissingIsEmpty {
			there = true
		}
		return (there != c.Absent) != c.Invert
	}
	if !there && !c.MissingIsEmpty {
		return false
	}
	return m.value(v) != c.Invert
}

// header is a request's header, several joined by commas, or pseudo header.
func header(r *http.Request, name string) (string, bool) {
	switch name {
	case ":path":
		return r.URL.RequestURI(), true
	case ":method":
		return r.Method, true
	case ":authority", "host":
		return r.Host, true
	case ":scheme":
		return "http", true
	}
	values := r.Header.Values(name)
	return strings.Join(values, ","), len(values) > 0
}

// mutate removes and adds headers; the innermost place's come first.
func mutate(h http.Header, remove []string, add []api.HTTPHeader) {
	for _, name := range remove {
		h.Del(name)
	}
	for i := range add {
		a := &add[i]
		there := len(h.Values(a.Key)) > 0
		switch {
		case a.Value == "" && !a.KeepEmpty:
		case a.Action == api.AppendOrAdd, a.Action == api.AddIfAbsent && !there:
			h.Add(a.Key, a.Value)
		case a.Action == api.OverwriteOrAdd, a.Action == api.OverwriteIfPresent && there:
			h.Set(a.Key, a.Value)
		}
	}
}
