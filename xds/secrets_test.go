package xds

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/test/control"
	"github.com/sluice-proxy/sluice/test/pki"
	"github.com/sluice-proxy/sluice/xds/bootstrap"
	"github.com/sluice-proxy/sluice/xds/resource"
)

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}

func inFile(path string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path}}
}

func certSecret(name string, chain, key *corev3.DataSource) *tlsv3.Secret {
	return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: chain, PrivateKey: key}}}
}

func caSecret(name string, ca *corev3.DataSource) *tlsv3.Secret {
	return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: ca}}}
}

// overADS asks for a secret; wait 0 is for ever.
func overADS(name string, wait time.Duration) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: &corev3.ConfigSource{
		ResourceApiVersion: corev3.ApiVersion_V3, InitialFetchTimeout: durationpb.New(wait),
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}}
}

func fromFile(name, path string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{PathConfigSource: &corev3.PathConfigSource{Path: path}},
	}}
}

func fromStream(name string, wait time.Duration) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: &corev3.ConfigSource{InitialFetchTimeout: durationpb.New(wait),
		ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
			ApiType: corev3.ApiConfigSource_GRPC, TransportApiVersion: corev3.ApiVersion_V3,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "xds"}}}},
		}},
	}}
}

func secured(l *listenerv3.Listener, certs ...*tlsv3.SdsSecretConfig) *listenerv3.Listener {
	l.FilterChains[0].TransportSocket = &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{
		TypedConfig: pack(&tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{TlsCertificateSdsSecretConfigs: certs}})}}
	return l
}

func verified(c *clusterv3.Cluster, ca *tlsv3.SdsSecretConfig) *clusterv3.Cluster {
	c.TransportSocket = &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{
		TypedConfig: pack(&tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
			ValidationContextType: &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{ValidationContextSdsSecretConfig: ca}}})}}
	return c
}

// held is the chain of the certificate that l has in s; empty if there is none.
func held(s *api.Snapshot, l string) string {
	v := s.Listener(l)
	if v == nil {
		return "no listener"
	}
	r, ready := s.Secrets.Downstream(v.FilterChains[0].TLS)
	if !ready {
		return ""
	}
	return string(r.Certificates[0].Chain)
}

func TestListenerWaitsForItsSecret(t *testing.T) {
	ca := pki.New(t, "ca")
	first, second := ca.Issue([]string{"a"}), ca.Issue([]string{"b"})
	variants(t, settings{}, func(s *story) {
		s.ready(msgs(staticCluster("c")), tcpListener("l", 1, "c"))
		s.send(listenerURL, "2", nil, secured(tcpListener("l", 1, "c"), overADS("s", 0)))
		s.want("SDS v= n= [s]", "SDS n= +[s]", "LDS v=2 n=n3 []", "LDS n=n3")
		if l := s.sink.last().Listener("l"); l.FilterChains[0].TLS != nil {
			t.Fatal("it serves before its secret came")
		}
		if w := s.Unready(); len(w) != 1 || w[0].Listener != "l" || strings.Join(w[0].Targets, " ") != "SdsApi s" {
			t.Errorf("what is waited for: %v", w)
		}
		s.send(secretURL, "1", nil, certSecret("s", inline(first.PEM), inline(first.Key)))
		s.want("SDS v=1 n=n4 [s]", "SDS n=n4")
		is := s.sink.last()
		if held(is, "l") != string(first.PEM) {
			t.Fatalf("its certificate is %q", held(is, "l"))
		}
		s.wantStats(map[string]string{"sds.s.update_success": "1", "sds.s.update_rejected": "0", "sds.s.version_text": "1", "listener_manager.total_listeners_warming": "0"})

		// A new one counts at once, and the listener is the very same.
		s.send(secretURL, "2", nil, certSecret("s", inline(second.PEM), inline(second.Key)))
		s.want("SDS v=2 n=n5 [s]", "SDS n=n5")
		now := s.sink.last()
		if held(now, "l") != string(second.PEM) || now.Listener("l") != is.Listener("l") {
			t.Error("the secret was not rotated, or the listener was changed")
		}
		// One that is no good is refused, and the last good one stays.
		s.send(secretURL, "3", nil, certSecret("s", inline(second.PEM), inline(first.Key)))
		s.want(`SDS v=2 n=n6 [s] !13 s: tls_certificate.private_key: Failed to load private key from <inline>, Cause: error:0b000074:X.509 certificate routines:OPENSSL_internal:KEY_VALUES_MISMATCH`,
			`SDS n=n6 !13 s: tls_certificate.private_key: Failed to load private key from <inline>, Cause: error:0b000074:X.509 certificate routines:OPENSSL_internal:KEY_VALUES_MISMATCH`)
		s.wantStats(map[string]string{"sds.s.update_rejected": "1"})
		// So is one of another kind.
		s.send(secretURL, "4", nil, caSecret("s", inline(ca.PEM)))
		s.want(`SDS v=2 n=n7 [s] !13 s: secret is no tls_certificate but a validation_context`, `SDS n=n7 !13 s: secret is no tls_certificate but a validation_context`)
		// The same content again is no news.
		n := len(s.sink.snapshots())
		s.send(secretURL, "5", nil, certSecret("s", inline(second.PEM), inline(second.Key)))
		s.want("SDS v=5 n=n8 [s]", "SDS n=n8")
		if got := s.sink.snapshots(); len(got) != n || held(got[n-1], "l") != string(second.PEM) {
			t.Errorf("%d snapshots more", len(got)-n)
		}
		if s.delta {
			s.send(secretURL, "6", []string{"s"})
			s.want("", "SDS n=n9")
			if held(s.sink.last(), "l") != string(second.PEM) {
				t.Error("a removed secret was taken away")
			}
		}
		// Nobody wants it any longer.
		s.send(listenerURL, "3", nil, tcpListener("l", 1, "c"))
		s.Await(t, "the end of the subscription", func(r control.Request) bool {
			return r.TypeURL == secretURL && (s.delta && r.String() == "SDS n= -[s]" || !s.delta && r.String() == "SDS v=5 n=n8 []")
		})
		if len(s.sink.last().Secrets) != 0 {
			t.Error("a secret that nobody uses is published")
		}
	})
}

