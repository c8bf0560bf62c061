package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// TLS is how connections to a cluster are secured: an UpstreamTlsContext.
type TLS struct {
	base        tls.Config // never used itself
	sniFromHost bool       // auto_host_sni
	nameIsSNI   bool       // auto_sni_san_validation
	alpn        []string   // empty: what is spoken

	certificate *kept[*tls.Certificate] // nil: none
	validation  *kept[*validation]
}

// ReadTLS decodes an UpstreamTlsContext that passed its constraints. What is in
// the bootstrap, or in files that it names, must be there and fit.
func ReadTLS(p *tlsv3.UpstreamTlsContext, known map[string]*tlsv3.Secret) (*TLS, error) {
	t := &TLS{sniFromHost: p.GetAutoHostSni(), nameIsSNI: p.GetAutoSniSanValidation()}
	t.base.ServerName = p.GetSni()
	c := p.GetCommonTlsContext()
	t.alpn = c.GetAlpnProtocols()
	for field, set := range map[string]bool{
		"tls_certificate_provider_instance": c.GetTlsCertificateProviderInstance() != nil,
		"custom_tls_certificate_selector":   c.GetCustomTlsCertificateSelector() != nil,
		"custom_handshaker":                 c.GetCustomHandshaker() != nil,
	} {
		if set {
			return nil, fmt.Errorf("common_tls_context.%s: not supported yet", field)
		}
	}
	if err := t.params(c.GetTlsParams()); err != nil {
		return nil, fmt.Errorf("common_tls_context.tls_params.%w", err)
	}
	if err := t.readCertificate("common_tls_context", c, known); err != nil {
		return nil, err
	}
	if err := t.readContext("common_tls_context", c, known); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *TLS) readCertificate(path string, c *tlsv3.CommonTlsContext, known secrets) error {
	n := len(c.GetTlsCertificates()) + len(c.GetTlsCertificateSdsSecretConfigs())
	if n > 1 {
		return fmt.Errorf("%s: Multiple TLS certificates are not supported for client contexts", path)
	}
	if n == 0 {
		return nil
	}
	var from source
	if l := c.GetTlsCertificates(); len(l) > 0 {
		path += ".tls_certificates[0]"
		from = source{fixed: &tlsv3.Secret{Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: l[0]}}}
	} else {
		path += ".tls_certificate_sds_secret_configs[0]"
		var err error
		if from, err = sds(path, "secret", c.GetTlsCertificateSdsSecretConfigs()[0], known); err != nil {
			return err
		}
	}
	t.certificate = &kept[*tls.Certificate]{make: func() (*tls.Certificate, error) {
		s, err := from.read()
		if err != nil {
			return nil, err
		}
		if s.GetTlsCertificate() == nil {
			return nil, fmt.Errorf("secret %q is no tls_certificate", s.GetName())
		}
		return certificate(s.GetTlsCertificate())
	}}
	return firstUse(path, from, t.certificate)
}

func (t *TLS) readContext(path string, c *tlsv3.CommonTlsContext, known secrets) error {
	base := &tlsv3.CertificateValidationContext{}
	from := source{fixed: &tlsv3.Secret{Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{}}}}
	var ask *tlsv3.SdsSecretConfig
	switch v := c.GetValidationContextType().(type) {
	case nil:
	case *tlsv3.CommonTlsContext_ValidationContext:
		path += ".validation_context"
		base = v.ValidationContext
	case *tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig:
		path += ".validation_context_sds_secret_config"
		ask = v.ValidationContextSdsSecretConfig
	case *tlsv3.CommonTlsContext_CombinedValidationContext:
		path += ".combined_validation_context"
		base = v.CombinedValidationContext.GetDefaultValidationContext()
		ask = v.CombinedValidationContext.GetValidationContextSdsSecretConfig()
	default:
		return fmt.Errorf("%s: %T not supported yet", path, v)
	}
	if ask != nil {
		var err error
		if from, err = sds(path, "certificate validation context", ask, known); err != nil {
			return err
		}
	}
	t.validation = &kept[*validation]{make: func() (*validation, error) {
		s, err := from.read()
		if err != nil {
			return nil, err
		}
		if s.GetValidationContext() == nil {
			return nil, fmt.Errorf("secret %q is no validation_context", s.GetName())
		}
		return readValidation(combine(base, s.GetValidationContext()))
	}}
	return firstUse(path, from, t.validation)
}

