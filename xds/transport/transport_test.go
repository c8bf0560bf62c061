package transport

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/test/pki"
	"github.com/sluice-proxy/sluice/xds/file"
	"github.com/sluice-proxy/sluice/xds/resolve"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// call is what a server saw of a call.
type call struct {
	header     metadata.MD
	serverName string
	client     []string // DNS names and URIs of the client's certificate
}

// server answers grpc.health.v1 and tells what it saw. creds is nil for plaintext.
func server(t *testing.T, l net.Listener, c *tls.Config) <-chan call {
	t.Helper()
	calls := make(chan call, 8)
	o := []grpc.ServerOption{grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		var one call
		one.header, _ = metadata.FromIncomingContext(ctx)
		p, _ := grpcpeer.FromContext(ctx)
		if i, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			one.serverName = i.State.ServerName
			for _, c := range i.State.PeerCertificates[:min(1, len(i.State.PeerCertificates))] {
				one.client = append(one.client, c.DNSNames...)
			}
		}
		calls <- one
		return h(ctx, req)
	})}
	if c != nil {
		o = append(o, grpc.Creds(credentials.NewTLS(c)))
	}
	s := grpc.NewServer(o...)
	healthpb.RegisterHealthServer(s, health.NewServer())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }() // ends with Stop
	t.Cleanup(func() { s.Stop(); <-done })
	return calls
}

func listen(t *testing.T, network, at string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, at)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func parse(t testing.TB, in string, m proto.Message) {
	t.Helper()
	if _, err := file.Parse([]byte(in), ".yaml", file.Options{}, m); err != nil {
		t.Fatal(err)
	}
}

// read makes a cluster named c with one endpoint; more is YAML of further fields.
func read(t testing.TB, to net.Addr, more string, known ...*tlsv3.Secret) (*Cluster, error) {
	t.Helper()
	p := &clusterv3.Cluster{}
	parse(t, more, p)
	p.Name = "c"
	if p.LoadAssignment == nil {
		a := &corev3.Address{}
		if to.Network() == "unix" {
			a.Address = &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: to.String()}}
		} else {
			parse(t, fmt.Sprintf("socket_address: {address: 127.0.0.1, port_value: %d}", to.(*net.TCPAddr).Port), a)
		}
		p.LoadAssignment = &endpointv3.ClusterLoadAssignment{}
		parse(t, "{cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {}}]}]}", p.LoadAssignment)
		p.LoadAssignment.Endpoints[0].LbEndpoints[0].GetEndpoint().Address = a
	}
	byName := map[string]*tlsv3.Secret{}
	for _, s := range known {
		byName[s.GetName()] = s
	}
	return Read(p, byName)
}

// ask makes one connection and one call over it.
func ask(t testing.TB, d *Dialer, s Service) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := d.GRPC(ctx, s)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = healthpb.NewHealthClient(c).Check(ctx, &healthpb.HealthCheckRequest{})
	return err
}

func dialer(c *Cluster) *Dialer { return New(Options{Clusters: map[string]*Cluster{"c": c}}) }

func must(t testing.TB, c *Cluster, err error) *Cluster {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestUnixSocketsAlsoRelativeToTheWorkingDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, path := range []string{"./xds.sock", filepath.Join(t.TempDir(), "s"), "@sluice-transport-test-" + fmt.Sprint(os.Getpid())} {
		l := listen(t, "unix", path)
		calls := server(t, l, nil)
		c, err := read(t, &net.UnixAddr{Net: "unix", Name: path}, "{}")
		if err := ask(t, dialer(must(t, c, err)), Service{Cluster: "c", Authority: "c"}); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if got := (<-calls).header.Get(":authority"); len(got) != 1 || got[0] != "c" {
			t.Errorf(":authority %q", got)
		}
	}
}

func TestMetadataGoesWithEveryCall(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	calls := server(t, l, nil)
	c, err := read(t, l.Addr(), "upstream_connection_options: {tcp_keepalive: {keepalive_time: 300}}")
	if err := ask(t, dialer(must(t, c, err)), Service{Cluster: "c", Authority: "a", Metadata: [][2]string{{"X-Token", "1"}, {"x-token", "2"}}}); err != nil {
		t.Fatal(err)
	}
	if got := (<-calls).header; !slices.Equal(got.Get("x-token"), []string{"1", "2"}) || got.Get(":authority")[0] != "a" {
		t.Error(got)
	}
	if c.TCP.Idle != 300*time.Second || c.TCP.Count != -1 || !c.TCP.Enable {
		t.Errorf("%+v", c.TCP)
	}
}

