package health

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/match"
)

// drained bounds what is read of an answer only so that its connection can be
// kept.
const drained = 256 << 10

// httpCheck is an http_health_check.
type httpCheck struct {
	session   *session
	config    *api.HTTPCheck
	target    Target
	opener    // of the transport's connections
	transport *http.Transport
	service   func(string) bool
}

func newHTTP(s *session, t Target, dial func(context.Context) (net.Conn, error)) *httpCheck {
	p := &httpCheck{session: s, config: t.Check.HTTP, target: t, opener: opener{open: dial}}
	p.transport = newTransport(p.dial, t.Check.HTTP.HTTP2)
	if p.config.ServiceName != nil {
		p.service = match.NewString(p.config.ServiceName)
	}
	return p
}

// opener opens connections and remembers the last, for a transport has no end to
// a single one but by a header that Envoy does not send.
type opener struct {
	open func(context.Context) (net.Conn, error)
	mu   sync.Mutex
	last net.Conn
}

func (o *opener) dial(ctx context.Context) (net.Conn, error) {
	conn, err := o.open(ctx)
	if err == nil {
		o.mu.Lock()
		o.last = conn
		o.mu.Unlock()
	}
	return conn, err
}

func (o *opener) hangUp() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last != nil {
		o.last.Close()
	}
}

// newTransport speaks HTTP over the connections that dial opens. Whether these
// are TLS is not its business.
func newTransport(dial func(context.Context) (net.Conn, error), http2 bool) *http.Transport {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dial(ctx)
			if err == nil && !http2 {
				conn = &strict{Conn: conn}
			}
			return conn, err
		},
		DisableCompression:  true,
		MaxIdleConnsPerHost: 1,
		Protocols:           new(http.Protocols),
	}
	t.Protocols.SetHTTP1(!http2)
	t.Protocols.SetUnencryptedHTTP2(http2)
	return t
}

// strict fails at once where an answer does not begin as HTTP does, as Envoy's
// parser; net/http would wait for the rest of the line.
type strict struct {
	net.Conn
	seen atomic.Int32 // bytes of the answer
}

func (c *strict) Write(b []byte) (int, error) {
	c.seen.Store(0)
	return c.Conn.Write(b)
}

func (c *strict) Read(b []byte) (int, error) {
	const begin = "HTTP/"
	n, err := c.Conn.Read(b)
	at := int(c.seen.Add(int32(min(n, len(begin))))) - min(n, len(begin))
	if at < len(begin) {
		if part := b[:min(n, len(begin)-at)]; string(part) != begin[at:at+len(part)] {
			return 0, errNoHTTP
		}
	}
	return n, err
}

var errNoHTTP = errors.New("the answer is no HTTP")

// authority is what a check calls the host.
func authority(t Target, configured string) string {
	hostname := ""
	if t.Endpoint.Check != nil {
		hostname = t.Endpoint.Check.Hostname
	}
	return cmp.Or(hostname, configured, t.Cluster.Name)
}

func (p *httpCheck) check(ctx context.Context) outcome {
	if !p.target.Check.ReuseConnection {
		defer p.hangUp()
	}
	rsp, err := p.transport.RoundTrip(p.request(ctx))
	if err != nil {
		return failed(err)
	}
	defer rsp.Body.Close()
	body, err := p.body(rsp.Body)
	if err != nil {
		return failed(err)
	}
	return p.judge(rsp, body)
}

func (p *httpCheck) request(ctx context.Context) *http.Request {
	c := p.config
	// Opaque, so that the path goes out as it stands.
	r := &http.Request{Method: c.Method, URL: &url.URL{Scheme: "http", Host: p.target.Endpoint.CheckAddr().String(), Opaque: c.Path},
		Host: authority(p.target, c.Host), Header: http.Header{"User-Agent": {"Envoy/HC"}}}
	if len(c.Send) > 0 {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(c.Send)), int64(len(c.Send))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(c.Send)), nil }
	}
	addHeaders(r, c.Add)
	for _, key := range c.Remove {
		if r.Header.Del(key); strings.EqualFold(key, "user-agent") {
			r.Header["User-Agent"] = []string{""} // else net/http has one of its own
		}
	}
	return r.WithContext(ctx)
}

func addHeaders(r *http.Request, add []api.HTTPHeader) {
	for _, h := range add {
		key := http.CanonicalHeaderKey(h.Key)
		if key == "Host" || h.Key == ":authority" {
			r.Host = h.Value
			continue
		}
		_, there := r.Header[key]
		switch {
		case h.Action == api.AppendOrAdd:
			r.Header.Add(key, h.Value)
		case h.Action == api.AddIfAbsent && !there, h.Action == api.OverwriteOrAdd, h.Action == api.OverwriteIfPresent && there:
			r.Header.Set(key, h.Value)
		}
	}
}

// body reads what is looked at, and the rest for the connection's sake.
func (p *httpCheck) body(r io.Reader) ([]byte, error) {
	var kept []byte
	if len(p.config.Receive) > 0 {
		limit := int64(received)
		if n := p.config.ResponseBufferSize; n > 0 {
			limit = int64(min(n, received))
		}
		var err error
		if kept, err = io.ReadAll(io.LimitReader(r, limit)); err != nil {
			return nil, err
		}
	}
	_, err := io.CopyN(io.Discard, r, drained)
	if err == io.EOF {
		err = nil
	}
	return kept, err
}

func (p *httpCheck) judge(rsp *http.Response, body []byte) outcome {
	out := outcome{status: rsp.StatusCode, degraded: rsp.Header.Get("X-Envoy-Degraded") != ""}
	in := func(ranges []api.StatusRange) bool {
		return slices.ContainsFunc(ranges, func(r api.StatusRange) bool { return rsp.StatusCode >= r.Start && rsp.StatusCode < r.End })
	}
	switch {
	case !in(p.config.Expected):
		out.failure, out.retriable = active, in(p.config.Retriable)
		out.exclude = rsp.Header.Get("X-Envoy-Immediate-Health-Check-Fail") != ""
	case !contains(body, p.config.Receive):
		out.failure = active
	case p.service != nil && p.session.verifyCluster():
		p.session.check.stats.verifyCluster.Inc()
		if !p.service(rsp.Header.Get("X-Envoy-Upstream-Healthchecked-Cluster")) {
			out.failure = active
		}
	}
	return out
}

func (p *httpCheck) close() { p.transport.CloseIdleConnections() }
