package httpserver

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// attempt is one request's connection to a host, from the pick to its end.
type attempt struct {
	cluster *upstream.Cluster
	up      upstream.Picked
	began   time.Time
	// claimed: somebody keeps the books of up, or has closed them.
	claimed atomic.Bool
	timeout atomic.Bool // the connect took too long

	route  *route
	path   string
	quiet  bool
	server []string // that replaces the upstream's, or nil
	places [3]*api.HTTPHeaders
	answer *answer
}

type attemptKey struct{}

func attemptOf(ctx context.Context) *attempt {
	a, _ := ctx.Value(attemptKey{}).(*attempt)
	return a
}

// newProxy makes the reverse proxy of a chain. Every request brings its attempt.
func (f *Factory) newProxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:        func(p *httputil.ProxyRequest) { f.rewrite(p) },
		ModifyResponse: received,
		ErrorHandler:   failed,
		FlushInterval:  -1,
		ErrorLog:       slog.NewLogLogger(f.ctx.Log.Handler(), slog.LevelDebug),
		Transport: &http.Transport{
			DialContext: dial,
			// The host was picked for this request.
			MaxIdleConnsPerHost: -1, // and nothing is kept for another
			DisableCompression:  true,
		},
	}
}

// forward sends a request to a host of the route's cluster.
func (f *Factory) forward(a *answer, r *http.Request, rt *route, path string, c *conn) {
	to := rt.config.Forward
	cluster := f.ctx.Cluster(choose(to))
	if cluster == nil {
		f.figures.noCluster.Inc()
		f.dress(a.Header(), rt)
		a.WriteHeader(to.NotFound)
		return
	}
	defer f.charge(cluster, a, time.Now())
	try, err := pick(cluster)
	if err != nil {
		text := "no healthy upstream"
		if !errors.Is(err, upstream.ErrNoHealthyHost) {
			text = resetReason + "overflow"
			if !f.config.Quiet {
				a.Header()["X-Envoy-Overloaded"] = []string{"true"}
			}
		}
		f.dress(a.Header(), rt)
		a.text(http.StatusServiceUnavailable, text)
		return
	}
	if try.up.TLS != nil {
		f.untold.Do(func() {
			f.ctx.Log.Warn("requests are answered 503: TLS to hosts behind HTTP routes is not built; this is said once", "cluster", cluster.Config().Name)
		})
		try.up.Failed(false, "")
		f.dress(a.Header(), rt)
		a.text(http.StatusServiceUnavailable, resetReason+"remote connection failure")
		return
	}
	try.route, try.path, try.quiet, try.places, try.answer = rt, path, f.config.Quiet, f.places(rt), a
	if !f.config.KeepServer {
		try.server = []string{f.config.ServerName}
	}
	ctx := context.WithValue(r.Context(), attemptKey{}, try)
	if to.Timeout > 0 && upgrade(r) == "" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, to.Timeout)
		defer cancel()
	}
	// The answer's own headers come from the upstream, the server's name too.
	h := a.Header()
	delete(h, "Server")
	h["Content-Type"] = nil // is not guessed
	defer func() {
		if try.claimed.CompareAndSwap(false, true) {
			try.up.Failed(false, "")
		}
	}()
	f.proxy.ServeHTTP(a, r.WithContext(ctx))
}

// choose draws a cluster by weight.
func choose(to *api.HTTPForward) string {
	sum := uint64(0)
	for i := range to.Clusters {
		sum += uint64(to.Clusters[i].Weight)
	}
	if sum == 0 {
		return to.Cluster
	}
	n := rand.Uint64N(sum)
	for i := range to.Clusters {
		w := uint64(to.Clusters[i].Weight)
		if n < w {
			return to.Clusters[i].Name
		}
		n -= w
	}
	return ""
}

// rewrite makes the request that the host gets.
func (f *Factory) rewrite(p *httputil.ProxyRequest) {
	in, out := p.In, p.Out
	try, c := attemptOf(in.Context()), connOf(in.Context())
	to := try.route.config.Forward
	// What the client says of who came before; net/http has taken it out.
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded"} {
		if v, ok := in.Header[name]; ok {
			out.Header[name] = slices.Clone(v)
		}
	}
	h := out.Header
	// What a client says of its certificate it says of itself (Envoy's default, SANITIZE).
	h.Del("X-Forwarded-Client-Cert")
	if f.config.UseRemoteAddress {
		if !f.config.SkipXFF && c.client.IsValid() {
			before := h.Values("X-Forwarded-For")
			h["X-Forwarded-For"] = []string{strings.Join(append(slices.Clone(before), c.client.Addr().String()), ",")}
		}
		h["X-Forwarded-Proto"] = []string{c.scheme()}
	} else if h.Get("X-Forwarded-Proto") == "" {
		h["X-Forwarded-Proto"] = []string{c.scheme()}
	}
	if f.config.RequestID && h.Get("X-Request-Id") == "" {
		h["X-Request-Id"] = []string{uuid.NewString()}
	}
	path := try.route.rewritten(&to.Rewrite, try.path)
	if !f.config.Quiet {
		if to.Timeout > 0 {
			h["X-Envoy-Expected-Rq-Timeout-Ms"] = []string{strconv.FormatInt(to.Timeout.Milliseconds(), 10)}
		}
		if path != try.path {
			h["X-Envoy-Original-Path"] = []string{in.RequestURI}
		}
	}
	for _, m := range try.places {
		mutate(h, m.Remove, m.Add)
	}
	out.URL = &url.URL{Scheme: "http", Host: "upstream", Opaque: path, RawQuery: in.URL.RawQuery, ForceQuery: in.URL.ForceQuery}
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") {
		out.URL.Opaque, out.URL.Path, out.URL.RawPath = "", path, path
	}
	out.Host = in.Host
	switch {
	case to.Host != "":
		out.Host = to.Host
	case to.AutoHost && try.up.Host.Endpoint().Hostname != "":
		out.Host = try.up.Host.Endpoint().Hostname
	}
}