func TestEndpointsTakeTurns(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	server(t, l, nil)
	live := Endpoint{Addr: l.Addr().(*net.TCPAddr).AddrPort()}
	dead := Endpoint{Path: filepath.Join(t.TempDir(), "none")}
	d := dialer(&Cluster{Name: "c", Endpoints: []Endpoint{dead, live, dead}})
	for i, want := range []bool{false, true, false, false, true} {
		if err := ask(t, d, Service{Cluster: "c"}); (err == nil) != want {
			t.Errorf("attempt %d: %v", i, err)
		}
	}
	if err := ask(t, d, Service{Cluster: "d"}); !errors.Is(err, ErrCluster) {
		t.Error(err)
	}
	if err := ask(t, dialer(&Cluster{Name: "c"}), Service{Cluster: "c"}); err == nil || !strings.Contains(err.Error(), "cluster c: no healthy upstream") {
		t.Error(err)
	}
}

func tlsOf(context string) string {
	return `transport_socket: {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, ` + context + `}}`
}

func inline(b []byte) string { return "{inline_bytes: " + base64.StdEncoding.EncodeToString(b) + "}" }

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ca, other := pki.New(t, "ca"), pki.New(t, "other")
	leaf := ca.Issue([]string{"*.cp.example", "localhost", "127.0.0.1", "spiffe://td/ns/cp"})
	client := ca.Issue([]string{"client.example"})
	pki.Write(t, dir+"/ca.pem", ca.PEM)
	pki.Write(t, dir+"/client.pem", client.PEM)
	pki.Write(t, dir+"/client.key", client.Key)
	t.Setenv("SLUICE_TEST_CA", string(ca.PEM))
	secret := &tlsv3.Secret{}
	parse(t, "name: cp_ca\nvalidation_context: {trusted_ca: "+inline(ca.PEM)+"}", secret)
	pki.Write(t, dir+"/ca.json", []byte(`{"resources":[{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret","name":"xds_trusted_ca","validation_context":{"trusted_ca":{"filename":"`+dir+`/ca.pem"},"match_typed_subject_alt_names":[{"san_type":"DNS","matcher":{"exact":"localhost"}}]}}]}`))
	pki.Write(t, dir+"/cert.json", []byte(`{"resources":[{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret","name":"xds_certificate","tls_certificate":{"certificate_chain":{"filename":"`+dir+`/client.pem"},"private_key":{"filename":"`+dir+`/client.key"}}}]}`))
	trust := "trusted_ca: " + inline(ca.PEM)
	typed := func(kind, matcher string) string {
		return tlsOf("common_tls_context: {validation_context: {" + trust + ", match_typed_subject_alt_names: [{san_type: " + kind + ", matcher: {" + matcher + "}}]}}")
	}
	for _, tt := range []struct {
		what, in string
		want     string // of the error; empty: connects
		sni      string
		client   string
	}{
		{what: "no validation takes any certificate", in: tlsOf("common_tls_context: {}")},
		{what: "CA inline", in: tlsOf("sni: localhost, common_tls_context: {validation_context: {" + trust + "}}"), sni: "localhost"},
		{what: "CA from a file", in: tlsOf("common_tls_context: {validation_context: {trusted_ca: {filename: " + dir + "/ca.pem}}}")},
		{what: "CA from the environment", in: tlsOf("common_tls_context: {validation_context: {trusted_ca: {environment_variable: SLUICE_TEST_CA}}}")},
		{what: "CA from a static secret", in: tlsOf("common_tls_context: {validation_context_sds_secret_config: {name: cp_ca}}")},
		{what: "another CA", in: tlsOf("common_tls_context: {validation_context: {trusted_ca: " + inline(other.PEM) + "}}"), want: "unable to get local issuer certificate"},
		{what: "another CA, untrusted taken", in: tlsOf("common_tls_context: {validation_context: {trusted_ca: " + inline(other.PEM) + ", trust_chain_verification: ACCEPT_UNTRUSTED}}")},
		{what: "SAN DNS exact", in: typed("DNS", "exact: localhost")},
		{what: "SAN DNS by the certificate's wildcard", in: typed("DNS", "exact: a.cp.example")},
		{what: "SAN DNS two labels deep", in: typed("DNS", "exact: a.b.cp.example"), want: "SAN matcher, certificate SANs are ["},
		{what: "SAN DNS is no URI", in: typed("DNS", `prefix: "spiffe://"`), want: "SAN matcher, certificate SANs are ["},
		{what: "SAN URI prefix", in: typed("URI", `prefix: "spiffe://td/"`)},
		{what: "SAN URI regex is anchored", in: typed("URI", `safe_regex: {regex: "spiffe://td/ns"}`), want: "SAN matcher, certificate SANs are ["},
		{what: "SAN IP", in: typed("IP_ADDRESS", "exact: 127.0.0.1")},
		{what: "older SAN list", in: tlsOf("common_tls_context: {validation_context: {" + trust + ", match_subject_alt_names: [{exact: no}, {suffix: host}]}}")},
		{what: "SNI as name", in: tlsOf("sni: x.cp.example, auto_sni_san_validation: true, common_tls_context: {validation_context: {" + trust + "}}"), sni: "x.cp.example"},
		{what: "SNI as name, another one", in: tlsOf("sni: example.com, auto_sni_san_validation: true, common_tls_context: {validation_context: {" + trust + "}}"), want: "SAN matcher, certificate SANs are ["},
		{what: "hash", in: tlsOf(`common_tls_context: {validation_context: {verify_certificate_hash: ["` + hashOf(leaf.Cert.Raw, ":") + `"]}}`)},
		{what: "another hash", in: tlsOf(`common_tls_context: {validation_context: {verify_certificate_hash: ["` + hashOf(client.Cert.Raw, "") + `"]}}`), want: "cert hash and spki"},
		{what: "client certificate from files", in: tlsOf("common_tls_context: {tls_certificates: [{certificate_chain: {filename: " + dir + "/client.pem}, private_key: {filename: " + dir + "/client.key}}]}"), client: "client.example"},
		{what: "filesystem SDS, as Envoy Gateway has it", in: tlsOf("sni: localhost, common_tls_context: {tls_params: {tls_maximum_protocol_version: TLSv1_3}, tls_certificate_sds_secret_configs: [{name: xds_certificate, sds_config: {path_config_source: {path: " + dir + "/cert.json}, resource_api_version: V3}}]," +
			"validation_context_sds_secret_config: {name: xds_trusted_ca, sds_config: {path_config_source: {path: " + dir + "/ca.json}, resource_api_version: V3}}}"), sni: "localhost", client: "client.example"},
		{what: "combined", in: tlsOf("common_tls_context: {combined_validation_context: {default_validation_context: {match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: nobody}}]}, validation_context_sds_secret_config: {name: cp_ca}}}"), want: "SAN matcher, certificate SANs are ["},
		{what: "revoked", in: tlsOf("common_tls_context: {validation_context: {" + trust + ", crl: " + inline(ca.Revoke(leaf)) + "}}"), want: "certificate revoked"},
		{what: "not revoked", in: tlsOf("common_tls_context: {validation_context: {" + trust + ", crl: " + inline(ca.Revoke(client)) + "}}")},
		{what: "another's list", in: tlsOf("common_tls_context: {validation_context: {" + trust + ", crl: " + inline(other.Revoke(client)) + "}}"), want: "unable to get certificate CRL"},
		{what: "a version that the server has not", in: tlsOf("common_tls_context: {tls_params: {tls_minimum_protocol_version: TLSv1_0, tls_maximum_protocol_version: TLSv1_1}}"), want: "TLS with 127.0.0.1"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			l := listen(t, "tcp", "127.0.0.1:0")
			calls := server(t, l, &tls.Config{Certificates: []tls.Certificate{leaf.TLS(t)}, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2"}})
			c, err := read(t, l.Addr(), tt.in, secret)
			err = ask(t, dialer(must(t, c, err)), Service{Cluster: "c"})
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, ErrTLS) {
					t.Fatalf("got  %v\nwant %s", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := <-calls
			if got.serverName != tt.sni || strings.Join(got.client, ",") != tt.client {
				t.Errorf("server saw %+v", got)
			}
		})
	}
}

func TestTLSIsRefusedByFieldAndValue(t *testing.T) {
	ca := pki.New(t, "ca")
	leaf, second := ca.Issue([]string{"a"}), ca.Issue([]string{"b"})
	pair := func(cert, key []byte) string {
		return "{certificate_chain: " + inline(cert) + ", private_key: " + inline(key) + "}"
	}
	for _, tt := range []struct{ what, in, want string }{
		{"no such file", "validation_context: {trusted_ca: {filename: /none/ca.pem}}", "validation_context.trusted_ca: Invalid path: /none/ca.pem"},
		{"no certificate", "validation_context: {trusted_ca: {inline_string: x}}", "validation_context.trusted_ca: Failed to load trusted CA certificates from <inline>"},
		{"SAN without CA", "validation_context: {match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: x}}]}", "validation_context.match_typed_subject_alt_names: SAN-based verification of peer certificates without trusted CA is insecure and not allowed"},
		{"another key", "tls_certificates: [" + pair(leaf.PEM, second.Key) + "]", "tls_certificates[0].private_key: Failed to load private key from <inline>, Cause: error:0b000074:X.509 certificate routines:OPENSSL_internal:KEY_VALUES_MISMATCH"},
		{"two certificates", "tls_certificates: [" + pair(leaf.PEM, leaf.Key) + "," + pair(leaf.PEM, leaf.Key) + "]", "common_tls_context: Multiple TLS certificates are not supported for client contexts"},
		{"no such secret", "validation_context_sds_secret_config: {name: x}", "validation_context_sds_secret_config: Unknown static certificate validation context: x"},
		{"no such SDS file", "validation_context_sds_secret_config: {name: x, sds_config: {path_config_source: {path: /none/x.yaml}}}", "sds_config.path_config_source.path: paths must refer to an existing path in the system: '/none/x.yaml' does not exist"},
		{"SDS by gRPC", "validation_context_sds_secret_config: {name: x, sds_config: {ads: {}}}", "sds_config: not supported yet for a control plane, except from a file"},
		{"a validator of its own", `validation_context: {custom_validator_config: {name: v, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig}}}`, "custom_validator_config: Failed to get certificate validator factory for v"},
		{"a cipher that nobody has", "tls_params: {cipher_suites: [X]}", "cipher_suites: Failed to initialize cipher suites X. The following ciphers were rejected when tried individually: X"},
		{"a curve that nobody has", "tls_params: {ecdh_curves: [X]}", "ecdh_curves: Failed to initialize ECDH curves X"},
		{"a hash that is none", "validation_context: {verify_certificate_hash: [x]}", "verify_certificate_hash[0]: Invalid hex-encoded SHA-256 x"},
	} {
		_, err := read(t, &net.TCPAddr{Port: 1}, tlsOf("common_tls_context: {"+tt.in+"}"))
		if err == nil || !strings.HasPrefix(err.Error(), "transport_socket.common_tls_context") || !strings.HasSuffix(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.what, err)
		}
	}
}

