package parity

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
	"github.com/sluice-proxy/sluice/test/pki"
)

// behindTLS is a chain whose clients speak TLS, and what they have to know for it.
func (r *run) behindTLS(more obj, filters ...obj) (obj, *tls.Config) {
	ca := pki.New(r.TB, "ca")
	leaf := ca.Issue([]string{"server.example"})
	return chain(filters...).with(obj{"transport_socket": obj{"name": "envoy.transport_sockets.tls", "typed_config": obj{
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
		"common_tls_context": obj{"tls_certificates": []obj{{
			"certificate_chain": obj{"inline_string": string(leaf.PEM)}, "private_key": obj{"inline_string": string(leaf.Key)}}}}.with(more),
	}}}), &tls.Config{RootCAs: ca.Pool(), ServerName: "server.example"}
}

// echoesHeaders tells what of a request the proxy wrote.
func echoesHeaders(_ context.Context, c *net.TCPConn) {
	for b := bufio.NewReader(c); ; {
		q, err := http.ReadRequest(b)
		if err != nil {
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nx-told: %s %s %q\r\ncontent-length: 0\r\n\r\n", q.RequestURI, q.Header.Get("X-Forwarded-Proto"), q.Header.Get("X-Forwarded-Client-Cert"))
	}
}

const (
	ofTLS        = `listener\.[^.]+\.ssl\.(handshake|connection_error|no_certificate|fail_.*|session_reused)`
	partOfHello  = "\x16\x03\x01\x02\x00\x01"
	ofSecureHTTP = `http\.p\.downstream_cx_ssl_(total|active)`
)

// secured are chains whose clients speak TLS.
var secured = []scenario{
	{"http_behind_tls", func(r *run) {
		c, config := r.behindTLS(obj{"alpn_protocols": []string{"h2", "http/1.1"}}, httpManager(nil,
			httpRoute(obj{"path": "/ready"}, answering("ready")),
			httpRoute(obj{"prefix": "/to"}, obj{"redirect": obj{"path_redirect": "/new"}}),
			httpRoute(obj{"prefix": "/plain"}, obj{"redirect": obj{"scheme_redirect": "http"}}),
			httpRoute(obj{"prefix": "/host"}, sentTo("web", nil))))
		r.start(static([]obj{listener("l", c)}, []obj{cluster("web", endpoint(r.serve("server", echoesHeaders)))}))
		for _, protocol := range []string{"", "http/1.1"} {
			if config.NextProtos = nil; protocol != "" {
				config.NextProtos = []string{protocol}
			}
			s := tls.Client(r.dial("l"), config)
			for _, q := range [][]string{{"GET /ready"}, {"GET /to?x=1"}, {"GET /plain"}, {"GET /plain", "host: h:443"}, {"GET /plain", "host: h:80"},
				{"GET /host", "x-forwarded-client-cert: By=me"}, {"GET /host", "x-forwarded-proto: http"}, {"GET /none"}} {
				r.answered(s, "client", q...)
			}
			r.note("protocol %q", s.ConnectionState().NegotiatedProtocol)
			_ = s.CloseWrite()
			b, err := io.ReadAll(s)
			r.note("client: then %q, %v", b, err)
			_ = s.Close()
		}
		r.dial("l").send("GET /ready HTTP/1.1\r\n\r\n").end()
		r.moved(ofHTTP, ofSecureHTTP, ofListener, ofTLS)
	}},
	{"host_resets_while_the_client_shakes_hands", func(r *run) {
		c, _ := r.behindTLS(nil, tcpProxy("c"))
		r.start(static([]obj{listener("l", c)}, []obj{cluster("c", endpoint(r.serve("server", peer.ResetAfter("", 0, 300*time.Millisecond))))}))
		r.dial("l").end()
		r.dial("l").send(partOfHello).end()
		r.moved(ofListener, ofCluster, ofTLS)
	}},
	{"client_goes_while_it_shakes_hands", func(r *run) {
		c, _ := r.behindTLS(nil, tcpProxy("c"))
		r.start(static([]obj{listener("l", c)}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.dial("l").fin().end()
		r.dial("l").send(partOfHello).fin().end()
		gone := r.dial("l").send(partOfHello)
		gone.reset()
		r.moved(ofListener, `cluster\.c\.upstream_cx_(total|active)`, ofTLS)
	}},
}