// dial connects to the host that was picked for the request.
func dial(ctx context.Context, _, _ string) (net.Conn, error) {
	try := attemptOf(ctx)
	if try == nil || !try.claimed.CompareAndSwap(false, true) {
		return nil, errAgain
	}
	ctx, cancel := context.WithTimeout(ctx, try.cluster.Config().ConnectTimeout)
	defer cancel()
	var d net.Dialer
	d.SetMultipathTCP(false)
	plain, err := d.DialContext(ctx, "tcp", try.up.Host.Address())
	c := plain
	if err == nil {
		if c, err = try.up.Secure(ctx, plain, "http/1.1"); err != nil {
			plain.Close()
		}
	}
	if err != nil {
		late := isTimeout(err)
		try.timeout.Store(late)
		try.up.Failed(late, "")
		return nil, err
	}
	try.up.Connected(time.Since(try.began))
	return &counted{Conn: c, up: try.up.Connection, since: time.Now()}, nil
}

// errAgain keeps net/http from a second connection for one pick.
var errAgain = errors.New("the request's connection is gone")

// counted tells the cluster of bytes, and of the connection's end.
type counted struct {
	net.Conn
	once  sync.Once
	up    upstream.Connection
	since time.Time
}

// Read counts what the host sent.
func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.up.Bytes(uint64(n), 0)
	return n, err
}

// Write counts what it got.
func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.up.Bytes(0, uint64(n))
	return n, err
}

// Close counts the end.
func (c *counted) Close() error {
	c.once.Do(func() { c.up.Ended(time.Since(c.since), false) })
	return c.Conn.Close()
}

// received changes the host's answer on its way.
func received(r *http.Response) error {
	try := attemptOf(r.Request.Context())
	try.answer.routed = true
	if !try.quiet && r.StatusCode != http.StatusSwitchingProtocols {
		r.Header["X-Envoy-Upstream-Service-Time"] = []string{strconv.FormatInt(time.Since(try.began).Milliseconds(), 10)}
	}
	if try.server != nil {
		r.Header["Server"] = try.server
	}
	for _, m := range try.places {
		mutate(r.Header, m.RemoveOfResponse, m.AddToResponse)
	}
	return nil
}

// Envoy's words for an attempt that failed before it brought an answer.
const resetReason = "upstream connect error or disconnect/reset before headers. reset reason: "

func failed(w http.ResponseWriter, r *http.Request, err error) {
	try := attemptOf(r.Context())
	a := try.answer
	if try.server != nil {
		a.Header()["Server"] = try.server
	}
	delete(a.Header(), "Content-Type")
	for _, m := range try.places {
		mutate(a.Header(), m.RemoveOfResponse, m.AddToResponse)
	}
	var reason string
	switch {
	case r.Context().Err() == context.Canceled:
		a.code = 0 // the client is gone
		panic(http.ErrAbortHandler)
	case try.timeout.Load():
		reason = "connection timeout"
	case errors.Is(r.Context().Err(), context.DeadlineExceeded):
		a.late = true
		a.text(http.StatusGatewayTimeout, "upstream request timeout")
		return
	case isDial(err):
		reason = "remote connection failure"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		reason = "connection termination"
	default:
		a.text(http.StatusBadGateway, resetReason+"protocol error")
		return
	}
	a.text(http.StatusServiceUnavailable, resetReason+reason)
}

func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// charge counts an answer for the cluster (docs: "Dynamic HTTP statistics").
func (f *Factory) charge(c *upstream.Cluster, a *answer, began time.Time) {
	if a.code == 0 {
		return
	}
	tag := stats.Tag{Name: "envoy.cluster_name", Value: c.Config().StatName()}
	code, class := strconv.Itoa(a.code), strconv.Itoa(a.code/100)
	own := f.ctx.Stats.Scope("cluster", tag)
	defer own.Release() // the cluster has it too
	if a.late {
		own.Counter("upstream_rq_timeout").Inc()
	}
	for _, sc := range []*stats.Scope{own, f.external(tag)} {
		sc.Counter("upstream_rq_" + code).Inc()
		sc.Counter("upstream_rq_" + class + "xx").Inc()
		sc.Counter("upstream_rq_completed").Inc()
		if a.routed {
			sc.Histogram("upstream_rq_time").RecordTime(time.Since(began))
		}
	}
}

// external is the scope of a cluster's figures of requests from outside, which
// the chain holds.
func (f *Factory) external(cluster stats.Tag) *stats.Scope {
	f.mu.Lock()
	defer f.mu.Unlock()
	sc := f.externals[cluster.Value]
	if sc == nil {
		sc = f.ctx.Stats.Scope("cluster", cluster, "external")
		f.externals[cluster.Value] = sc
	}
	return sc
}