// A file that is moved over the old one counts for the next connection; one that
// cannot be read costs nothing.
func TestSecretsFromFilesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	ca, next := pki.New(t, "ca"), pki.New(t, "next")
	sds := func(ca *pki.CA) []byte {
		return []byte(`resources: [{"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret, name: s, validation_context: {trusted_ca: ` + inline(ca.PEM) + `}}]`)
	}
	move := func(b []byte) {
		pki.Write(t, dir+"/new", b)
		if err := os.Rename(dir+"/new", dir+"/s.yaml"); err != nil {
			t.Fatal(err)
		}
	}
	move(sds(ca))
	l := listen(t, "tcp", "127.0.0.1:0")
	server(t, l, &tls.Config{Certificates: []tls.Certificate{ca.Issue([]string{"a"}).TLS(t)}})
	c, err := read(t, l.Addr(), tlsOf("common_tls_context: {validation_context_sds_secret_config: {name: s, sds_config: {path_config_source: {path: "+dir+"/s.yaml, watched_directory: {path: "+dir+"}}}}}"))
	d := dialer(must(t, c, err))
	for _, step := range []struct {
		what string
		file []byte
		ok   bool
	}{
		{"the first", sds(ca), true}, {"another", sds(next), false}, {"rubbish", []byte("{"), false}, {"the first again", sds(ca), true}, {"rubbish again", nil, true},
	} {
		move(step.file)
		if err := ask(t, d, Service{Cluster: "c"}); (err == nil) != step.ok {
			t.Errorf("%s: %v", step.what, err)
		}
	}
}

