package resource

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/youmark/pkcs8"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/tlsname"
	"github.com/sluice-proxy/sluice/test/pki"
)

// files are what the cases below refer to as @name.
func files(t testing.TB) map[string]string {
	t.Helper()
	ca := pki.New(t, "ca")
	srv, cli := ca.Issue([]string{"srv.example.com"}), ca.Issue([]string{"spiffe://td/cli"})
	noSign := ca.Issue(nil, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement })
	block, _ := pem.Decode(srv.Key)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	locked8, err := pkcs8.MarshalPrivateKey(key, []byte("abc"), nil)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(key.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 it has to be read
	locked, err := x509.EncryptPEMBlock(rand.Reader, "EC PRIVATE KEY", sec1, []byte("abc"), x509.PEMCipherAES128)
	if err != nil {
		t.Fatal(err)
	}
	p12, err := pkcs12.Modern.Encode(key, srv.Cert, []*x509.Certificate{ca.Cert()}, "abc")
	if err != nil {
		t.Fatal(err)
	}
	weakPEM, weakKey := selfSigned(t, func() (any, any) {
		k, err := rsa.GenerateKey(rand.Reader, 1024)
		if err != nil {
			t.Fatal(err)
		}
		return k, k.Public()
	})
	oddPEM, oddKey := selfSigned(t, func() (any, any) {
		k, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k, k.Public()
	})
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	out := map[string]string{}
	for name, b := range map[string][]byte{
		"ca": ca.PEM, "crl": ca.Revoke(srv), "srv": srv.PEM, "key": srv.Key, "cli": cli.PEM, "clikey": cli.Key, "p12": p12,
		"locked8": pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: locked8}), "locked": pem.EncodeToMemory(locked),
		"weak": weakPEM, "weakkey": weakKey, "odd": oddPEM, "oddkey": oddKey, "nosign": noSign.PEM, "nosignkey": noSign.Key, "rsakey": pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)}),
		"ticket": make([]byte, 80), "short": make([]byte, 48), "empty": {}, "staple": {1, 2},
	} {
		out[name] = filepath.Join(dir, name)
		if err := os.WriteFile(out[name], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func selfSigned(t testing.TB, makeKey func() (any, any)) (cert, key []byte) {
	t.Helper()
	private, public := makeKey()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, public, private)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k})
}

// at puts {filename: …} for each @name.
func filled(text string, files map[string]string) string {
	for name, path := range files {
		text = strings.ReplaceAll(text, "@"+name+"@", "{filename: "+path+"}")
		text = strings.ReplaceAll(text, "%"+name+"%", path)
	}
	return text
}

const (
	good    = `tls_certificates: [{certificate_chain: @srv@, private_key: @key@}]`
	goodTLS = `common_tls_context: {` + good + `}`
)

func common(more string) string { return `common_tls_context: {` + good + `, ` + more + `}` }

func readDown(t testing.TB, text string) (*api.DownstreamTLS, error) {
	t.Helper()
	m := &tlsv3.DownstreamTlsContext{}
	parse(t, text, m)
	if err := Constraint(m); err != nil {
		return nil, err
	}
	w := walker{policies: table()}
	w.message("", m.ProtoReflect())
	d := w.downstreamTLS("d", m)
	return d, w.err()
}

func readUp(t testing.TB, text string) (*api.UpstreamTLS, error) {
	t.Helper()
	m := &tlsv3.UpstreamTlsContext{}
	parse(t, text, m)
	if err := Constraint(m); err != nil {
		return nil, err
	}
	w := walker{policies: table()}
	w.message("", m.ProtoReflect())
	u := w.upstreamTLS("u", m)
	return u, w.err()
}