func TestClusterWaitsForItsSecret(t *testing.T) {
	ca := pki.New(t, "ca")
	variants(t, settings{}, func(s *story) {
		s.ready(msgs(staticCluster("c")))
		s.send(clusterURL, "2", nil, verified(edsCluster("c", 0), overADS("ROOT", 0)), verified(staticCluster("d"), overADS("ROOT", 0)))
		s.Await(t, "the question for the secret", func(r control.Request) bool { return r.TypeURL == secretURL })
		s.send(endpointURL, "1", nil, assignment("c", 7))
		s.Await(t, "the ACK of the endpoints", func(r control.Request) bool { return r.TypeURL == endpointURL && r.Nonce == "n4" })
		if c := s.sink.last().Clusters.Get("c"); c.Discovery != api.Static || s.sink.last().Clusters.Get("d") != nil {
			t.Fatal("a cluster serves before its secret came")
		}
		s.send(secretURL, "1", nil, caSecret("ROOT", inline(ca.PEM)))
		is := s.sink.await(t, "both clusters", func(k *api.Snapshot) bool {
			return k.Clusters.Get("d") != nil && k.Clusters.Get("c").Discovery == api.EDS
		})
		if p := ports(is.Clusters.Get("c")); len(p) != 1 || p[0] != 7 {
			t.Errorf("endpoints %v", p)
		}
		if r, ready := is.Secrets.Upstream(is.Clusters.Get("c").Socket.TLS); !ready || string(r.Validation.TrustedCA) != string(ca.PEM) {
			t.Errorf("%+v, %v", r, ready)
		}
		s.Await(t, "the ACK of the clusters", func(r control.Request) bool { return r.TypeURL == clusterURL && r.Nonce == "n3" })
		s.wantStats(map[string]string{"cluster_manager.warming_clusters": "0", "sds.ROOT.update_success": "1"})
	})
}

func TestSecretThatDoesNotCome(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.ready(msgs(staticCluster("c")))
		s.send(listenerURL, "2", nil, secured(tcpListener("l", 1, "c"), overADS("s", 30*time.Millisecond)))
		is := s.sink.await(t, "the listener", func(k *api.Snapshot) bool { return k.Listener("l") != nil })
		if held(is, "l") != "" {
			t.Error("it has a certificate")
		}
		s.wantStats(map[string]string{"sds.s.init_fetch_timeout": "1"})
		leaf := pki.New(t, "ca").Issue(nil)
		s.send(secretURL, "1", nil, certSecret("s", inline(leaf.PEM), inline(leaf.Key)))
		s.sink.await(t, "the certificate", func(k *api.Snapshot) bool { return held(k, "l") == string(leaf.PEM) })
	})
}