func TestNamesAreResolvedAndKept(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	server(t, l, nil)
	port := l.Addr().(*net.TCPAddr).Port
	c, err := read(t, nil, fmt.Sprintf("{type: STRICT_DNS, dns_refresh_rate: 0.001s, load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: cp.example, port_value: %d}}}}]}]}}", port))
	d := dialer(must(t, c, err))
	var answers []netip.Addr
	asked, fail := 0, error(nil)
	d.peers["c"].resolver = lookup(func(host string) ([]netip.Addr, error) {
		if asked++; host != "cp.example" {
			t.Errorf("asked for %q", host)
		}
		return answers, fail
	})
	step := func(what string, ok bool) {
		t.Helper()
		time.Sleep(2 * time.Millisecond) // more than dns_refresh_rate
		if err := ask(t, d, Service{Cluster: "c"}); (err == nil) != ok {
			t.Errorf("%s: %v", what, err)
		}
	}
	fail = errors.New("no such host")
	step("unknown", false)
	answers, fail = []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	step("known", true)
	answers, fail = nil, errors.New("no such host")
	step("forgotten by the server", true)
	if asked != 3 {
		t.Errorf("asked %d times", asked)
	}
	d.peers["c"].DNS.Refresh = time.Hour
	answers, fail = []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	step("again", true)
	answers = []netip.Addr{netip.MustParseAddr("127.0.0.2")}
	step("held for an hour", true)
}