// The causes are Envoy 1.40's, from its --mode validate; empty is accepted.
func TestDownstreamContexts(t *testing.T) {
	f := files(t)
	const typed = `match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: x}}]`
	cert := func(s string) string { return `common_tls_context: {tls_certificates: [{` + s + `}]}` }
	validation := func(s string) string { return common(`validation_context: {` + s + `}`) }
	params := func(s string) string { return common(`tls_params: {` + s + `}`) }
	spiffe := func(name, s string) string {
		return validation(`custom_validator_config: {name: ` + name + `, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig, trust_domains: [` + s + `]}}`)
	}
	for text, want := range map[string]string{
		goodTLS:                  "",
		``:                       "d.common_tls_context.tls_certificates: No TLS certificates found for server context",
		`common_tls_context: {}`: "d.common_tls_context.tls_certificates: No TLS certificates found for server context",
		cert(``):                 "d.common_tls_context.tls_certificates[0]: Server TlsCertificates must have a certificate specified",
		cert(`certificate_chain: {inline_string: x}, private_key: @key@`):                        "certificate_chain: Failed to load certificate chain from <inline>",
		cert(`certificate_chain: @empty@, private_key: @key@`):                                   "certificate_chain: Failed to load incomplete certificate from %empty%: certificate chain not set",
		cert(`certificate_chain: {filename: /nope.pem}, private_key: @key@`):                     "certificate_chain: Failed to load incomplete certificate from /nope.pem: certificate chain not set",
		cert(`private_key: @key@`):                                                               "certificate_chain: Failed to load incomplete certificate from : certificate chain not set",
		cert(`certificate_chain: @srv@`):                                                         "private_key: Failed to load incomplete private key from path: ",
		cert(`certificate_chain: @srv@, private_key: {inline_string: x}`):                        "private_key: Failed to load private key from <inline>, Cause: error:0900006e:PEM routines:OPENSSL_internal:NO_START_LINE",
		cert(`certificate_chain: @srv@, private_key: @clikey@`):                                  "private_key: Failed to load private key from %clikey%, Cause: error:0b000074:X.509 certificate routines:OPENSSL_internal:KEY_VALUES_MISMATCH",
		cert(`certificate_chain: @srv@, private_key: @rsakey@`):                                  "private_key: Failed to load private key from %rsakey%, Cause: error:0b000073:X.509 certificate routines:OPENSSL_internal:KEY_TYPE_MISMATCH",
		cert(`certificate_chain: @srv@, private_key: @locked@`):                                  "private_key: Failed to load private key from %locked%, Cause: error:09000068:PEM routines:OPENSSL_internal:BAD_PASSWORD_READ",
		cert(`certificate_chain: @srv@, private_key: @locked@, password: {inline_string: abc}`):  "",
		cert(`certificate_chain: @srv@, private_key: @locked@, password: {inline_string: ab}`):   "Cause: error:1e000065:Cipher functions:OPENSSL_internal:BAD_DECRYPT",
		cert(`certificate_chain: @srv@, private_key: @locked8@, password: {inline_string: abc}`): "",
		cert(`certificate_chain: @srv@, private_key: @locked8@, password: {inline_string: ab}`):  "Cause: error:1e000065:Cipher functions:OPENSSL_internal:BAD_DECRYPT",
		cert(`pkcs12: @p12@, password: {inline_string: abc}`):                                    "",
		cert(`pkcs12: @p12@, password: {inline_string: ab}`):                                     "pkcs12: Failed to load pkcs12 from %p12%",
		cert(`pkcs12: @p12@, certificate_chain: @srv@`):                                          "Certificate configuration can't have both pkcs12 and certificate_chain",
		cert(`certificate_chain: @weak@, private_key: @weakkey@`):                                "Failed to load certificate chain from %weak%, only RSA certificates with 2048-bit or larger keys are supported",
		cert(`certificate_chain: @odd@, private_key: @oddkey@`):                                  "Failed to load certificate chain from %odd%, only P-256, P-384 or P-521 ECDSA certificates are supported",
		cert(`certificate_chain: @nosign@, private_key: @nosignkey@`):                            "certificate_chain: Failed to load certificate chain from %nosign%",
		cert(`certificate_chain: @srv@, private_key_provider: {provider_name: foo}`):             "private_key_provider: Failed to load private key provider: foo",
		cert(`certificate_chain: @srv@, private_key: @key@, ocsp_staple: {inline_string: x}`):    "ocsp_staple: OCSP staple cannot be provided via inline_string",
		cert(`certificate_chain: @srv@, private_key: @key@, tls_params: {cipher_suites: [FOO]}`): "tls_certificates[0].tls_params.cipher_suites: Failed to initialize cipher suites FOO. The following ciphers were rejected when tried individually: FOO",
		common(`tls_certificate_sds_secret_configs: [{name: a}]`):                                "SDS and non-SDS TLS certificates may not be mixed in server contexts",
		`common_tls_context: {tls_certificate_sds_secret_configs: [{name: a, sds_config: {}}]}`:  "Proto constraint validation failed (ConfigSourceValidationError.ConfigSourceSpecifier: value is required)",
		params(`cipher_suites: [FOO, ECDHE-RSA-AES128-SHA]`):                                     "d.common_tls_context.tls_params.cipher_suites: Failed to initialize cipher suites FOO:ECDHE-RSA-AES128-SHA. The following ciphers were rejected when tried individually: FOO",
		params(`cipher_suites: [""]`):                                                            "",
		params(`ecdh_curves: [P-256, P-224]`):                                                    "ecdh_curves: Failed to initialize ECDH curves P-256:P-224",
		params(`ecdh_curves: [P-256, P-521, X25519, X25519MLKEM768, P-384]`):                     "",
		params(`signature_algorithms: [foo]`):                                                    "signature_algorithms: Failed to initialize TLS signature algorithms foo",
		params(`tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_2`):   "",
		params(`compliance_policies: [FIPS_202205]`):                                             "compliance_policies: not supported yet",
		common(`alpn_protocols: [` + strings.Repeat("a", 256) + `]`):                             "alpn_protocols: Invalid ALPN protocol string",
		common(`alpn_protocols: [""]`):                                                           "",
		common(`alpn_protocols: ["h2,http/1.1"]`):                                                "",
		validation(typed): "d.common_tls_context.validation_context.match_typed_subject_alt_names: SAN-based verification of peer certificates without trusted CA is insecure and not allowed",
		validation(`match_subject_alt_names: [{exact: x}]`):                            "SAN-based verification of peer certificates without trusted CA is insecure and not allowed",
		validation(`trusted_ca: @ca@, ` + typed):                                       "",
		validation(`trusted_ca: {inline_string: x}`):                                   "trusted_ca: Failed to load trusted CA certificates from <inline>",
		validation(`trusted_ca: {inline_string: ""}`):                                  "trusted_ca: DataSource cannot be empty",
		validation(`trusted_ca: {filename: /nope}`):                                    "trusted_ca: Invalid path: /nope",
		validation(`trusted_ca: @key@`):                                                "trusted_ca: Failed to load trusted CA certificates from %key%",
		validation(`trusted_ca: @ca@, crl: {inline_string: x}`):                        "",
		validation(`trusted_ca: @ca@, crl: @crl@`):                                     "",
		validation(`crl: @crl@`):                                                       "crl: Failed to load CRL from %crl% without trusted CA",
		validation(`verify_certificate_hash: [` + strings.Repeat("z", 64) + `]`):       "verify_certificate_hash[0]: Invalid hex-encoded SHA-256 zzz",
		validation(`verify_certificate_hash: ["` + strings.Repeat("AB:", 31) + `AB"]`): "",
		validation(`verify_certificate_spki: [` + strings.Repeat("z", 44) + `]`):       "verify_certificate_spki[0]: Invalid base64-encoded SHA-256 zzz",
		validation(`allow_expired_certificate: true`):                                  "Certificate validity period is always ignored without trusted CA",
		validation(`trust_chain_verification: ACCEPT_UNTRUSTED`):                       "",
		validation(`max_verify_depth: 101`):                                            "MaxVerifyDepth: value must be less than or equal to 100",
		validation(`trusted_ca: @ca@, match_typed_subject_alt_names: [{san_type: OTHER_NAME, oid: zz, matcher: {exact: x}}]`):                 "Failed to create SAN matcher for OTHER_NAME with OID: zz",
		validation(`trusted_ca: @ca@, match_typed_subject_alt_names: [{san_type: DNS, matcher: {safe_regex: {regex: "("}}}]`):                 "match_typed_subject_alt_names[0].matcher.safe_regex.regex: missing closing ): ",
		validation(`ca_certificate_provider_instance: {instance_name: x}`):                                                                    "ca_certificate_provider_instance: not supported yet",
		spiffe("envoy.tls.cert_validator.spiffe", `{name: a, trust_bundle: @ca@}`):                                                            "",
		spiffe("envoy.tls.cert_validator.spiffe", ``):                                                                                         "",
		spiffe("envoy.tls.cert_validator.spiffe", `{name: a, trust_bundle: @ca@}, {name: a, trust_bundle: @ca@}`):                             "Multiple trust bundles are given for one trust domain for a, workload: ",
		spiffe("envoy.tls.cert_validator.spiffe", `{name: a, trust_bundle: {inline_string: x}}`):                                              "Failed to load trusted CA certificate for a",
		spiffe("envoy.tls.cert_validator.spiffe", `{name: a}`):                                                                                "Failed to load trusted CA certificate for a",
		spiffe("foo", `{name: a, trust_bundle: @ca@}`):                                                                                        "custom_validator_config: Failed to get certificate validator factory for foo",
		goodTLS + `, session_ticket_keys: {keys: [@ticket@]}`:                                                                                 "",
		goodTLS + `, session_ticket_keys: {keys: [@short@]}`:                                                                                  "d.session_ticket_keys.keys[0]: Incorrect TLS session ticket key length. Length 48, expected length 80.",
		goodTLS + `, session_ticket_keys: {}`:                                                                                                 "Keys: value must contain at least 1 item(s)",
		goodTLS + `, session_timeout: 0.5s, disable_stateful_session_resumption: true, disable_stateless_session_resumption: true`:            "",
		goodTLS + `, session_timeout: -1s`:                                                                                                    "session_timeout",
		goodTLS + `, ocsp_staple_policy: MUST_STAPLE`:                                                                                         "d.ocsp_staple_policy: Required OCSP response is missing from TLS context",
		goodTLS + `, require_sni: true, require_client_certificate: true, full_scan_certs_on_sni_mismatch: true, prefer_client_ciphers: true`: "",
	} {
		_, err := readDown(t, filled(text, f))
		judge(t, text, err, filled(want, f))
	}
}

