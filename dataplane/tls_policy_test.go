package dataplane

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/substitution"
	"github.com/sluice-proxy/sluice/test/pki"
)

// logged makes the listener write one line for each connection.
func logged(t *testing.T, l *api.Listener, format string) (lines func(n int) []string) {
	t.Helper()
	f, err := substitution.Parse(format + "\n")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "log")
	l.AccessLogs = []*api.AccessLog{{Path: path, Text: f}}
	return func(n int) []string {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			b, _ := os.ReadFile(path)
			if all := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n"); len(all) >= n && len(b) > 0 || time.Now().After(deadline) {
				return all
			}
		}
	}
}

const verifyFailed = "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_"

// What a client is refused for, the figures and words of it: measured on Envoy 1.40.
func TestTLSRefusesClients(t *testing.T) {
	i := newIdentities(t)
	other := newIdentities(t)
	hash := func() *api.DownstreamTLS {
		d := i.down()
		d.Validation = &api.TLSValidation{Hashes: [][]byte{make([]byte, 32)}}
		return d
	}
	only13 := i.down()
	only13.Params.MinVersion = tls.VersionTLS13
	most := func(c *tls.Config, version uint16) *tls.Config { c.MaxVersion = version; return c }
	optional := i.mutual()
	optional.RequireClientCertificate = false
	for _, tt := range []struct {
		what    string
		server  *api.DownstreamTLS
		client  *tls.Config
		stat    string
		failure string
	}{
		{"without a certificate", i.mutual(), i.clientConfig(t), "fail_verify_no_cert", "TLS_error:|268435648:SSL_routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE:peer_did_not_provide_required_client_certificate:TLS_error_end"},
		{"without a certificate, TLS 1.2", i.mutual(), most(i.clientConfig(t), tls.VersionTLS12), "fail_verify_no_cert", "TLS_error:|268435648:SSL_routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE:peer_did_not_provide_required_client_certificate:TLS_error_end"},
		{"of another authority", i.mutual(), i.clientConfig(t, other.client), "fail_verify_error", verifyFailed + "X509_verify_cert:_certificate_verification_error_at_depth_0:_unable_to_get_local_issuer_certificate:TLS_error_end"},
		{"of another authority, although none is required", optional, i.clientConfig(t, other.client), "fail_verify_error", verifyFailed + "X509_verify_cert:_certificate_verification_error_at_depth_0:_unable_to_get_local_issuer_certificate:TLS_error_end"},
		{"of another name", i.mutual(api.SubjectAltName{Type: api.SANURI, Match: api.StringMatch{Kind: api.MatchExact, Value: "spiffe://td/other"}}), i.clientConfig(t, i.client), "fail_verify_san", verifyFailed + "SAN_matcher,_certificate_SANs_are_[client.example,_spiffe://td/client]:TLS_error_end"},
		{"of another hash", hash(), i.clientConfig(t, i.client), "fail_verify_cert_hash", verifyFailed + "cert_hash_and_spki:TLS_error_end"},
		{"too old", only13, most(i.clientConfig(t), tls.VersionTLS12), "connection_error", "TLS_error:|268435696:SSL_routines:OPENSSL_internal:UNSUPPORTED_PROTOCOL:TLS_error_end"},
		{"that distrusts the server, TLS 1.2", i.down(), most(other.clientConfig(t), tls.VersionTLS12), "connection_error", "TLS_error:|268436498:SSL_routines:OPENSSL_internal:SSLV3_ALERT_BAD_CERTIFICATE:TLS_error_end"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := newWorldOf(t, "off")
			w.cluster("c", banner(t, "a"))
			l := secured(tcpListener("l", free(t), "c"), tt.server)
			l.StatPrefix = "s"
			lines := logged(t, l, "%DOWNSTREAM_TRANSPORT_FAILURE_REASON% %RESPONSE_FLAGS% %BYTES_SENT%")
			w.serve(l)
			c := dialTLS(t, l.Addresses[0].Addr.String(), tt.client)
			if b, err := io.ReadAll(c); err == nil || len(b) > 0 {
				t.Errorf("the client read %q, %v", b, err)
			}
			if got, want := lines(1)[0], tt.failure+" - 0"; got != want {
				t.Errorf("logged\n%s, want\n%s", got, want)
			}
			w.await("listener.s.ssl."+tt.stat, 1)
			if n := w.counter("listener.s.ssl.handshake") + w.counter("listener.s.ssl.connection_error"); (n == 0) == (tt.stat == "connection_error") {
				t.Errorf("%d handshakes and connection errors", n)
			}
			w.await("listener.s.downstream_cx_active", 0)
			w.await("cluster.c.upstream_cx_active", 0)
		})
	}
}