// lookup is a resolver of which the addresses count.
type lookup func(host string) ([]netip.Addr, error)

func (l lookup) Lookup(_ context.Context, host string, _ api.DNSFamily) ([]resolve.Address, error) {
	addrs, err := l(host)
	var out []resolve.Address
	for _, a := range addrs {
		out = append(out, resolve.Address{Addr: a})
	}
	return out, err
}

func TestFamilies(t *testing.T) {
	four, six := netip.MustParseAddr("1.2.3.4"), netip.MustParseAddr("::1")
	for family, want := range map[api.DNSFamily][]netip.Addr{
		api.DNSAuto: {six, four}, api.DNSV4Preferred: {four, six}, api.DNSAll: {six, four},
	} {
		if got := pick([]resolve.Address{{Addr: four}, {Addr: six}}, family); !slices.Equal(got, want) {
			t.Errorf("%s: %v", family, got)
		}
		if asked := either(family); asked != api.DNSAll {
			t.Errorf("%s asks for %s", family, asked)
		}
	}
	if either(api.DNSV4Only) != api.DNSV4Only || either(api.DNSV6Only) != api.DNSV6Only {
		t.Error("one family asks for both")
	}
}

func TestGoogleGRPC(t *testing.T) {
	dir := t.TempDir()
	ca := pki.New(t, "ca")
	leaf := ca.Issue([]string{"localhost", "127.0.0.1"})
	pki.Write(t, dir+"/token", []byte("one\n"))
	l := listen(t, "tcp", "127.0.0.1:0")
	calls := server(t, l, &tls.Config{Certificates: []tls.Certificate{leaf.TLS(t)}})
	port := l.Addr().(*net.TCPAddr).Port
	google := func(target, more string) (*Dialer, Service, error) {
		p := &corev3.GrpcService_GoogleGrpc{}
		parse(t, "{target_uri: '"+target+"', stat_prefix: x, channel_credentials: {ssl_credentials: {root_certs: "+inline(ca.PEM)+"}}"+more+"}", p)
		c, s, err := ReadGoogle(p)
		return New(Options{Clusters: map[string]*Cluster{s.Cluster: c}}), s, err
	}
	token := `, credentials_factory_name: envoy.grpc_credentials.file_based_metadata, call_credentials: [{from_plugin: {name: envoy.grpc_credentials.file_based_metadata, typed_config: {"@type": type.googleapis.com/envoy.config.grpc_credential.v3.FileBasedMetadataConfig, secret_data: {filename: ` + dir + `/token}, header_prefix: "Bearer "}}}]`
	d, s, err := google(fmt.Sprintf("127.0.0.1:%d", port), token)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one", "two"} {
		pki.Write(t, dir+"/token", []byte(want))
		if err := ask(t, d, s); err != nil {
			t.Fatal(err)
		}
		if got := (<-calls).header.Get("authorization"); !slices.Equal(got, []string{"Bearer " + want}) {
			t.Errorf("authorization %q", got)
		}
	}
	d, s, err = google(fmt.Sprintf("dns:///127.0.0.1:%d", port), `, channel_args: {args: {grpc.ssl_target_name_override: {string_value: example.com}}}`)
	if err != nil {
		t.Fatal(err)
	}
	if err := ask(t, d, s); err == nil || !strings.Contains(err.Error(), "verify host: certificate is valid for localhost, not example.com") {
		t.Error(err)
	}
	p := &corev3.GrpcService_GoogleGrpc{}
	parse(t, "{target_uri: 'a:1', stat_prefix: x, call_credentials: [{access_token: t}]}", p)
	if _, _, err := ReadGoogle(p); err == nil || !strings.HasPrefix(err.Error(), "call_credentials: they need ssl_credentials") {
		t.Error(err)
	}
	for uri, want := range map[string]string{"a": "a:443", "dns://1.2.3.4/a:5": "a:5", "unix:x/y": "unix:x/y", "unix:///x/y": "unix:/x/y", "ipv6:[::1]:7": "[::1]:7", "ipv4:1.2.3.4:5,6.7.8.9:1": "1.2.3.4:5", ":": "", "a:b": ""} {
		c := &Cluster{}
		_, err := c.target(uri)
		if (err != nil) != (want == "") || err == nil && c.Endpoints[0].String() != want {
			t.Errorf("%s: %v, %v", uri, c.Endpoints, err)
		}
	}
}

