package api

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"
)

// TLSParams is TlsParameters. What is not set is Envoy's default, filled in, so
// that no reader needs to know it; an empty Signatures leaves it to the library.
type TLSParams struct {
	// MinVersion and MaxVersion are the numbers of crypto/tls.
	MinVersion, MaxVersion uint16
	// Ciphers are those up to TLS 1.2, by IANA number, in order of preference; those
	// of TLS 1.3 are never chosen. Curves and Signatures are IANA's numbers too.
	// (trust.CipherName and its neighbours have BoringSSL's names for them.)
	Ciphers    []uint16
	Curves     []uint16
	Signatures []uint16
}

// TLSCertificate is a TlsCertificate whose files are read: a chain and its key,
// which fit each other.
type TLSCertificate struct {
	// Name is the secret's that it came as, empty if it came as none.
	Name string
	// Chain is PEM, the leaf first. Key is PEM without a password.
	Chain, Key []byte
	// Staple is an OCSP response in DER, or empty.
	Staple []byte
	// Params replaces what is set in it for connections that get this certificate of
	// a server: zero fields replace nothing. It may be nil.
	Params *TLSParams
	// ChainPath and KeyPath name the files that they were read from, else "<inline>";
	// only /certs and errors show them.
	ChainPath, KeyPath string
}

// TLSValidation is a CertificateValidationContext whose files are read: what the
// peer's certificate must be like. trust.New makes the verifier of it.
type TLSValidation struct {
	// Name is the secret's that its TrustedCA came with, empty if it came in none.
	Name string
	// TrustedCA is PEM, and may hold revocation lists too; empty: no chain is
	// verified. SystemRoots stand in for it.
	TrustedCA   []byte
	SystemRoots bool
	// Revoked is PEM of revocation lists.
	Revoked []byte
	// Names are alternatives.
	Names []SubjectAltName
	// Hashes are SHA-256 of whole certificates, Keys of their SubjectPublicKeyInfo.
	// They are alternatives to each other.
	Hashes, Keys [][]byte
	// AllowExpired, AcceptUntrusted and LeafCRLOnly are allow_expired_certificate,
	// trust_chain_verification ACCEPT_UNTRUSTED and only_verify_leaf_cert_crl.
	AllowExpired, AcceptUntrusted, LeafCRLOnly bool
	// MaxDepth bounds the certificates above the leaf, trust anchor included; nil: 100.
	MaxDepth *uint32
	// NoCAList keeps a server from telling its clients which authorities it trusts.
	NoCAList bool
	// SPIFFE is the SPIFFE validator, in the place of TrustedCA, Revoked, Hashes and
	// Keys; nil: not used.
	SPIFFE *SPIFFE
	// CAPath and CRLPath name the files of TrustedCA and Revoked, else "<inline>".
	CAPath, CRLPath string
}

// With is v with o put over it, as a combined_validation_context is: lists grow,
// what else o sets replaces what v has. Either may be nil.
func (v *TLSValidation) With(o *TLSValidation) *TLSValidation {
	switch {
	case v == nil:
		return o
	case o == nil:
		return v
	}
	w := *v
	if len(o.TrustedCA) > 0 {
		w.TrustedCA, w.CAPath, w.Name = o.TrustedCA, o.CAPath, o.Name
	}
	if len(o.Revoked) > 0 {
		w.Revoked, w.CRLPath = o.Revoked, o.CRLPath
	}
	if o.MaxDepth != nil {
		w.MaxDepth = o.MaxDepth
	}
	if o.SPIFFE != nil {
		w.SPIFFE, w.Name = o.SPIFFE, o.Name
	}
	w.Names = slices.Concat(v.Names, o.Names)
	w.Hashes, w.Keys = slices.Concat(v.Hashes, o.Hashes), slices.Concat(v.Keys, o.Keys)
	w.SystemRoots = v.SystemRoots || o.SystemRoots
	w.AllowExpired = v.AllowExpired || o.AllowExpired
	w.AcceptUntrusted = v.AcceptUntrusted || o.AcceptUntrusted
	w.LeafCRLOnly = v.LeafCRLOnly || o.LeafCRLOnly
	w.NoCAList = v.NoCAList || o.NoCAList
	return &w
}