func TestTLSToldOfWhatIsNoTLS(t *testing.T) {
	for what, tt := range map[string]struct{ bytes, failure string }{
		"HTTP":   {"GET / HTTP/1.1\r\n\r\n", "TLS_error:|268435612:SSL_routines:OPENSSL_internal:HTTP_REQUEST:TLS_error_end"},
		"others": {"\x00\x01\x02\x03\x04\x05\x06\x07", "TLS_error:|268435703:SSL_routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end"},
	} {
		t.Run(what, func(t *testing.T) {
			i, w := newIdentities(t), newWorldOf(t, "off")
			w.cluster("c", banner(t, "a"))
			l := secured(tcpListener("l", free(t), "c"), i.down())
			l.StatPrefix = "s"
			lines := logged(t, l, "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%")
			w.serve(l)
			c := dial(t, l.Addresses[0].Addr.String())
			io.WriteString(c, tt.bytes)
			io.ReadAll(c)
			if got := lines(1)[0]; got != tt.failure {
				t.Errorf("logged %s", got)
			}
			w.await("listener.s.ssl.connection_error", 1)
		})
	}
}

func TestTLSChoosesTheCertificate(t *testing.T) {
	i := newIdentities(t)
	wild, exact := i.ca.Issue([]string{"*.wild.example"}), i.ca.Issue([]string{"a.wild.example"})
	w := newWorldOf(t, "off")
	w.cluster("c", banner(t, "a"))
	l := secured(tcpListener("l", free(t), "c"), i.down(i.server, wild, exact))
	l.FilterChains[0].TLS.ALPN = []string{"h2", "http/1.1"}
	w.serve(l)
	for name, want := range map[string]pki.Leaf{
		"server.example": i.server, "a.wild.example": exact, "A.Wild.Example": exact, "b.wild.example": wild, "x.b.wild.example": i.server, "nowhere": i.server, "": i.server,
	} {
		c := dialTLS(t, l.Addresses[0].Addr.String(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err := c.Handshake(); err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		if got := c.ConnectionState().PeerCertificates[0]; !got.Equal(want.Cert) {
			t.Errorf("%q got the certificate of %v", name, got.DNSNames)
		}
	}
	for offer, want := range map[string]string{"http/1.1,h2": "h2", "http/1.1": "http/1.1", "foo": "", "": ""} {
		cfg := i.clientConfig(t)
		if offer != "" {
			cfg.NextProtos = strings.Split(offer, ",")
		}
		c := dialTLS(t, l.Addresses[0].Addr.String(), cfg)
		if err := c.Handshake(); err != nil {
			t.Errorf("%s: %v", offer, err)
		} else if got := c.ConnectionState().NegotiatedProtocol; got != want {
			t.Errorf("of %q it chose %q", offer, got)
		}
	}
}

func TestTLSResumesSessions(t *testing.T) {
	i := newIdentities(t)
	shared := i.down()
	shared.TicketKeys = &api.TicketKeys{Keys: [][]byte{make([]byte, 80)}}
	none := i.down()
	none.NoTickets = true
	short := i.down()
	short.SessionTimeout = time.Nanosecond
	long := i.down()
	long.SessionTimeout = time.Hour
	for what, tt := range map[string]struct {
		d    *api.DownstreamTLS
		want bool
	}{"own keys": {i.down(), true}, "given keys": {shared, true}, "tickets off": {none, false}, "session timeout over": {short, false}, "session timeout not over": {long, true}} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(fmt.Sprintf("%s, %x", what, version), func(t *testing.T) {
				w := newWorldOf(t, "off")
				w.cluster("c", banner(t, "a"))
				l := secured(tcpListener("l", free(t), "c"), tt.d)
				l.StatPrefix = "s"
				w.serve(l)
				cfg := i.clientConfig(t)
				cfg.MaxVersion, cfg.ClientSessionCache = version, tls.NewLRUClientSessionCache(1)
				var last *tls.Conn
				for range 2 {
					last = dialTLS(t, l.Addresses[0].Addr.String(), cfg)
					if got := readLine(t, last); got != "a" {
						t.Fatal(got)
					}
					last.Close()
				}
				if got := last.ConnectionState().DidResume; got != tt.want {
					t.Errorf("resumed: %v", got)
				}
				want := uint64(0)
				if tt.want {
					want = 1
				}
				w.await("listener.s.ssl.handshake", 2)
				if got := w.counter("listener.s.ssl.session_reused"); got != want {
					t.Errorf("session_reused %d", got)
				}
			})
		}
	}
}