// REST speaks HTTP/1.1 over the same kind of connection.
func TestHTTPIsTheBareConnection(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	defer l.Close()
	c, err := read(t, l.Addr(), "{}")
	conn, err := dialer(must(t, c, err)).HTTP(context.Background(), "c")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := other.Read(b); err != nil || b[0] != 'x' {
		t.Fatal(err, b)
	}
}

func hashOf(b []byte, sep string) string {
	sum := sha256.Sum256(b)
	var parts []string
	for _, c := range sum {
		parts = append(parts, fmt.Sprintf("%02X", c))
	}
	return strings.Join(parts, sep)
}

func FuzzRead(f *testing.F) {
	ca := pki.New(f, "ca")
	leaf := ca.Issue([]string{"a"})
	for _, in := range []string{
		tlsOf("sni: a, common_tls_context: {validation_context: {trusted_ca: " + inline(ca.PEM) + ", crl: " + inline(ca.Revoke(leaf)) + "}}"),
		tlsOf("common_tls_context: {tls_certificates: [{certificate_chain: " + inline(leaf.PEM) + ", private_key: " + inline(leaf.Key) + "}]}"),
		"{type: STRICT_DNS, load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: a, port_value: 1}}}}]}]}, upstream_connection_options: {tcp_keepalive: {keepalive_time: 4294967295}}}",
		"{http2_protocol_options: {connection_keepalive: {interval: 1s, timeout: 2s}}, upstream_bind_config: {source_address: {address: '::1', port_value: 0}}}",
	} {
		p := &clusterv3.Cluster{}
		parse(f, in, p)
		b, err := proto.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &clusterv3.Cluster{}
		if proto.Unmarshal(b, p) != nil {
			return
		}
		c, err := Read(p, nil)
		if err == nil && c == nil || err != nil && err.Error() == "" {
			t.Fatal(c, err)
		}
	})
}