// A secret that is no good ends the wait for the first: Envoy's listener is up
// then, and turns connections away.
func TestFirstSecretIsNoGood(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.ready(msgs(staticCluster("c")))
		s.send(listenerURL, "2", nil, secured(tcpListener("l", 1, "c"), overADS("s", 0)))
		s.send(secretURL, "1", nil, certSecret("s", inline([]byte("x")), inline([]byte("y"))))
		s.Await(t, "the NACK", func(r control.Request) bool {
			return r.TypeURL == secretURL && strings.Contains(r.String(), "s: tls_certificate.certificate_chain: Failed to load certificate chain from <inline>")
		})
		if held(s.sink.last(), "l") != "" {
			t.Errorf("it has %q", held(s.sink.last(), "l"))
		}
	})
}

func TestSecretsOfTheBootstrap(t *testing.T) {
	leaf := pki.New(t, "ca").Issue(nil)
	good := certSecret("good", inline(leaf.PEM), inline(leaf.Key))
	bad := certSecret("bad", inline(leaf.PEM), inline(nil))
	script := control.StartScript(t)
	b := config(t, script.Addr(), false, settings{listeners: []*listenerv3.Listener{secured(tcpListener("l", 1, "c"), &tlsv3.SdsSecretConfig{Name: "good"})}})
	for _, m := range []*tlsv3.Secret{good, bad} {
		_, v, _, err := resource.Secret(pack(m))
		b.Secrets = append(b.Secrets, bootstrap.StaticSecret{Name: m.GetName(), Value: v, Any: pack(m), Err: err})
	}
	s := &story{T: t, Script: script, sink: newSink(), stats: stats.New()}
	s.Client = run(t, Options{Bootstrap: b, Sink: s.sink, Stats: s.stats})
	s.AwaitStream(t, 1)
	if is := s.sink.last(); held(is, "l") != string(leaf.PEM) {
		t.Errorf("%q", held(is, "l"))
	}
	s.want("CDS v= n= [] node", "")
	s.send(clusterURL, "1", nil, verified(staticCluster("d"), &tlsv3.SdsSecretConfig{Name: "good"}))
	s.Await(t, "a NACK", func(r control.Request) bool {
		return strings.Contains(r.String(), "d: transport_socket: Unknown static certificate validation context: good")
	})
	s.send(listenerURL, "1", nil, secured(tcpListener("m", 2, "c"), &tlsv3.SdsSecretConfig{Name: "none"}), secured(tcpListener("n", 3, "c"), &tlsv3.SdsSecretConfig{Name: "bad"}))
	s.Await(t, "a NACK", func(r control.Request) bool {
		return strings.Contains(r.String(), "m: transport_socket: Unknown static secret: none") && strings.Contains(r.String(), "n: transport_socket: secret bad: tls_certificate.private_key: Failed to load incomplete private key from path: ")
	})
}

// put moves content into place, as what rotates files does.
func put(t *testing.T, path string, content []byte) {
	t.Helper()
	pki.Write(t, path+".new", content)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func secretFile(t *testing.T, version string, m proto.Message) []byte {
	t.Helper()
	b, err := protojson.Marshal(pack(m))
	if err != nil {
		t.Fatal(err)
	}
	return []byte(fmt.Sprintf(`{"version_info": %q, "resources": [%s]}`, version, b))
}

func TestSecretsFromFiles(t *testing.T) {
	ca, dir := pki.New(t, "ca"), t.TempDir()
	first, second, third := ca.Issue(nil), ca.Issue(nil), ca.Issue(nil)
	chain, key, sds := filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem"), filepath.Join(t.TempDir(), "s.json")
	put(t, chain, first.PEM)
	put(t, key, first.Key)
	put(t, sds, secretFile(t, "1", certSecret("s", inFile(chain), inFile(key))))
	s := begin(t, false, settings{})
	s.ready(msgs(staticCluster("c")))
	s.send(listenerURL, "2", nil, secured(tcpListener("l", 1, "c"), fromFile("s", sds)))
	await := func(what string, want pki.Leaf) {
		t.Helper()
		s.sink.await(t, what, func(k *api.Snapshot) bool { return held(k, "l") == string(want.PEM) })
	}
	await("the certificate", first)
	before := s.sink.last().Listener("l")
	put(t, chain, second.PEM) // alone it does not fit
	put(t, key, second.Key)
	await("the certificate that was moved over it", second)
	put(t, sds, secretFile(t, "2", certSecret("s", inline(third.PEM), inline(third.Key))))
	await("the secret that was moved over it", third)
	if s.sink.last().Listener("l") != before {
		t.Error("the listener was changed")
	}
	put(t, sds, secretFile(t, "3", certSecret("other", inline(first.PEM), inline(first.Key))))
	s.awaitStat("sds.s.update_rejected", "1")
	if held(s.sink.last(), "l") != string(third.PEM) {
		t.Error("the last good one is gone")
	}
	s.wantStats(map[string]string{"sds.s.update_success": "2", "sds.s.version_text": "2"})
	s.send(listenerURL, "3", nil, secured(tcpListener("m", 2, "c"), fromFile("s", "/none/s.json")))
	s.Await(t, "the NACK", func(r control.Request) bool {
		return strings.Contains(r.String(), "m: transport_socket: sds_config.path_config_source.path: paths must refer to an existing path in the system: '/none/s.json' does not exist")
	})
}

// awaitStat waits for what nobody is told of.
func (s *story) awaitStat(name, want string) {
	s.Helper()
	for end := time.Now().Add(control.Patience); s.stat(name) != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("%s is %s, want %s", name, s.stat(name), want)
		}
	}
}

