package httpserver

import (
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// answer is a response on its way; it knows its code.
type answer struct {
	http.ResponseWriter
	code  int
	check bool // of the health_check filter
	late  bool // the route's timeout is over
	// routed: it is a host's.
	routed bool
}

// WriteHeader notes the code.
func (a *answer) WriteHeader(code int) {
	if a.code < 200 {
		a.code = code
	}
	a.ResponseWriter.WriteHeader(code)
}

// Write answers 200 if no code was written, as net/http does.
func (a *answer) Write(b []byte) (int, error) {
	if a.code < 200 {
		a.code = http.StatusOK
	}
	return a.ResponseWriter.Write(b)
}

// Unwrap lets net/http find what w can do.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// text is a local reply.
func (a *answer) text(code int, body string) {
	h := a.Header()
	if body != "" {
		h["Content-Type"] = []string{"text/plain"}
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	a.WriteHeader(code)
	_, _ = io.WriteString(a, body) // the client may be gone
}

// serve answers a request.
func (f *Factory) serve(w http.ResponseWriter, r *http.Request) {
	g, c := f.figures, connOf(r.Context())
	began := time.Now()
	g.began(r, c)
	a := &answer{ResponseWriter: w}
	defer func() { g.answered(a.code, began, a.check) }()
	a.Header()["Server"] = []string{f.config.ServerName}
	if c.session.conn.Owner.Due() && r.ProtoMajor == 1 {
		g.drainClose.Inc()
		a.Header()["Connection"] = []string{"close"}
	}
	if r.ProtoMajor == 1 && r.ProtoMinor == 0 && !f.config.HTTP10 {
		a.Header()["Connection"] = []string{"close"}
		a.text(http.StatusUpgradeRequired, "Upgrade Required")
		return
	}
	path, _, _ := strings.Cut(requestPath(r), "#")
	if f.config.NormalizePath {
		path = normal(path)
	}
	if f.config.MergeSlashes {
		path = merged(path)
	}
	rt := f.routes.find(r, path)
	if !f.mayUpgrade(r, rt) {
		g.noUpgrade.Inc()
		a.Header()["Connection"] = []string{"close"}
		f.dress(a.Header(), rt)
		a.WriteHeader(http.StatusForbidden)
		return
	}
	if f.checked(a, r) {
		return
	}
	g.routed.Inc()
	if rt == nil {
		g.noRoute.Inc()
		a.WriteHeader(http.StatusNotFound)
		return
	}
	if f.failing() && !f.config.Quiet {
		a.Header()["X-Envoy-Immediate-Health-Check-Fail"] = []string{"true"}
	}
	switch {
	case rt.config.Direct != nil:
		g.direct.Inc()
		f.dress(a.Header(), rt)
		a.text(rt.config.Direct.Code, rt.config.Direct.Body)
	case rt.config.Redirect != nil:
		g.direct.Inc()
		f.dress(a.Header(), rt)
		a.Header()["Location"] = []string{location(r, rt, path, c.scheme())}
		a.WriteHeader(rt.config.Redirect.Code)
	default:
		f.forward(a, r, rt, path, c)
	}
}

// mayUpgrade says whether a request may change to the protocol that it asks for; a
// wish for HTTP/2 is not heard.
func (f *Factory) mayUpgrade(r *http.Request, rt *route) bool {
	to := upgrade(r)
	return to == "" || rt != nil && rt.config.Forward != nil && slices.Contains(rt.config.Forward.Upgrades, to)
}

func upgrade(r *http.Request) string {
	to := strings.ToLower(r.Header.Get("Upgrade"))
	if to == "h2c" || r.ProtoMajor != 1 {
		return ""
	}
	return to
}

// checked answers what the health_check filters take.
func (f *Factory) checked(a *answer, r *http.Request) bool {
	for _, headers := range f.checks {
		if !all(headers, r) {
			continue
		}
		f.figures.checks.total.Inc()
		a.check = true
		code := http.StatusOK
		if f.failing() {
			f.figures.checks.failed.Inc()
			code = http.StatusServiceUnavailable
			a.Header()["X-Envoy-Immediate-Health-Check-Fail"] = []string{"true"}
		} else {
			f.figures.checks.ok.Inc()
		}
		a.Header()["X-Envoy-Upstream-Healthchecked-Cluster"] = []string{""}
		a.WriteHeader(code)
		return true
	}
	return false
}

func (f *Factory) failing() bool { return f.ctx.Failing != nil && f.ctx.Failing() }

// dress puts the route's headers into the answer, the innermost first.
func (f *Factory) dress(h http.Header, rt *route) {
	if rt == nil {
		return
	}
	for _, m := range f.places(rt) {
		mutate(h, m.RemoveOfResponse, m.AddToResponse)
	}
}

// places are those that have a say in the headers of a route's requests.
func (f *Factory) places(rt *route) [3]*api.HTTPHeaders {
	return [3]*api.HTTPHeaders{&rt.config.Headers, &rt.host.Headers, &f.config.Headers}
}

// requestPath is the path as the client wrote it.
func requestPath(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		path, _, _ := strings.Cut(r.RequestURI, "?")
		return path
	}
	if p := r.URL.EscapedPath(); p != "" {
		return p
	}
	return "/"
}

// location is where a redirect leads to (Envoy's RouteEntryImplBase::newUri).
func location(r *http.Request, rt *route, path, current string) string {
	c := rt.config.Redirect
	scheme, authority := c.Scheme, r.Host
	if scheme == "" {
		scheme = current
	}
	switch {
	case c.Host != "":
		authority = c.Host
	case c.Port != 0:
		authority = withoutPort(authority)
	case scheme == "https" && current == "http" && strings.HasSuffix(authority, ":80"),
		scheme == "http" && current == "https" && strings.HasSuffix(authority, ":443"):
		authority = withoutPort(authority)
	}
	if c.Port != 0 {
		authority += ":" + strconv.Itoa(int(c.Port))
	}
	query := r.URL.RawQuery
	if c.Path != "" {
		var own string
		if path, own, _ = strings.Cut(c.Path, "?"); own != "" {
			query = own
			return scheme + "://" + authority + path + "?" + query
		}
	} else {
		path = rt.rewritten(&c.Rewrite, path)
	}
	if query != "" && !c.StripQuery {
		path += "?" + query
	}
	return scheme + "://" + authority + path
}

// normal is RFC 3986's normalization, as far as it goes without a change of
// meaning: unreserved characters unescaped, dot segments resolved.
func normal(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '%' && i+2 < len(path) {
			if c, err := strconv.ParseUint(path[i+1:i+3], 16, 8); err == nil {
				if unreserved(byte(c)) {
					b.WriteByte(byte(c))
				} else {
					b.WriteString(strings.ToUpper(path[i : i+3]))
				}
				i += 2
				continue
			}
		}
		if path[i] == '\\' {
			b.WriteByte('/')
			continue
		}
		b.WriteByte(path[i])
	}
	var out []string
	segments := strings.Split(b.String(), "/")
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case ".", "..":
			if s == ".." && len(out) > 1 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, s)
		}
	}
	return strings.Join(out, "/")
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// merged has no two slashes after each other.
func merged(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}