// firstUse makes it once at start, so that a bootstrap which cannot work is
// refused. A file from elsewhere may still be on its way, as in Envoy.
func firstUse[T any](path string, from source, k *kept[T]) error {
	if _, err := k.get(); err != nil && from.path == "" {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

var versions = map[tlsv3.TlsParameters_TlsProtocol]uint16{
	tlsv3.TlsParameters_TLSv1_0: tls.VersionTLS10, tlsv3.TlsParameters_TLSv1_1: tls.VersionTLS11,
	tlsv3.TlsParameters_TLSv1_2: tls.VersionTLS12, tlsv3.TlsParameters_TLSv1_3: tls.VersionTLS13,
}

// ciphers are BoringSSL's names; those of TLS 1.3 are never chosen, there as here.
var ciphers = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-RSA-AES128-GCM-SHA256":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-RSA-AES256-GCM-SHA384":   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305,
	"ECDHE-RSA-CHACHA20-POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305,
	"ECDHE-ECDSA-AES128-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,
	"ECDHE-RSA-AES128-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
	"ECDHE-ECDSA-AES256-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
	"ECDHE-RSA-AES256-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
	"AES128-GCM-SHA256":             tls.TLS_RSA_WITH_AES_128_GCM_SHA256,
	"AES256-GCM-SHA384":             tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
	"AES128-SHA":                    tls.TLS_RSA_WITH_AES_128_CBC_SHA,
	"AES256-SHA":                    tls.TLS_RSA_WITH_AES_256_CBC_SHA,
}

var curves = map[string]tls.CurveID{
	"X25519": tls.X25519, "P-256": tls.CurveP256, "P-384": tls.CurveP384, "P-521": tls.CurveP521, "X25519MLKEM768": tls.X25519MLKEM768,
}

func (t *TLS) params(p *tlsv3.TlsParameters) error {
	t.base.MinVersion = tls.VersionTLS12
	if v, ok := versions[p.GetTlsMinimumProtocolVersion()]; ok {
		t.base.MinVersion = v
	}
	t.base.MaxVersion = versions[p.GetTlsMaximumProtocolVersion()]
	for i, list := range p.GetCipherSuites() {
		// [a|b] are ciphers of equal preference.
		for _, name := range strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune("[]|:", r) }) {
			id, ok := ciphers[name]
			if !ok {
				return fmt.Errorf("cipher_suites[%d]: Failed to initialize cipher suites %s", i, list)
			}
			t.base.CipherSuites = append(t.base.CipherSuites, id)
		}
	}
	for i, name := range p.GetEcdhCurves() {
		id, ok := curves[name]
		if !ok {
			return fmt.Errorf("ecdh_curves[%d]: Failed to initialize ECDH curves %s", i, name)
		}
		t.base.CurvePreferences = append(t.base.CurvePreferences, id)
	}
	if len(p.GetSignatureAlgorithms())+len(p.GetCompliancePolicies()) > 0 {
		return errors.New("signature_algorithms: not supported yet")
	}
	return nil
}

// secure makes the handshake. host is the endpoint's name, if it has one.
func (t *TLS) secure(ctx context.Context, raw net.Conn, host string, spoken string) (*tls.Conn, error) {
	v, err := t.validation.get()
	if err != nil {
		return nil, err
	}
	c := t.base.Clone()
	if t.sniFromHost && host != "" {
		c.ServerName = host
	}
	if t.nameIsSNI && c.ServerName != "" {
		own := *v
		name := c.ServerName
		// It replaces what else is configured, as in Envoy.
		own.sans = []san{{kind: tlsv3.SubjectAltNameMatcher_DNS, exact: name, match: func(s string) bool { return s == name }}}
		v = &own
	}
	if c.NextProtos = t.alpn; len(c.NextProtos) == 0 {
		c.NextProtos = []string{spoken}
	}
	c.InsecureSkipVerify = true // VerifyConnection does it, by the rules of the context
	c.VerifyConnection = v.verify
	if t.certificate != nil {
		cert, err := t.certificate.get()
		if err != nil {
			return nil, err
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	s := tls.Client(raw, c)
	if err := s.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// alerting tells why a peer hung up: with TLS 1.3 a client learns only after its
// handshake that its certificate was refused, and a write that fails by then says
// `broken pipe`, while the reason waits to be read.
type alerting struct{ *tls.Conn }

func (c alerting) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err == nil {
		return n, nil
	}
	alert := tls.AlertError(0)
	if _, why := c.Conn.Read(make([]byte, 1)); errors.As(why, &alert) || why != nil && strings.Contains(why.Error(), "remote error: tls:") {
		return n, why
	}
	return n, err
}

// transportSocket reads a cluster's transport_socket; nil is plaintext.
func transportSocket(p *corev3.TransportSocket, known secrets) (*TLS, error) {
	if p == nil {
		return nil, nil
	}
	m, err := p.GetTypedConfig().UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("transport_socket: not supported yet (%s)", p.GetTypedConfig().MessageName())
	}
	switch string(m.ProtoReflect().Descriptor().FullName()) {
	case "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer":
		return nil, nil
	case "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext":
		t, err := ReadTLS(m.(*tlsv3.UpstreamTlsContext), known)
		if err != nil {
			return nil, fmt.Errorf("transport_socket.%w", err)
		}
		return t, nil
	}
	return nil, fmt.Errorf("transport_socket: not supported yet for a control plane (%s)", m.ProtoReflect().Descriptor().FullName())
}