func judge(t *testing.T, text string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", text, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: %v, want %s", text, err, want)
	}
}

func TestUpstreamContexts(t *testing.T) {
	f := files(t)
	for text, want := range map[string]string{
		``: "",
		`common_tls_context: {tls_certificates: [{certificate_chain: @srv@, private_key: @key@}, {certificate_chain: @srv@, private_key: @key@}]}`:                                                  "u.common_tls_context: Multiple TLS certificates are not supported for client contexts",
		`common_tls_context: {tls_certificate_sds_secret_configs: [{name: a}, {name: b}]}`:                                                                                                          "Multiple TLS certificates are not supported for client contexts",
		`common_tls_context: {tls_certificate_sds_secret_configs: [{}]}`:                                                                                                                            "SdsSecretConfigValidationError.Name: value length must be at least 1 characters",
		`common_tls_context: {combined_validation_context: {default_validation_context: {}}}`:                                                                                                       "ValidationContextSdsSecretConfig: value is required",
		`common_tls_context: {tls_certificate_sds_secret_configs: [{name: a, sds_config: {api_config_source: {api_type: GRPC, grpc_services: [{google_grpc: {target_uri: x, stat_prefix: z}}]}}}]}`: "tls_certificate_sds_secret_configs[0].sds_config.api_config_source: not supported yet (google_grpc)",
		`sni: "a\0b"`:                      "u.sni: SNI names containing NULL-byte are not allowed",
		`sni: ` + strings.Repeat("a", 256): "Sni: value length must be at most 255 bytes",
		`auto_sni_san_validation: true`:    "u.auto_sni_san_validation: 'auto_sni_san_validation' was configured without a validation context",
		`max_session_keys: 0, enforce_rsa_key_usage: false, allow_renegotiation: true, auto_host_sni: true`: "",
		`common_tls_context: {tls_certificate_provider_instance: {instance_name: x}}`:                       "tls_certificate_provider_instance: not supported yet",
	} {
		_, err := readUp(t, filled(text, f))
		judge(t, text, err, want)
	}
}

