package transport

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	credentialv3 "github.com/envoyproxy/go-control-plane/envoy/config/grpc_credential/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// fileCredentials is the plugin of call credentials that reads a header's value
// from a file, by its type: the name is not looked at by Envoy's factory either.
const fileCredentials = "envoy.config.grpc_credential.v3.FileBasedMetadataConfig"

// ReadGoogle decodes a google_grpc: a target with its own channel, which becomes
// a cluster of its own, and what goes with each stream. Errors begin with the
// field's path below google_grpc.
func ReadGoogle(p *corev3.GrpcService_GoogleGrpc) (*Cluster, Service, error) {
	c := &Cluster{Name: p.GetTargetUri()}
	s := Service{Cluster: c.Name}
	host, err := c.target(p.GetTargetUri())
	if err != nil {
		return nil, s, fmt.Errorf("target_uri: %w (%s)", err, resource.Short(p.GetTargetUri()))
	}
	s.Authority = host
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	for key, v := range p.GetChannelArgs().GetArgs() {
		switch key {
		case "grpc.ssl_target_name_override":
			name = v.GetStringValue()
			s.Authority = name
		case "grpc.default_authority":
			s.Authority = v.GetStringValue()
		}
	}
	if len(p.GetChannelCredentialsPlugin())+len(p.GetCallCredentialsPlugin()) > 0 {
		return nil, s, fmt.Errorf("channel_credentials_plugin: not supported yet")
	}
	switch k := p.GetChannelCredentials().GetCredentialSpecifier().(type) {
	case nil, *corev3.GrpcService_GoogleGrpc_ChannelCredentials_LocalCredentials:
	case *corev3.GrpcService_GoogleGrpc_ChannelCredentials_SslCredentials:
		if c.TLS, err = sslCredentials(k.SslCredentials, name); err != nil {
			return nil, s, fmt.Errorf("channel_credentials.ssl_credentials.%w", err)
		}
	default:
		return nil, s, fmt.Errorf("channel_credentials.google_default: not supported yet")
	}
	for i, k := range p.GetCallCredentials() {
		if err := s.credential(k); err != nil {
			return nil, s, fmt.Errorf("call_credentials[%d].%w", i, err)
		}
	}
	if len(s.Metadata)+len(s.Tokens) > 0 && c.TLS == nil {
		return nil, s, fmt.Errorf("call_credentials: they need ssl_credentials, so that nobody else reads them")
	}
	return c, s, nil
}

// target reads gRPC's naming: host:port, dns:, ipv4:, ipv6: and unix:.
func (c *Cluster) target(uri string) (host string, err error) {
	scheme, rest, ok := strings.Cut(uri, ":")
	switch {
	case ok && scheme == "unix":
		if abs, ok := strings.CutPrefix(rest, "//"); ok {
			rest = abs
		}
		c.Endpoints = []Endpoint{{Path: rest}}
		return "localhost", nil // as gRPC has it
	case ok && scheme == "unix-abstract":
		c.Endpoints = []Endpoint{{Path: "@" + rest}}
		return "localhost", nil
	case ok && scheme == "dns":
		if strings.HasPrefix(rest, "//") {
			_, rest, _ = strings.Cut(rest[2:], "/") // dns://resolver/name
		}
	case ok && (scheme == "ipv4" || scheme == "ipv6"):
	default:
		rest = uri
	}
	for one := range strings.SplitSeq(rest, ",") {
		h, port, err := net.SplitHostPort(one)
		if err != nil {
			h, port = strings.Trim(one, "[]"), "443"
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || h == "" {
			return "", fmt.Errorf("no host and port")
		}
		if ip, err := netip.ParseAddr(h); err == nil {
			c.Endpoints = append(c.Endpoints, Endpoint{Addr: netip.AddrPortFrom(ip, uint16(n))})
		} else {
			c.Endpoints = append(c.Endpoints, Endpoint{Host: h, Port: uint16(n)})
		}
	}
	return rest, nil
}

// sslCredentials: the server's certificate must be for name, or for an address
// that name is.
func sslCredentials(p *corev3.GrpcService_GoogleGrpc_SslCredentials, name string) (*TLS, error) {
	v := &tlsv3.CertificateValidationContext{TrustedCa: p.GetRootCerts()}
	if p.GetRootCerts() == nil {
		v.SystemRootCerts = &tlsv3.CertificateValidationContext_SystemRootCerts{}
	}
	common := &tlsv3.CommonTlsContext{ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: v}}
	if p.GetCertChain() != nil {
		common.TlsCertificates = []*tlsv3.TlsCertificate{{CertificateChain: p.GetCertChain(), PrivateKey: p.GetPrivateKey()}}
	}
	t, err := ReadTLS(&tlsv3.UpstreamTlsContext{CommonTlsContext: common, Sni: name}, nil)
	if err != nil {
		return nil, err
	}
	make := t.validation.make
	t.validation.make = func() (*validation, error) {
		v, err := make()
		if err == nil {
			v.host = name
		}
		return v, err
	}
	return t, nil
}

func (s *Service) credential(p *corev3.GrpcService_GoogleGrpc_CallCredentials) error {
	switch k := p.GetCredentialSpecifier().(type) {
	case *corev3.GrpcService_GoogleGrpc_CallCredentials_AccessToken:
		s.Metadata = append(s.Metadata, [2]string{"authorization", "Bearer " + k.AccessToken})
		return nil
	case *corev3.GrpcService_GoogleGrpc_CallCredentials_FromPlugin:
		a := k.FromPlugin.GetTypedConfig()
		if string(a.MessageName()) != fileCredentials {
			return fmt.Errorf("from_plugin: not supported yet (%s)", resource.Short(string(a.MessageName())))
		}
		f := &credentialv3.FileBasedMetadataConfig{}
		if err := a.UnmarshalTo(f); err != nil {
			return fmt.Errorf("from_plugin: %w", err)
		}
		t := Token{Header: f.GetHeaderKey(), Prefix: f.GetHeaderPrefix(), value: f.GetSecretData()}
		if t.Header == "" {
			t.Header = "authorization"
		}
		if _, err := readData(t.value); err != nil && t.value.GetFilename() == "" {
			return fmt.Errorf("from_plugin.secret_data: %w", err)
		}
		s.Tokens = append(s.Tokens, t)
		return nil
	}
	return fmt.Errorf("credential_specifier: not supported yet (%T)", p.GetCredentialSpecifier())
}
