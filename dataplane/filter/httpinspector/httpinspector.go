// Package httpinspector is envoy.filters.listener.http_inspector: it looks at the
// first line of what a client sends and says by application protocol whether
// that is HTTP.
package httpinspector

import (
	"bytes"
	"regexp"

	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/filter"
)

// maxLine bounds the first line (config.h, MAX_INSPECT_SIZE).
const maxLine = 64 << 10

// preface is HTTP/2's (RFC 9113, section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Factory makes the filters of a listener.
type Factory struct {
	scope                          *stats.Scope
	http10, http11, http2, notHTTP *stats.Counter
}

// New makes a factory.
func New(store *stats.Store) *Factory {
	sc := store.Scope("http_inspector")
	sc.Counter("read_error") // named as Envoy names it; a peek does not fail
	return &Factory{scope: sc, http10: sc.Counter("http10_found"), http11: sc.Counter("http11_found"), http2: sc.Counter("http2_found"), notHTTP: sc.Counter("http_not_found")}
}

// New makes the filter of a socket.
func (f *Factory) New(*filter.Socket) filter.ListenerFilter { return (*inspector)(f) }

// Release gives the statistics back.
func (f *Factory) Release() { f.scope.Release() }

// inspector holds nothing of a socket: the bytes are all there every time.
type inspector Factory

// Accepted wants bytes, unless something else than plain text was found already.
func (f *inspector) Accepted(s *filter.Socket) filter.Status {
	if p := s.Info.Hello().TransportProtocol; p != "" && p != "raw_buffer" {
		return filter.Continue
	}
	return filter.Stop
}

// Wants is the longest line.
func (f *inspector) Wants() int { return maxLine }

// Data looks at what is there so far.
func (f *inspector) Data(s *filter.Socket, b []byte) filter.Status {
	protocol, done := inspect(b)
	if !done && len(b) < maxLine {
		return filter.Stop
	}
	switch protocol {
	case "":
		f.notHTTP.Inc()
		return filter.Continue
	case "http/1.0":
		f.http10.Inc()
	case "http/1.1":
		f.http11.Inc()
	case "h2c":
		f.http2.Inc()
	}
	s.Info.Found().ApplicationProtocols = []string{protocol}
	return filter.Continue
}

var requestLine = regexp.MustCompile("^([!#$%&'*+\\-.^_`|~0-9A-Za-z]+) +([\\x21-\\x7e]+)(?: +(HTTP/[0-9]\\.[0-9]) *)?$")

var (
	// method is one that a space has ended.
	method      = regexp.MustCompile("^[!#$%&'*+\\-.^_`|~0-9A-Za-z]+ ")
	methodBegin = regexp.MustCompile("^[!#$%&'*+\\-.^_`|~0-9A-Za-z]")
	// target is a path, an asterisk or a URL (balsa_parser.cc, isUrlValid).
	target = regexp.MustCompile(`^(?:[/*]|[A-Za-z]+://)`)
)

// inspect finds the protocol of a first line; done is false while it depends on
// bytes that are not there yet. An empty protocol is not HTTP.
func inspect(b []byte) (protocol string, done bool) {
	if n := min(len(b), len(preface)); string(b[:n]) == preface[:n] {
		if n < len(preface) {
			return "", false
		}
		return "h2c", true
	}
	line, ended := b, false
	if end := bytes.IndexAny(b, "\r\n"); end >= 0 {
		line, ended = b[:end], true
	}
	if !ended {
		return "", len(b) > 0 && (!methodBegin.Match(b[:1]) || bytes.IndexByte(b, ' ') > 0 && !method.Match(b))
	}
	m := requestLine.FindStringSubmatch(string(line))
	if m == nil || m[1] != "CONNECT" && !target.MatchString(m[2]) {
		return "", true
	}
	if m[3] == "HTTP/1.1" {
		return "http/1.1", true
	}
	return "http/1.0", true
}
