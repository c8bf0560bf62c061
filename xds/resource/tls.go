package resource

import (
	"errors"
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	proxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	tcpstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tcp_stats/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
)

const (
	typeRawBuffer = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
	// ticketKey is the length of a session ticket key: a name, and two keys.
	ticketKey = 80
	// defaultSessionKeys is UpstreamTlsContext.max_session_keys.
	defaultSessionKeys = 1
)

// socket opens a transport socket; nil is raw_buffer, or refused.
func (w *walker) socket(path string, p *corev3.TransportSocket) (m proto.Message, at string) {
	if p == nil {
		return nil, path
	}
	m, name, _, err := open(p.GetTypedConfig())
	at = anyPath(path, name)
	switch {
	case err != nil:
		w.fail(path, err)
		return nil, at
	case name == typeRawBuffer:
		return nil, at
	case m == nil:
		w.fail(path, unregisteredSocket(p))
		return nil, at
	}
	return m, at
}

// unregisteredSocket is Envoy's word for a type that means nothing in its place.
func unregisteredSocket(p *corev3.TransportSocket) error {
	return fmt.Errorf("Didn't find a registered implementation for '%s' with type URL: '%s'", short(p.GetName()), short(innerURL(p.GetTypedConfig())))
}

// notBuilt is a transport socket of Envoy's that there is none of here, or no transport
// socket at all.
func notBuilt(p *corev3.TransportSocket, m proto.Message) error {
	name := m.ProtoReflect().Descriptor().FullName()
	if !strings.HasPrefix(string(name), "envoy.extensions.transport_sockets.") {
		return unregisteredSocket(p)
	}
	return fmt.Errorf("not supported yet (%s)", name)
}

// downstreamSocket decodes the transport socket of a filter chain; nil is
// raw_buffer.
func (w *walker) downstreamSocket(path string, p *corev3.TransportSocket) (*api.DownstreamTLS, *api.TCPStats) {
	m, at := w.socket(path, p)
	switch m := m.(type) {
	case nil:
	case *tlsv3.DownstreamTlsContext:
		w.message(at, m.ProtoReflect())
		return w.downstreamTLS(at, m), nil
	case *tcpstatsv3.Config:
		kept := w.tcpStats(at, m)
		tls, _ := w.downstreamSocket(at+".transport_socket", m.GetTransportSocket())
		return tls, kept
	case *tlsv3.UpstreamTlsContext, *proxyv3.ProxyProtocolUpstreamTransport:
		w.fail(path, unregisteredSocket(p))
	default:
		w.fail(path, notBuilt(p, m))
	}
	return nil, nil
}

// tcpStats reads what the transport socket of that name has kept.
func (w *walker) tcpStats(path string, p *tcpstatsv3.Config) *api.TCPStats {
	if err := constraint(path, p); err != nil {
		w.fail("", err)
		return nil
	}
	w.message(path, p.ProtoReflect())
	return &api.TCPStats{Period: w.duration(path+".update_period", p.GetUpdatePeriod(), 0)}
}

// upstreamSocket decodes the transport socket of a cluster.
func (w *walker) upstreamSocket(path string, p *corev3.TransportSocket) (s api.UpstreamSocket) {
	if outer := proxiedTransport(p); outer != nil {
		at := anyPath(path+".typed_config", typeProxied)
		s = w.upstreamSocket(at+".transport_socket", outer.GetTransportSocket())
		s.Proxy = w.proxied(at, outer)
		return s
	}
	m, at := w.socket(path, p)
	switch m := m.(type) {
	case nil:
	case *tlsv3.UpstreamTlsContext:
		w.message(at, m.ProtoReflect())
		s.TLS = w.upstreamTLS(at, m)
	case *tcpstatsv3.Config:
		s = w.upstreamSocket(at+".transport_socket", m.GetTransportSocket())
		s.TCPStats = w.tcpStats(at, m)
	case *tlsv3.DownstreamTlsContext:
		w.fail(path, unregisteredSocket(p))
	default:
		w.fail(path, notBuilt(p, m))
	}
	return s
}

func (w *walker) downstreamTLS(path string, p *tlsv3.DownstreamTlsContext) *api.DownstreamTLS {
	d := &api.DownstreamTLS{
		RequireClientCertificate: p.GetRequireClientCertificate().GetValue(),
		NoTickets:                p.GetDisableStatelessSessionResumption(),
		NoSessionCache:           p.GetDisableStatefulSessionResumption(),
		SessionTimeout:           w.duration(path+".session_timeout", p.GetSessionTimeout(), 0),
		FullScan:                 p.GetFullScanCertsOnSniMismatch().GetValue(),
		PreferClientCiphers:      p.GetPreferClientCiphers(),
	}
	c, at := p.GetCommonTlsContext(), path+".common_tls_context"
	d.TLSContext = w.common(at, c, serverParams())
	certs, refs := len(c.GetTlsCertificates()), len(c.GetTlsCertificateSdsSecretConfigs())
	switch {
	case certs > 0 && refs > 0:
		w.fail(at+".tls_certificates", errors.New("SDS and non-SDS TLS certificates may not be mixed in server contexts"))
	case certs+refs == 0:
		w.fail(at+".tls_certificates", errors.New("No TLS certificates found for server context"))
	}
	switch v := p.GetOcspStaplePolicy(); v {
	case tlsv3.DownstreamTlsContext_STRICT_STAPLING:
		d.Stapling = api.StrictStapling
	case tlsv3.DownstreamTlsContext_MUST_STAPLE:
		d.Stapling = api.MustStaple
		for _, c := range d.Certificates {
			if c != nil && len(c.Staple) == 0 {
				w.fail(path+".ocsp_staple_policy", errors.New("Required OCSP response is missing from TLS context"))
			}
		}
	}
	if k := p.GetSessionTicketKeys(); k != nil {
		d.TicketKeys = w.ticketKeys(path+".session_ticket_keys", k)
	}
	if s := p.GetSessionTicketKeysSdsSecretConfig(); s != nil {
		d.TicketKeysRef = w.secretRef(path+".session_ticket_keys_sds_secret_config", s, api.TicketKeysSecret)
	}
	return d
}

