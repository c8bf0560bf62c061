package admin

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/test/pki"
	"github.com/sluice-proxy/sluice/xds"
)

func TestCertificatesInForce(t *testing.T) {
	ca := pki.New(t, "ca")
	leaf := ca.Issue([]string{"srv.example.com", "spiffe://td/x", "10.0.0.1"})
	cert := &api.TLSCertificate{Chain: append(leaf.PEM, ca.PEM...), ChainPath: "/a/chain.pem"}
	f := newFixture(t)
	f.fake.contexts = []xds.TLSContext{
		{Certificates: []*api.TLSCertificate{cert}, Validation: &api.TLSValidation{TrustedCA: ca.PEM, CAPath: "<inline>"}},
		{Validation: &api.TLSValidation{SPIFFE: &api.SPIFFE{Domains: []api.TrustDomain{{Name: "td", Bundle: ca.PEM, Path: "/a/td"}}}}},
	}
	var out struct {
		Certificates []struct {
			CA    []map[string]any `json:"ca_cert"`
			Chain []map[string]any `json:"cert_chain"`
		}
	}
	if err := json.Unmarshal([]byte(f.get(t, "/certs")), &out); err != nil {
		t.Fatal(err)
	}
	one, two := out.Certificates[0], out.Certificates[1]
	if len(one.Chain) != 1 || one.Chain[0]["path"] != "/a/chain.pem" || one.Chain[0]["days_until_expiration"] != "0" || len(one.Chain[0]["subject_alt_names"].([]any)) != 3 ||
		len(one.CA) != 1 || one.CA[0]["path"] != "<inline>" || len(two.Chain) != 0 || two.CA[0]["path"] != "/a/td" {
		t.Errorf("%+v", out)
	}
	if got := f.get(t, "/stats?filter=days_until"); got != "server.days_until_first_cert_expiring: 0\n" {
		t.Errorf("%s", got)
	}
}

func TestSecretsAreShownWithoutTheirKeys(t *testing.T) {
	inline := func(s string) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
	}
	secret := func(name string) *anypb.Any {
		a, err := anypb.New(&tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline("chain of " + name), PrivateKey: inline("key of " + name), Password: inline("password of " + name)}}})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	keys, err := anypb.New(&tlsv3.Secret{Name: "tickets", Type: &tlsv3.Secret_SessionTicketKeys{SessionTicketKeys: &tlsv3.TlsSessionTicketKeys{Keys: []*corev3.DataSource{inline("key of tickets")}}}})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	f := newFixture(t)
	f.fake.dump = xds.Dump{Resources: map[string][]xds.ResourceDump{secretType: {
		{Name: "fixed", Static: true, Active: secret("fixed"), Updated: at},
		{Name: "came", Version: "7", Active: secret("came"), Updated: at, Failed: &xds.FailedUpdate{Attempted: secret("bad"), Version: "8", Details: "no good"}},
		{Name: "tickets", Version: "1", Active: keys, Updated: at},
		{Name: "waits"},
	}}}
	body := f.get(t, "/config_dump")
	if strings.Contains(body, "key of") || strings.Contains(body, "password of") {
		t.Errorf("a key is shown: %s", body)
	}
	var out struct {
		Configs []struct {
			Type   string                  `json:"@type"`
			Static []struct{ Name string } `json:"static_secrets"`
			Active []struct {
				Name    string
				Version string                   `json:"version_info"`
				Error   struct{ Details string } `json:"error_state"`
				Secret  struct {
					Certificate struct {
						Key   map[string]string `json:"private_key"`
						Chain map[string]string `json:"certificate_chain"`
					} `json:"tls_certificate"`
				}
			} `json:"dynamic_active_secrets"`
			Warming []struct {
				Name    string
				Version string `json:"version_info"`
			} `json:"dynamic_warming_secrets"`
		}
	}
	if err := json.Unmarshal([]byte(body), &out); err != nil {
		t.Fatal(err)
	}
	d := out.Configs[len(out.Configs)-1]
	if d.Type != "type.googleapis.com/envoy.admin.v3.SecretsConfigDump" || len(d.Static) != 1 || d.Static[0].Name != "fixed" || len(d.Active) != 2 || d.Active[0].Version != "7" ||
		d.Active[0].Error.Details != "no good" || d.Active[0].Secret.Certificate.Key["inline_string"] != "[redacted]" ||
		d.Active[0].Secret.Certificate.Chain["inline_string"] != "chain of came" || len(d.Warming) != 1 || d.Warming[0].Name != "waits" || d.Warming[0].Version != "uninitialized" {
		t.Errorf("%s", body)
	}
}