// Kind is what it holds.
func (s *Secret) Kind() SecretKind {
	switch {
	case s.Validation != nil:
		return ValidationSecret
	case s.TicketKeys != nil:
		return TicketKeysSecret
	case s.Generic != nil:
		return GenericSecretKind
	}
	return CertificateSecret
}

// Equal compares by content.
func (s *Secret) Equal(o *Secret) bool { return s == o || reflect.DeepEqual(s, o) }

// SPIFFE is SPIFFECertValidatorConfig: the authorities of each trust domain.
type SPIFFE struct {
	// Domains are unique by name, and sorted by it.
	Domains []TrustDomain
}

// TrustDomain is one domain with its authorities in PEM.
type TrustDomain struct {
	Name   string
	Bundle []byte
	// Path names the file of Bundle, else "<inline>".
	Path string
}

// SANType is SubjectAltNameMatcher.SanType.
type SANType uint8

// The kinds of subject alternative name, with the numbers of the proto. SANAny is
// the legacy match_subject_alt_names.
const (
	SANAny SANType = iota
	SANEmail
	SANDNS
	SANURI
	SANIPAddress
	SANOtherName
)

// SubjectAltName is a SubjectAltNameMatcher; OID is that of SANOtherName.
type SubjectAltName struct {
	Type  SANType
	Match StringMatch
	OID   string
}

// SecretRef names a secret that stands by itself: one that comes by SDS, or one of
// the bootstrap. Snapshot.Secrets has it by Key if it is there; if it did not come
// in time, its users are published without it. The zero value is none.
type SecretRef struct {
	// Key tells secrets of one name from different sources apart.
	Key  string
	Name string
	Kind SecretKind
	// Source is where it is asked for, nil if it is one of the bootstrap's.
	Source *ConfigSource
}

// SecretKind is what a secret holds.
type SecretKind uint8

// The kinds of secret.
const (
	CertificateSecret SecretKind = iota
	ValidationSecret
	TicketKeysSecret
	GenericSecretKind
)

// Static tells whether it is one of the bootstrap's.
func (r SecretRef) Static() bool { return r.Source == nil }

// StaticSecretKey is the key of the bootstrap's secret of that name and kind.
func StaticSecretKey(name string, kind SecretKind) string {
	return fmt.Sprintf("%s\x00static %d", name, kind)
}

// SecretKey is the key of the secret called name that src has. Those of the
// aggregated stream have their name.
func SecretKey(name string, src *ConfigSource) string {
	if src.Kind == FromADS || src.Kind == FromSelf {
		return name
	}
	return fmt.Sprintf("%s\x00%+v", name, *src)
}

// Secret is a resolved secret: exactly one pointer is set.
type Secret struct {
	Name        string
	Certificate *TLSCertificate
	Validation  *TLSValidation
	// TicketKeys are of 80 bytes each, as in TlsSessionTicketKeys; the first
	// encrypts, all decrypt.
	TicketKeys *TicketKeys
	Generic    *GenericSecret
}

// TicketKeys is TlsSessionTicketKeys.
type TicketKeys struct{ Keys [][]byte }

// GenericSecret is a GenericSecret.
type GenericSecret struct {
	Secret  []byte
	Secrets map[string][]byte
}

