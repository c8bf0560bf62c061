// Package tlsinspector is envoy.filters.listener.tls_inspector: it reads a
// client's TLS ClientHello, without taking it, for the server name and the
// application protocols by which filter chains are chosen.
package tlsinspector

import (
	"strings"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/filter"
)

// Factory makes the filters of a listener.
type Factory struct {
	config                     *api.TLSInspector
	scope                      *stats.Scope
	found, notFound            *stats.Counter
	sni, noSNI, alpn, noALPN   *stats.Counter
	connectionClosed, tooLarge *stats.Counter
	processed                  *stats.Histogram
}

// New makes a factory.
func New(c *api.TLSInspector, store *stats.Store) *Factory {
	sc := store.Scope("tls_inspector")
	sc.Counter("read_error") // named as Envoy names it; a peek does not fail
	return &Factory{config: c, scope: sc,
		found: sc.Counter("tls_found"), notFound: sc.Counter("tls_not_found"),
		sni: sc.Counter("sni_found"), noSNI: sc.Counter("sni_not_found"), alpn: sc.Counter("alpn_found"), noALPN: sc.Counter("alpn_not_found"),
		connectionClosed: sc.Counter("connection_closed"), tooLarge: sc.Counter("client_hello_too_large"),
		processed: sc.Histogram("bytes_processed"),
	}
}

// New makes the filter of a socket.
func (f *Factory) New(*filter.Socket) filter.ListenerFilter { return (*inspector)(f) }

// Release gives the statistics back.
func (f *Factory) Release() { f.scope.Release() }

// inspector holds nothing of a socket: the bytes are all there every time.
type inspector Factory

// Accepted wants bytes.
func (f *inspector) Accepted(*filter.Socket) filter.Status { return filter.Stop }

// Wants is the longest ClientHello, with its record headers.
func (f *inspector) Wants() int { return int(f.config.MaxClientHello) }

// Data looks at what is there so far.
func (f *inspector) Data(s *filter.Socket, b []byte) filter.Status {
	hello, state := parse(b)
	if state == partial {
		if len(b) < int(f.config.MaxClientHello) {
			return filter.Stop
		}
		f.tooLarge.Inc()
		f.processed.Record(float64(len(b)))
		return filter.Closed
	}
	f.processed.Record(float64(len(b)))
	if state == none {
		f.notFound.Inc()
		s.Info.Explain().DownstreamFailure = notTLS(b)
		if f.config.CloseOnError {
			return filter.Closed
		}
		return filter.Continue
	}
	f.found.Inc()
	i := s.Info.Found()
	i.TransportProtocol = "tls"
	if hello.serverName != "" {
		f.sni.Inc()
		i.ServerName = strings.ToLower(hello.serverName)
	} else {
		f.noSNI.Inc()
	}
	if len(hello.protocols) > 0 {
		f.alpn.Inc()
		i.ApplicationProtocols = hello.protocols
	} else {
		f.noALPN.Inc()
	}
	if f.config.JA3 {
		i.JA3 = hello.ja3()
	}
	if f.config.JA4 {
		i.JA4 = hello.ja4()
	}
	return filter.Continue
}

// notTLS is what BoringSSL has to say of a client's first bytes.
func notTLS(b []byte) string {
	reason := "100000f7:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER"
	for _, method := range []string{"GET ", "POST ", "HEAD ", "PUT "} {
		if strings.HasPrefix(string(b), method) {
			reason = "1000009c:SSL routines:OPENSSL_internal:HTTP_REQUEST"
		}
	}
	if strings.HasPrefix(string(b), "CONNE") {
		reason = "1000009b:SSL routines:OPENSSL_internal:HTTPS_PROXY_REQUEST"
	}
	return "TLS_error|error:" + reason + ":TLS_error_end"
}