func (w *walker) upstreamTLS(path string, p *tlsv3.UpstreamTlsContext) *api.UpstreamTLS {
	u := &api.UpstreamTLS{
		SNI:                p.GetSni(),
		SNIFromHost:        p.GetAutoHostSni(),
		NameIsSNI:          p.GetAutoSniSanValidation(),
		AllowRenegotiation: p.GetAllowRenegotiation(),
		MaxSessionKeys:     uint32Or(p.GetMaxSessionKeys(), defaultSessionKeys),
	}
	if strings.ContainsRune(u.SNI, 0) {
		w.fail(path+".sni", errors.New("SNI names containing NULL-byte are not allowed"))
	}
	c, at := p.GetCommonTlsContext(), path+".common_tls_context"
	u.TLSContext = w.common(at, c, clientParams())
	if len(c.GetTlsCertificates())+len(c.GetTlsCertificateSdsSecretConfigs()) > 1 {
		w.fail(at, errors.New("Multiple TLS certificates are not supported for client contexts"))
	}
	if u.NameIsSNI && c.GetValidationContextType() == nil {
		w.fail(path+".auto_sni_san_validation", errors.New("'auto_sni_san_validation' was configured without a validation context"))
	}
	return u
}

func (w *walker) common(path string, p *tlsv3.CommonTlsContext, defaults api.TLSParams) api.TLSContext {
	c := api.TLSContext{
		Params: w.tlsParams(path+".tls_params", p.GetTlsParams(), defaults),
		ALPN:   w.alpn(path+".alpn_protocols", p.GetAlpnProtocols()),
		KeyLog: w.keyLog(path+".key_log", p.GetKeyLog()),
	}
	for i, cert := range p.GetTlsCertificates() {
		at := fmt.Sprintf("%s.tls_certificates[%d]", path, i)
		if cert.GetCertificateChain() == nil && cert.GetPrivateKey() == nil && cert.GetPkcs12() == nil && cert.GetPrivateKeyProvider() == nil {
			w.fail(at, errors.New("Server TlsCertificates must have a certificate specified"))
			continue
		}
		c.Certificates = append(c.Certificates, w.certificate(at, cert))
	}
	for i, s := range p.GetTlsCertificateSdsSecretConfigs() {
		at := fmt.Sprintf("%s.tls_certificate_sds_secret_configs[%d]", path, i)
		c.CertificateRefs = append(c.CertificateRefs, w.secretRef(at, s, api.CertificateSecret))
	}
	switch v := p.GetValidationContextType().(type) {
	case *tlsv3.CommonTlsContext_ValidationContext:
		c.Validation = w.validation(path+".validation_context", v.ValidationContext, false)
	case *tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig:
		c.ValidationRef = w.secretRef(path+".validation_context_sds_secret_config", v.ValidationContextSdsSecretConfig, api.ValidationSecret)
	case *tlsv3.CommonTlsContext_CombinedValidationContext:
		at := path + ".combined_validation_context"
		c.Validation = w.validation(at+".default_validation_context", v.CombinedValidationContext.GetDefaultValidationContext(), true)
		c.ValidationRef = w.secretRef(at+".validation_context_sds_secret_config", v.CombinedValidationContext.GetValidationContextSdsSecretConfig(), api.ValidationSecret)
	}
	return c
}

// secretRef reads where a secret comes from. Whether the bootstrap has one of that
// name is for the caller to know.
func (w *walker) secretRef(path string, p *tlsv3.SdsSecretConfig, kind api.SecretKind) api.SecretRef {
	r := api.SecretRef{Name: p.GetName(), Kind: kind}
	if p.GetSdsConfig() == nil {
		r.Key = api.StaticSecretKey(r.Name, kind)
		return r
	}
	path += ".sds_config"
	src, err := Source(path, p.GetSdsConfig())
	switch {
	case err != nil:
		w.fail("", err)
	case (src.Kind == api.FromGRPC || src.Kind == api.FromREST) && src.Cluster == "":
		w.fail(path+".api_config_source", errors.New("not supported yet (google_grpc)"))
	}
	r.Source, r.Key = &src, api.SecretKey(r.Name, &src)
	return r
}

func (w *walker) ticketKeys(path string, p *tlsv3.TlsSessionTicketKeys) *api.TicketKeys {
	out := &api.TicketKeys{}
	for i, k := range p.GetKeys() {
		at := fmt.Sprintf("%s.keys[%d]", path, i)
		b, err := dataSource(k)
		if err == nil && len(b) != ticketKey {
			err = fmt.Errorf("Incorrect TLS session ticket key length. Length %d, expected length %d.", len(b), ticketKey)
		}
		if err != nil {
			w.fail(at, err)
			continue
		}
		out.Keys = append(out.Keys, []byte(b))
	}
	return out
}

func (w *walker) keyLog(path string, p *tlsv3.TlsKeyLog) *api.TLSKeyLog {
	if p == nil {
		return nil
	}
	return &api.TLSKeyLog{Path: p.GetPath(), Local: w.cidrs(path+".local_address_range", p.GetLocalAddressRange()),
		Remote: w.cidrs(path+".remote_address_range", p.GetRemoteAddressRange())}
}
