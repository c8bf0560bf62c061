package admin

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

const (
	textPlain       = "text/plain; charset=UTF-8"
	applicationJSON = "application/json"
	plainText       = "text/plain" // of the config dump's errors
)

// answer is what a handler builds.
type answer struct {
	bytes.Buffer
	code        int
	contentType string
	// after runs when the answer was sent.
	after func()
}

func (a *answer) fail(code int, format string, args ...any) {
	a.Reset()
	a.code, a.contentType = code, textPlain
	fmt.Fprintf(a, format, args...)
}

// ServeHTTP finds the handler, has it build its answer and sends that.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := &answer{code: http.StatusOK, contentType: textPlain}
	answered := s.own.request(r)
	s.render(a, r)
	defer func() { answered(a.code) }()
	h := w.Header()
	h.Set("content-type", a.contentType)
	h.Set("cache-control", "no-cache, max-age=0")
	h.Set("x-content-type-options", "nosniff")
	h.Set("server", "sluice")
	w.WriteHeader(a.code)
	if _, err := w.Write(a.Bytes()); err != nil {
		s.o.Log.Debug("admin answer not taken", "path", r.URL.Path, "error", err)
	}
	if a.after != nil {
		a.after()
	}
}

func (s *Server) render(a *answer, r *http.Request) {
	target := r.URL.Path
	if r.URL.RawQuery != "" {
		target += "?" + r.URL.RawQuery
	}
	// Envoy matches allow_paths against path and query together, and says
	// nothing of what exists.
	if !s.allow(target) {
		a.fail(http.StatusForbidden, "request to path %s not allowed", target)
		return
	}
	rt := s.routes[r.URL.Path]
	if rt == nil {
		a.fail(http.StatusNotFound, "invalid path. ")
		s.help(a, nil)
		return
	}
	if rt.mutates && r.Method != http.MethodPost {
		a.fail(http.StatusMethodNotAllowed, "Method %s not allowed, POST required.", r.Method)
		return
	}
	q := parseQuery(r.URL.RawQuery)
	if rt.form && len(q) == 0 && r.Body != nil {
		b, err := io.ReadAll(io.LimitReader(r.Body, maxHeaderBytes))
		if err != nil {
			a.fail(http.StatusBadRequest, "%v", err)
			return
		}
		q = parseQuery(string(b))
	}
	s.rendering.Lock()
	defer s.rendering.Unlock()
	rt.handle(a, q)
}

// query are the parameters in order, as Envoy reads them: `+` stays a plus, a
// percent sign that escapes nothing stays too, since clients send regular
// expressions unescaped.
type query [][2]string

func parseQuery(raw string) query {
	var q query
	for _, p := range strings.Split(raw, "&") {
		if p == "" {
			continue
		}
		k, v, _ := strings.Cut(p, "=")
		q = append(q, [2]string{unescape(k), unescape(v)})
	}
	return q
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// get returns the first value of a parameter, and whether it was there.
func (q query) get(name string) (string, bool) {
	for _, p := range q {
		if p[0] == name {
			return p[1], true
		}
	}
	return "", false
}

func (q query) value(name string) string { v, _ := q.get(name); return v }

func (q query) has(name string) bool { _, ok := q.get(name); return ok }

// allowPaths compiles admin.allow_paths; none means all.
func allowPaths(ms []*matcherv3.StringMatcher) (func(string) bool, error) {
	if len(ms) == 0 {
		return func(string) bool { return true }, nil
	}
	var tests []func(string) bool
	for i, m := range ms {
		f, err := stringMatch(m)
		if err != nil {
			return nil, fmt.Errorf("admin.allow_paths[%d]: %w", i, err)
		}
		tests = append(tests, f)
	}
	return func(p string) bool {
		for _, t := range tests {
			if t(p) {
				return true
			}
		}
		return false
	}, nil
}

func stringMatch(m *matcherv3.StringMatcher) (func(string) bool, error) {
	fold := func(s string) string { return s }
	if m.IgnoreCase {
		fold = strings.ToLower
	}
	switch p := m.MatchPattern.(type) {
	case *matcherv3.StringMatcher_Exact:
		return func(s string) bool { return fold(s) == fold(p.Exact) }, nil
	case *matcherv3.StringMatcher_Prefix:
		return func(s string) bool { return strings.HasPrefix(fold(s), fold(p.Prefix)) }, nil
	case *matcherv3.StringMatcher_Suffix:
		return func(s string) bool { return strings.HasSuffix(fold(s), fold(p.Suffix)) }, nil
	case *matcherv3.StringMatcher_Contains:
		return func(s string) bool { return strings.Contains(fold(s), fold(p.Contains)) }, nil
	case *matcherv3.StringMatcher_SafeRegex:
		re, err := fullMatch(p.SafeRegex.GetRegex())
		if err != nil {
			return nil, err
		}
		return re.MatchString, nil
	}
	return nil, fmt.Errorf("match pattern %T is not supported", m.MatchPattern)
}