// What is known of both sessions, as Envoy writes it.
func TestTLSIsLogged(t *testing.T) {
	i, w := newIdentities(t), newWorldOf(t, "off")
	ucfg := i.hostConfig(t)
	ucfg.ClientAuth, ucfg.ClientCAs = tls.RequireAndVerifyClientCert, i.ca.Pool()
	w.cluster("c", host(t, ucfg, echoes))
	up := i.up()
	up.Certificates = []*api.TLSCertificate{certificate(i.client)}
	w.originates("c", up)
	l := secured(tcpListener("l", free(t), "c"), i.mutual())
	l.StatPrefix = "s"
	lines := logged(t, l, "%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_TLS_CIPHER% %DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_PEER_DNS_SAN% %DOWNSTREAM_PEER_ISSUER% %DOWNSTREAM_LOCAL_URI_SAN% "+
		"%UPSTREAM_TLS_VERSION% %UPSTREAM_TLS_CIPHER% %UPSTREAM_PEER_URI_SAN% %UPSTREAM_PEER_DNS_SAN% %UPSTREAM_LOCAL_URI_SAN% %DOWNSTREAM_TRANSPORT_FAILURE_REASON% %UPSTREAM_TRANSPORT_FAILURE_REASON% %BYTES_RECEIVED% %BYTES_SENT%")
	w.serve(l)
	c := dialTLS(t, l.Addresses[0].Addr.String(), i.clientConfig(t, i.client))
	if err := exchange(c, "hello"); err != nil {
		t.Fatal(err)
	}
	c.Close()
	cipher := "TLS_AES_128_GCM_SHA256"
	want := "TLSv1.3 " + cipher + " spiffe://td/client client.example CN=ca spiffe://td/server TLSv1.3 " + cipher + " spiffe://td/server server.example spiffe://td/client - - 5 5"
	if got := lines(1)[0]; got != want {
		t.Errorf("logged\n%s, want\n%s", got, want)
	}
	for _, scope := range []string{"listener.s.ssl.", "cluster.c.ssl."} {
		for _, name := range []string{"handshake", "ciphers." + cipher, "curves.X25519", "versions.TLSv1.3", "sigalgs.ecdsa_secp256r1_sha256"} {
			if n := w.counter(scope + name); n != 1 {
				t.Errorf("%s%s: %d", scope, name, n)
			}
		}
		for _, name := range []string{"session_reused", "no_certificate", "connection_error"} {
			if n := w.counter(scope + name); n != 0 {
				t.Errorf("%s%s: %d", scope, name, n)
			}
		}
	}
	if n := w.value("listener.s.ssl.certificate.unnamed_cert_e3b0c442.expiration_unix_time_seconds"); n != uint64(i.server.Cert.NotAfter.Unix()) {
		t.Errorf("the certificate ends at %d", n)
	}
}