// TLSContext is a CommonTlsContext.
type TLSContext struct {
	Params TLSParams
	// Certificates are those that are in the configuration; CertificateRefs those
	// that stand by themselves. One of the two is empty.
	Certificates    []*TLSCertificate
	CertificateRefs []SecretRef
	// Validation and ValidationRef may both be set (combined_validation_context):
	// what comes by itself is then put over it by TLSValidation.With. Neither: the
	// peer's certificate is not looked at.
	Validation    *TLSValidation
	ValidationRef SecretRef
	// ALPN is what is offered or, by a server, supported, most preferred first.
	ALPN []string
	// KeyLog may be nil.
	KeyLog *TLSKeyLog
}

// TLSKeyLog is where the secrets of connections between these addresses are
// written to, in NSS's format; an empty list holds every address.
type TLSKeyLog struct {
	Path          string
	Local, Remote []netip.Prefix
}

// DownstreamTLS is a DownstreamTlsContext: TLS terminated here.
type DownstreamTLS struct {
	TLSContext
	RequireClientCertificate bool
	// TicketKeys encrypt session tickets. If neither they nor the reference is set,
	// keys of the process's own do, unless NoTickets.
	TicketKeys    *TicketKeys
	TicketKeysRef SecretRef
	NoTickets     bool
	// NoSessionCache is disable_stateful_session_resumption.
	NoSessionCache bool
	// SessionTimeout is how long a session may be resumed; 0: the library's default.
	SessionTimeout time.Duration
	// Stapling says what a certificate without a good OCSP response means.
	Stapling StaplePolicy
	// FullScan looks at all certificates if none fits the SNI, not at the first only.
	FullScan bool
	// PreferClientCiphers takes the client's order of ciphers.
	PreferClientCiphers bool
}

// StaplePolicy is DownstreamTlsContext.OcspStaplePolicy.
type StaplePolicy uint8

// The policies, with the numbers of the proto.
const (
	LenientStapling StaplePolicy = iota
	StrictStapling
	MustStaple
)

// UpstreamTLS is an UpstreamTlsContext: TLS originated here.
type UpstreamTLS struct {
	TLSContext
	SNI string
	// SNIFromHost takes the endpoint's Hostname for the SNI if it has one.
	SNIFromHost bool
	// NameIsSNI verifies the SNI that is sent, as a DNS name, in the place of
	// Validation's names.
	NameIsSNI          bool
	AllowRenegotiation bool
	// MaxSessionKeys bounds the sessions that are kept to be resumed, 0 is none.
	MaxSessionKeys uint32
}

// TCPStats has figures kept of the TCP under a transport socket: every Period, if that
// is not 0, and at the connection's end.
type TCPStats struct{ Period time.Duration }

// UpstreamSocket is a cluster's transport_socket; the zero value is raw_buffer.
type UpstreamSocket struct {
	// TCPStats may be nil.
	TCPStats *TCPStats
	// Proxy is the PROXY header that goes before everything else, nil for none.
	Proxy *ProxyHeader
	// TLS may be nil.
	TLS *UpstreamTLS
}

// SocketMatch is one of a cluster's transport_socket_matches. Of those whose Match
// is in the metadata of the endpoint, or in that of its locality, under
// SocketMatchMetadata, the first counts; if there is none, the cluster's own.
type SocketMatch struct {
	Name string
	// Match is key and value as JSON has them; empty takes every endpoint.
	Match  map[string]any
	Socket UpstreamSocket
}

// SocketFor is the transport socket of an endpoint.
func (c *Cluster) SocketFor(e *Endpoint) *UpstreamSocket {
	for i := range c.SocketMatches {
		if m := &c.SocketMatches[i]; m.holds(e.Metadata[SocketMatchMetadata]) {
			return &m.Socket
		}
	}
	return &c.Socket
}

func (m *SocketMatch) holds(have map[string]any) bool {
	for k, v := range m.Match {
		if w, ok := have[k]; !ok || !reflect.DeepEqual(v, w) {
			return false
		}
	}
	return true
}

// SocketMatchMetadata is the key of metadata that transport_socket_matches look at.
const SocketMatchMetadata = "envoy.transport_socket_match"