func TestSecretFromItsOwnStream(t *testing.T) {
	leaf := pki.New(t, "ca").Issue(nil)
	s := begin(t, false, settings{})
	s.ready(msgs(staticCluster("c")))
	s.send(listenerURL, "2", nil, secured(tcpListener("l", 1, "c"), fromStream("default", 0)), secured(tcpListener("m", 2, "c"), fromStream("default", 0)))
	s.Await(t, "the question", func(r control.Request) bool { return r.String() == "SDS v= n= [default] node" })
	s.send(secretURL, "7", nil, certSecret("default", inline(leaf.PEM), inline(leaf.Key)))
	s.sink.await(t, "the certificate in both", func(k *api.Snapshot) bool {
		return held(k, "l") == string(leaf.PEM) && held(k, "m") == string(leaf.PEM)
	})
	s.awaitStat("sds.default.control_plane.connected_state", "1")
	s.Await(t, "the ACK", func(r control.Request) bool { return r.String() == "SDS v=7 n=n4 [default] node" })
	if n := s.Streams(); n != 2 {
		t.Errorf("%d streams for ADS and one secret", n)
	}
	s.send(listenerURL, "3", nil, secured(tcpListener("n", 3, "c"), func() *tlsv3.SdsSecretConfig {
		c := fromStream("default", 0)
		c.SdsConfig.GetApiConfigSource().GrpcServices[0].GetEnvoyGrpc().ClusterName = "none"
		return c
	}()))
	s.Await(t, "the NACK", func(r control.Request) bool {
		return strings.Contains(r.String(), "n: transport_socket: sds_config.api_config_source: envoy.config.core.v3.ApiConfigSource must have a statically defined non-EDS cluster: 'none' does not exist")
	})
}

// Static listeners are let in when the static clusters are warm: what they refer to
// is asked for then.
func TestStaticListenersBehindStaticClusters(t *testing.T) {
	ca, dir := pki.New(t, "ca"), t.TempDir()
	leaf := ca.Issue(nil)
	put(t, filepath.Join(dir, "ca.json"), secretFile(t, "1", caSecret("ca", inline(ca.PEM))))
	put(t, filepath.Join(dir, "s.json"), secretFile(t, "1", certSecret("s", inline(leaf.PEM), inline(leaf.Key))))
	s := begin(t, false, settings{noCDS: true,
		clusters:  []*clusterv3.Cluster{verified(staticCluster("c"), fromFile("ca", filepath.Join(dir, "ca.json")))},
		listeners: []*listenerv3.Listener{secured(tcpListener("l", 1, "c"), fromFile("s", filepath.Join(dir, "s.json")))}})
	is := s.sink.await(t, "the listener", func(k *api.Snapshot) bool { return held(k, "l") == string(leaf.PEM) })
	if r, ready := is.Secrets.Upstream(is.Clusters.Get("c").Socket.TLS); !ready || string(r.Validation.TrustedCA) != string(ca.PEM) {
		t.Errorf("%+v, %v", r, ready)
	}
	if c := s.TLSContexts(); len(c) != 2 {
		t.Errorf("%d contexts", len(c))
	}
}