// A failed handshake with a host is a failed connect, and tried again as one.
func TestTLSToHostsFails(t *testing.T) {
	i, other := newIdentities(t), newIdentities(t)
	needs := i.hostConfig(t)
	needs.ClientAuth, needs.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12
	sni := i.up()
	sni.Validation.Names = []api.SubjectAltName{{Type: api.SANDNS, Match: api.StringMatch{Kind: api.MatchExact, Value: "other.example"}}}
	auto := i.up()
	auto.SNI, auto.NameIsSNI = "elsewhere.example", true
	hangs := func(c net.Conn) { io.Copy(io.Discard, c) }
	for _, tt := range []struct {
		what          string
		host          *tls.Config
		h             handler
		up            *api.UpstreamTLS
		stat, failure string
	}{
		{"of another authority", other.hostConfig(t), echoes, i.up(), "ssl.fail_verify_error", verifyFailed + "X509_verify_cert:_certificate_verification_error_at_depth_0:_unable_to_get_local_issuer_certificate:TLS_error_end"},
		{"of another name", i.hostConfig(t), echoes, sni, "ssl.fail_verify_san", verifyFailed + "SAN_matcher,_certificate_SANs_are_[server.example,_spiffe://td/server]:TLS_error_end"},
		{"of a name that is not the SNI", i.hostConfig(t), echoes, auto, "ssl.fail_verify_san", verifyFailed + "SAN_matcher,_certificate_SANs_are_[server.example,_spiffe://td/server]:TLS_error_end"},
		{"that wants a certificate", needs, echoes, i.up(), "ssl.connection_error", "TLS_error:|268436496:SSL_routines:OPENSSL_internal:SSLV3_ALERT_HANDSHAKE_FAILURE:TLS_error_end"},
		{"that echoes", nil, echoes, i.up(), "ssl.connection_error", "TLS_error:|268435679:SSL_routines:OPENSSL_internal:UNEXPECTED_MESSAGE:TLS_error_end"},
		{"that says nothing", nil, hangs, i.up(), "upstream_cx_connect_timeout", "-"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := newWorldOf(t, "off")
			w.cluster("c", host(t, tt.host, tt.h))
			w.originates("c", tt.up, func(c *api.Cluster) { c.ConnectTimeout = 300 * time.Millisecond })
			l := tcpListener("l", free(t), "c")
			l.FilterChains[0].Filters[0].TCPProxy.MaxConnectAttempts = 2
			lines := logged(t, l, "%RESPONSE_FLAGS% %UPSTREAM_TRANSPORT_FAILURE_REASON%")
			w.serve(l)
			c := dial(t, l.Addresses[0].Addr.String())
			if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
				t.Errorf("read %q, %v", b, err)
			}
			if got, want := lines(1)[0], "UF,URX "+tt.failure; got != want {
				t.Errorf("logged\n%s, want\n%s", got, want)
			}
			for _, name := range []string{tt.stat, "upstream_cx_connect_fail", "upstream_cx_total", "upstream_cx_destroy"} {
				if n := w.counter("cluster.c." + name); n != 2 {
					t.Errorf("%s: %d", name, n)
				}
			}
			w.await("cluster.c.upstream_cx_active", 0)
		})
	}
}

func TestTLSToHostsByTheirMetadata(t *testing.T) {
	i, w := newIdentities(t), newWorldOf(t, "off")
	w.cluster("c", host(t, nil, echoes), host(t, i.hostConfig(t), echoes))
	w.originates("c", nil, func(c *api.Cluster) {
		c.SocketMatches = []api.SocketMatch{{Name: "tls", Match: map[string]any{"tlsMode": "istio"}, Socket: api.UpstreamSocket{TLS: i.up()}}}
		a := *c.Assignment
		a.Localities = []api.Locality{a.Localities[0]}
		es := append([]api.Endpoint(nil), a.Localities[0].Endpoints...)
		es[1].Metadata = api.Metadata{api.SocketMatchMetadata: {"tlsMode": "istio", "more": 1.0}}
		a.Localities[0].Endpoints = es
		c.Assignment = &a
	})
	l := tcpListener("l", free(t), "c")
	w.serve(l)
	for range 4 {
		if err := exchange(dial(t, l.Addresses[0].Addr.String()), "hello"); err != nil {
			t.Error(err)
		}
	}
	if n := w.counter("cluster.c.ssl.handshake"); n != 2 {
		t.Errorf("%d handshakes, want 2 of 4 connections", n)
	}
}

