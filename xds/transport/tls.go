package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tcpstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tcp_stats/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/sluice-proxy/sluice/xds/resource"
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
	if _, err := resource.Walk("", p); err != nil {
		return nil, err
	}
	if err := t.params(c.GetTlsParams()); err != nil {
		return nil, err
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
			return nil, fmt.Errorf("%s: secret %q is no tls_certificate", path, s.GetName())
		}
		return certificate(path, s.GetTlsCertificate())
	}}
	return firstUse(from, t.certificate)
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
			return nil, fmt.Errorf("%s: secret %q is no validation_context", path, s.GetName())
		}
		return readValidation(path, combine(base, s.GetValidationContext()))
	}}
	return firstUse(from, t.validation)
}

// firstUse makes it once at start, so that a bootstrap which cannot work is
// refused. A file from elsewhere may still be on its way, as in Envoy.
func firstUse[T any](from source, k *kept[T]) error {
	if _, err := k.get(); err != nil && from.path == "" {
		return err
	}
	return nil
}

// params are those of any client, but that TLS 1.3 is spoken unless it is ruled
// out: Envoy's clients stop at 1.2 if they are not told, and control planes need
// not put up with that.
func (t *TLS) params(p *tlsv3.TlsParameters) error {
	c, err := resource.ClientParams("common_tls_context.tls_params", p)
	if err != nil {
		return err
	}
	t.base.MinVersion, t.base.MaxVersion, t.base.CipherSuites = c.MinVersion, c.MaxVersion, c.Ciphers
	if p.GetTlsMaximumProtocolVersion() == tlsv3.TlsParameters_TLS_AUTO {
		t.base.MaxVersion = 0
	}
	if len(p.GetEcdhCurves()) > 0 {
		for _, id := range c.Curves {
			t.base.CurvePreferences = append(t.base.CurvePreferences, tls.CurveID(id))
		}
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
		// It replaces what else is configured, as in Envoy.
		if v, err = v.named(c.ServerName); err != nil {
			return nil, err
		}
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
	case "envoy.extensions.transport_sockets.tcp_stats.v3.Config": // whose figures are traffic's
		return transportSocket(m.(*tcpstatsv3.Config).GetTransportSocket(), known)
	}
	return nil, fmt.Errorf("transport_socket: not supported yet for a control plane (%s)", m.ProtoReflect().Descriptor().FullName())
}