func TestWhatAContextSays(t *testing.T) {
	f := files(t)
	d, err := readDown(t, filled(common(`alpn_protocols: [h2, http/1.1], key_log: {path: /k, local_address_range: [{address_prefix: 10.0.0.0, prefix_len: 8}]},
		combined_validation_context: {default_validation_context: {match_typed_subject_alt_names: [{san_type: URI, matcher: {prefix: "spiffe://"}}], max_verify_depth: 3}, validation_context_sds_secret_config: {name: ROOTCA, sds_config: {ads: {}}}}`)+
		`, require_client_certificate: true, session_timeout: 5s, ocsp_staple_policy: STRICT_STAPLING, session_ticket_keys_sds_secret_config: {name: t}`, f))
	if err != nil {
		t.Fatal(err)
	}
	if !d.RequireClientCertificate || d.SessionTimeout != 5e9 || d.Stapling != api.StrictStapling || len(d.ALPN) != 2 ||
		d.KeyLog.Path != "/k" || d.KeyLog.Local[0].String() != "10.0.0.0/8" || d.Params.MaxVersion != tls.VersionTLS13 || d.Params.MinVersion != tls.VersionTLS12 {
		t.Errorf("%+v", d)
	}
	if c := d.Certificates[0]; c.ChainPath != f["srv"] || c.KeyPath != f["key"] || !strings.HasPrefix(string(c.Chain), "-----BEGIN CERT") {
		t.Errorf("%+v", c)
	}
	if v := d.Validation; *v.MaxDepth != 3 || v.Names[0].Match.Kind != api.MatchPrefix || v.Names[0].Type != api.SANURI {
		t.Errorf("%+v", v)
	}
	if r := d.ValidationRef; r.Key != "ROOTCA" || r.Kind != api.ValidationSecret || r.Static() || r.Source.InitialFetchTimeout != api.DefaultInitialFetchTimeout {
		t.Errorf("%+v", r)
	}
	if r := d.TicketKeysRef; !r.Static() || r.Key != api.StaticSecretKey("t", api.TicketKeysSecret) || r.Kind != api.TicketKeysSecret {
		t.Errorf("%+v", r)
	}
	u, err := readUp(t, `sni: a.b, common_tls_context: {tls_params: {tls_maximum_protocol_version: TLSv1_3, cipher_suites: ["[ECDHE-RSA-AES128-SHA|AES128-SHA]"], ecdh_curves: [P-384]}, tls_certificate_sds_secret_configs: [{name: default, sds_config: {api_config_source: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: sds-grpc}}]}, initial_fetch_timeout: 0s, resource_api_version: V3}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	if u.SNI != "a.b" || u.MaxSessionKeys != 1 || u.Params.MaxVersion != tls.VersionTLS13 || len(u.Params.Ciphers) != 2 || tlsname.Curve(u.Params.Curves[0]) != "P-384" {
		t.Errorf("%+v", u)
	}
	if r := u.CertificateRefs[0]; r.Source.Cluster != "sds-grpc" || r.Source.InitialFetchTimeout != 0 || !strings.HasPrefix(r.Key, "default\x00") {
		t.Errorf("%+v", r)
	}
	if u, err := readUp(t, ``); err != nil || u.Params.MaxVersion != tls.VersionTLS12 {
		t.Errorf("a client's newest version is %x, %v", u.Params.MaxVersion, err)
	}
}

func TestSecrets(t *testing.T) {
	f := files(t)
	read := func(text string) (*api.Secret, error) {
		m := &tlsv3.Secret{}
		parse(t, filled(text, f), m)
		_, s, _, err := Secret(pack(t, m))
		return s, err
	}
	for text, kind := range map[string]api.SecretKind{
		`name: a, tls_certificate: {certificate_chain: @srv@, private_key: @key@}`: api.CertificateSecret,
		`name: a, validation_context: {trusted_ca: @ca@}`:                          api.ValidationSecret,
		// What a default context will go with may lack the authority.
		`name: a, validation_context: {match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: x}}]}`: api.ValidationSecret,
		`name: a, session_ticket_keys: {keys: [@ticket@]}`:                                                     api.TicketKeysSecret,
		`name: a, generic_secret: {secret: {inline_string: x}, secrets: {k: {inline_bytes: eHg=}}}`:            api.GenericSecretKind,
	} {
		s, err := read(text)
		if err != nil || s.Kind() != kind || s.Name != "a" {
			t.Errorf("%s: %+v, %v", text, s, err)
		}
	}
	for text, want := range map[string]string{
		`name: a`: "type: Secret type not implemented",
		`name: a, tls_certificate: {certificate_chain: @srv@, private_key: @clikey@}`: "tls_certificate.private_key: Failed to load private key from",
		`name: a, session_ticket_keys: {keys: [@short@]}`:                             "session_ticket_keys.keys[0]: Incorrect TLS session ticket key length",
	} {
		_, err := read(text)
		judge(t, text, err, want)
	}
}

func TestDirectoriesOfASecret(t *testing.T) {
	for text, want := range map[string]string{
		`name: a, tls_certificate: {certificate_chain: {filename: /a/b/c}, private_key: {filename: /a/b/k}, password: {filename: /p/w}}`:                                                                                                                        "/a/b /p",
		`name: a, tls_certificate: {certificate_chain: {filename: /a/b/c}, private_key: {filename: /a/b/k}, watched_directory: {path: /w}}`:                                                                                                                     "/w",
		`name: a, tls_certificate: {certificate_chain: {inline_string: x}, private_key: {inline_string: z}, watched_directory: {path: /w}}`:                                                                                                                     "",
		`name: a, validation_context: {trusted_ca: {filename: /c/a}, crl: {filename: /c/b}}`:                                                                                                                                                                    "/c",
		`name: a, validation_context: {custom_validator_config: {name: spiffe, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig, trust_domains: [{name: td, trust_bundle: {filename: /s/t}}]}}}`: "/s",
	} {
		m := &tlsv3.Secret{}
		parse(t, text, m)
		if got := strings.Join(SecretDirectories(pack(t, m)), " "); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func FuzzSecret(f *testing.F) {
	files := files(f)
	for _, text := range []string{
		`name: a, tls_certificate: {certificate_chain: @srv@, private_key: @key@}`, `name: a, validation_context: {trusted_ca: @ca@, crl: @crl@}`,
		`name: a, tls_certificate: {pkcs12: @p12@, password: {inline_string: abc}}`, `name: a, session_ticket_keys: {keys: [@ticket@]}`,
		`name: a, generic_secret: {secrets: {k: {inline_string: v}}}`,
	} {
		m := &tlsv3.Secret{}
		parse(f, filled(text, files), m)
		seed(f, m)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a := &anypb.Any{TypeUrl: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", Value: b}
		_, s, _, err := Secret(a)
		contract(t, s, s == nil, err)
		SecretDirectories(a)
		if s != nil && s.Kind() == api.CertificateSecret {
			if _, err := tls.X509KeyPair(s.Certificate.Chain, s.Certificate.Key); err != nil {
				t.Fatalf("the key does not fit: %v", err)
			}
		}
	})
}

func FuzzTLSContexts(f *testing.F) {
	files := files(f)
	for _, text := range []string{goodTLS, common(`tls_params: {cipher_suites: ["ALL:!aRSA"], ecdh_curves: [P-256]}, alpn_protocols: [h2]`),
		common(`validation_context: {trusted_ca: @ca@, match_typed_subject_alt_names: [{san_type: URI, matcher: {safe_regex: {regex: "a.*"}}}]}`)} {
		m := &tlsv3.DownstreamTlsContext{}
		parse(f, filled(text, files), m)
		seed(f, m)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, u := &tlsv3.DownstreamTlsContext{}, &tlsv3.UpstreamTlsContext{}
		if proto.Unmarshal(b, d) == nil && Constraint(d) == nil {
			w := walker{policies: table()}
			w.message("", d.ProtoReflect())
			out := w.downstreamTLS("d", d)
			if w.err() == nil && len(out.Certificates)+len(out.CertificateRefs) == 0 {
				t.Fatal("a server without a certificate")
			}
		}
		if proto.Unmarshal(b, u) == nil && Constraint(u) == nil {
			w := walker{policies: table()}
			w.message("", u.ProtoReflect())
			out := w.upstreamTLS("u", u)
			if w.err() == nil && len(out.Certificates)+len(out.CertificateRefs) > 1 {
				t.Fatal("a client with several certificates")
			}
		}
	})
}