func TestTLSTakesTheSNIOfTheHost(t *testing.T) {
	i, w := newIdentities(t), newWorldOf(t, "off")
	names := make(chan string, 1)
	cfg := i.hostConfig(t)
	cfg.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		names <- h.ServerName + " " + strings.Join(h.SupportedProtos, ",")
		return nil, nil
	}
	w.cluster("c", host(t, cfg, echoes))
	up := i.up()
	up.SNIFromHost, up.ALPN, up.NameIsSNI = true, []string{"istio"}, true
	up.SNI = "elsewhere.example"
	w.originates("c", up, func(c *api.Cluster) {
		a := *c.Assignment
		a.Localities = []api.Locality{a.Localities[0]}
		es := append([]api.Endpoint(nil), a.Localities[0].Endpoints...)
		es[0].Hostname = "server.example"
		a.Localities[0].Endpoints = es
		c.Assignment = &a
	})
	l := tcpListener("l", free(t), "c")
	w.serve(l)
	if err := exchange(dial(t, l.Addresses[0].Addr.String()), "hello"); err != nil {
		t.Error(err)
	}
	if got := <-names; got != "server.example istio" {
		t.Errorf("offered %s", got)
	}
}

// New handshakes take a rotated secret, established connections stay.
func TestTLSRotatesSecrets(t *testing.T) {
	i, w := newIdentities(t), newWorldOf(t, "off")
	w.cluster("c", host(t, nil, echoes))
	d := i.down()
	d.Certificates, d.CertificateRefs = nil, []api.SecretRef{{Key: "k", Name: "mine"}}
	l := secured(tcpListener("l", free(t), "c"), d)
	l.StatPrefix = "s"
	lines := logged(t, l, "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%")
	w.serve(l)
	addr := l.Addresses[0].Addr.String()
	if err := exchange(dialTLS(t, addr, i.clientConfig(t)), "x"); err == nil {
		t.Error("served without a certificate")
	}
	if got := lines(1)[0]; got != "TLS_error:_Secret_is_not_supplied_by_SDS" {
		t.Errorf("logged %s", got)
	}
	w.await("listener.s.server_ssl_socket_factory.downstream_context_secrets_not_ready", 1)
	next := i.ca.Issue([]string{"server.example"})
	var conns []*tls.Conn
	for n, leaf := range []pki.Leaf{i.server, next} {
		w.snap.Secrets = api.Secrets{"k": {Name: "mine", Certificate: certificate(leaf)}}
		w.serve(l)
		c := dialTLS(t, addr, i.clientConfig(t))
		if err := exchange(c, "hello"); err != nil {
			t.Fatal(err)
		}
		if !c.ConnectionState().PeerCertificates[0].Equal(leaf.Cert) {
			t.Errorf("handshake %d got another certificate", n)
		}
		conns = append(conns, c)
	}
	for _, c := range conns {
		if err := exchange(c, "still here"); err != nil {
			t.Error(err)
		}
	}
	if n := w.counter("listener.s.server_ssl_socket_factory.ssl_context_update_by_sds"); n != 2 {
		t.Errorf("%d updates", n)
	}
	if n := w.value("listener.s.ssl.certificate.mine.expiration_unix_time_seconds"); n != uint64(next.Cert.NotAfter.Unix()) {
		t.Errorf("the certificate ends at %d", n)
	}
}

// RBAC knows clients by their certificates, and decides at the first byte of the
// stream, not of the handshake.
func TestTLSIsKnownToRBAC(t *testing.T) {
	i := newIdentities(t)
	prefix := func(s string) *api.StringMatch { return &api.StringMatch{Kind: api.MatchPrefix, Value: s} }
	always := true
	nameless := i.ca.Issue(nil, func(c *x509.Certificate) { c.Subject.CommonName = "joe" })
	by := func(kind api.MatchInputKind, value string) *api.RBACEngine {
		return &api.RBACEngine{Matcher: &api.Matcher{Tree: &api.MatcherTree{Input: api.MatchInput{Kind: kind}, Exact: map[string]*api.OnMatch{value: {Action: api.RBACVerdict(api.RBACAllow, "n")}}}}}
	}
	who := func(r api.RBACRule) *api.RBACEngine {
		return &api.RBACEngine{Policies: []api.RBACPolicy{{Name: "p", Permissions: []api.RBACRule{{Const: &always}}, Principals: []api.RBACRule{r}}}}
	}
	for _, tt := range []struct {
		what   string
		engine *api.RBACEngine
		client *pki.Leaf
		want   bool
	}{
		{"authenticated by URI", who(api.RBACRule{Authenticated: &api.Authenticated{Name: prefix("spiffe://td/client")}}), &i.client, true},
		{"authenticated by DNS name", who(api.RBACRule{Authenticated: &api.Authenticated{Name: prefix("client.")}}), &i.client, true},
		{"authenticated by subject", who(api.RBACRule{Authenticated: &api.Authenticated{Name: prefix("CN=joe")}}), &nameless, true},
		{"authenticated by another name", who(api.RBACRule{Authenticated: &api.Authenticated{Name: prefix("spiffe://other")}}), &i.client, false},
		{"authenticated, any", who(api.RBACRule{Authenticated: &api.Authenticated{}}), nil, true},
		{"mTLS, any", who(api.RBACRule{MutualTLS: &api.MutualTLS{}}), &i.client, true},
		{"mTLS, none", who(api.RBACRule{MutualTLS: &api.MutualTLS{}}), nil, false},
		{"mTLS by name", who(api.RBACRule{MutualTLS: &api.MutualTLS{Name: &api.SubjectAltName{Type: api.SANURI, Match: *prefix("spiffe://td/")}}}), &i.client, true},
		{"mTLS by another kind of name", who(api.RBACRule{MutualTLS: &api.MutualTLS{Name: &api.SubjectAltName{Type: api.SANDNS, Match: *prefix("spiffe://td/")}}}), &i.client, false},
		{"matcher by URIs", by(api.InputURISAN, "spiffe://td/client"), &i.client, true},
		{"matcher by DNS names", by(api.InputDNSSAN, "client.example"), &i.client, true},
		{"matcher by subject", by(api.InputSubject, "CN=joe"), &nameless, true},
		{"matcher by subject, none", by(api.InputSubject, "CN=joe"), nil, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := newWorldOf(t, "off")
			w.cluster("c", host(t, nil, echoes))
			d := i.mutual()
			d.RequireClientCertificate = false
			l := secured(tcpListener("l", free(t), "c"), d)
			c := l.FilterChains[0]
			c.Filters = append([]api.Filter{{RBAC: &api.RBAC{StatPrefix: "p", Enforced: tt.engine}}}, c.Filters...)
			w.serve(l)
			cfg := i.clientConfig(t)
			if tt.client != nil {
				cfg = i.clientConfig(t, *tt.client)
			}
			conn := dialTLS(t, l.Addresses[0].Addr.String(), cfg)
			if err := conn.Handshake(); err != nil {
				t.Fatal(err)
			}
			w.await("listener."+l.StatName()+".ssl.handshake", 1)
			if n := w.counter("p.rbac.allowed") + w.counter("p.rbac.denied"); n != 0 {
				t.Error("it decided before there was a byte")
			}
			if err := exchange(conn, "hello"); (err == nil) != tt.want {
				t.Errorf("served: %v", err)
			}
		})
	}
}

func TestTLSKeysAreLogged(t *testing.T) {
	i, w := newIdentities(t), newWorldOf(t, "off")
	path := filepath.Join(t.TempDir(), "keys")
	w.cluster("c", host(t, i.hostConfig(t), echoes))
	up := i.up()
	up.KeyLog = &api.TLSKeyLog{Path: path}
	w.originates("c", up)
	l := secured(tcpListener("l", free(t), "c"), i.down())
	l.FilterChains[0].TLS.KeyLog = &api.TLSKeyLog{Path: path + "2", Remote: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	w.serve(l)
	if err := exchange(dialTLS(t, l.Addresses[0].Addr.String(), i.clientConfig(t)), "hello"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), "CLIENT_TRAFFIC_SECRET_0 ") {
		t.Errorf("logged %q, %v", b, err)
	}
	if _, err := os.Stat(path + "2"); err == nil {
		t.Error("logged what comes from another address")
	}
}
