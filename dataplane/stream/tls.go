package stream

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net/url"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// TLS is what is known of the TLS session of one side. It is read-only.
type TLS struct {
	// Version, Cipher and Group are as BoringSSL calls them.
	Version, Cipher, Group string
	// ServerName is the SNI.
	ServerName string
	// Peer are the certificates that the peer presented, its own first; Local is the
	// one shown to it. Either may be absent.
	Peer  []*x509.Certificate
	Local *x509.Certificate
	// Verified: the peer has shown a certificate, and it was good.
	Verified bool
	// Took is how long after its accept a client's session stood, 0 as long as it
	// does not.
	Took time.Duration
}

// leaf is the peer's own certificate, or nil.
func (t *TLS) leaf() *x509.Certificate {
	if t == nil || len(t.Peer) == 0 {
		return nil
	}
	return t.Peer[0]
}

// PeerURIs, PeerDNSNames and PeerSubject are what filters know the peer by.
func (t *TLS) PeerURIs() []string { return uris(t.leaf()) }

// PeerDNSNames are its subject alternative names of DNS.
func (t *TLS) PeerDNSNames() []string { return dnsNames(t.leaf()) }

// PeerNames are its alternative names of a kind.
func (t *TLS) PeerNames(kind api.SANType) []string {
	switch kind {
	case api.SANURI:
		return uris(t.leaf())
	case api.SANDNS:
		return dnsNames(t.leaf())
	case api.SANEmail:
		return emails(t.leaf())
	case api.SANIPAddress:
		return ips(t.leaf())
	}
	return nil
}

// PeerSubject is in the form of RFC 2253; empty without a certificate.
func (t *TLS) PeerSubject() string {
	if c := t.leaf(); c != nil {
		return distinguished(c.RawSubject)
	}
	return ""
}

// PeerIssuer is in the form of RFC 2253; empty without a certificate.
func (t *TLS) PeerIssuer() string {
	if c := t.leaf(); c != nil {
		return distinguished(c.RawIssuer)
	}
	return ""
}

// LocalURIs, LocalDNSNames and LocalSubject are those of the certificate shown.
func (t *TLS) LocalURIs() []string {
	if t == nil {
		return nil
	}
	return uris(t.Local)
}

// LocalDNSNames are its subject alternative names of DNS.
func (t *TLS) LocalDNSNames() []string {
	if t == nil {
		return nil
	}
	return dnsNames(t.Local)
}

// LocalSubject is in the form of RFC 2253.
func (t *TLS) LocalSubject() string {
	if t == nil || t.Local == nil {
		return ""
	}
	return distinguished(t.Local.RawSubject)
}

// PeerPEM is the peer's certificate as Envoy puts it into one word.
func (t *TLS) PeerPEM() string {
	c := t.leaf()
	if c == nil {
		return ""
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	return strings.ReplaceAll(url.QueryEscape(string(b)), "+", "%20")
}

// TLS are the sessions with the client and with the host, nil without TLS.
func (i *Info) TLS() (downstream, upstream *TLS) {
	if i.rare == nil {
		return nil, nil
	}
	return i.rare.downstreamTLS, i.rare.upstreamTLS
}

// SetDownstreamTLS notes what is known of the session with the client.
func (i *Info) SetDownstreamTLS(t *TLS) { i.needRare().downstreamTLS = t }

// SetUpstreamTLS notes that with the host; nil takes it back.
func (i *Info) SetUpstreamTLS(t *TLS) {
	if _, have := i.TLS(); have != t {
		i.needRare().upstreamTLS = t
	}
}

func uris(c *x509.Certificate) (all []string) {
	if c == nil {
		return nil
	}
	for _, u := range c.URIs {
		all = append(all, u.String())
	}
	return all
}

func dnsNames(c *x509.Certificate) []string {
	if c == nil {
		return nil
	}
	return c.DNSNames
}

func ips(c *x509.Certificate) (all []string) {
	if c == nil {
		return nil
	}
	for _, a := range c.IPAddresses {
		all = append(all, a.String())
	}
	return all
}

func emails(c *x509.Certificate) []string {
	if c == nil {
		return nil
	}
	return c.EmailAddresses
}

func fingerprint256(c *x509.Certificate) string {
	h := sha256.Sum256(c.Raw)
	return hex.EncodeToString(h[:])
}

func fingerprint1(c *x509.Certificate) string {
	h := sha1.Sum(c.Raw)
	return hex.EncodeToString(h[:])
}

func serial(c *x509.Certificate) string { return hex.EncodeToString(c.SerialNumber.Bytes()) }

// secured finds the getter of a command about a session: %DOWNSTREAM_PEER_…%,
// %UPSTREAM_TLS_…% and so on.
func secured(command, arg string) getter {
	side, what, _ := strings.Cut(command, "_")
	of := func(i *Info) *TLS { d, _ := i.TLS(); return d }
	if side == "UPSTREAM" {
		of = func(i *Info) *TLS { _, u := i.TLS(); return u }
	}
	if what == "PEER_CERT_V_START" || what == "PEER_CERT_V_END" {
		f := newClockFormat(arg, false)
		return func(m Moment) any {
			switch c := of(m.Info).leaf(); {
			case c == nil:
				return nil
			case what == "PEER_CERT_V_START":
				return f.format(c.NotBefore)
			default:
				return f.format(c.NotAfter)
			}
		}
	}
	if command == "DOWNSTREAM_HANDSHAKE_DURATION" {
		return func(m Moment) any {
			if t := of(m.Info); t != nil && t.Took > 0 {
				return uint64(t.Took.Milliseconds())
			}
			return nil
		}
	}
	if get := sessionField(what); get != nil {
		return func(m Moment) any {
			if t := of(m.Info); t != nil {
				return text(get(t))
			}
			return nil
		}
	}
	return nil
}

func sessionField(what string) func(*TLS) string {
	list := func(of func(*x509.Certificate) []string, peer bool) func(*TLS) string {
		return func(t *TLS) string {
			if peer {
				return strings.Join(of(t.leaf()), ",")
			}
			return strings.Join(of(t.Local), ",")
		}
	}
	one := func(of func(*x509.Certificate) string) func(*TLS) string {
		return func(t *TLS) string {
			if c := t.leaf(); c != nil {
				return of(c)
			}
			return ""
		}
	}
	chain := func(of func(*x509.Certificate) string) func(*TLS) string {
		return func(t *TLS) string {
			var all []string
			for _, c := range t.Peer {
				all = append(all, of(c))
			}
			return strings.Join(all, ",")
		}
	}
	switch what {
	case "TLS_VERSION":
		return func(t *TLS) string { return t.Version }
	case "TLS_CIPHER":
		return func(t *TLS) string { return t.Cipher }
	case "TLS_GROUP":
		return func(t *TLS) string { return t.Group }
	case "SERVER_NAME":
		return func(t *TLS) string { return t.ServerName }
	case "PEER_URI_SAN":
		return list(uris, true)
	case "PEER_DNS_SAN":
		return list(dnsNames, true)
	case "PEER_IP_SAN":
		return list(ips, true)
	case "PEER_EMAIL_SAN":
		return list(emails, true)
	case "LOCAL_URI_SAN":
		return list(uris, false)
	case "LOCAL_DNS_SAN":
		return list(dnsNames, false)
	case "LOCAL_IP_SAN":
		return list(ips, false)
	case "LOCAL_EMAIL_SAN":
		return list(emails, false)
	case "LOCAL_SUBJECT":
		return (*TLS).LocalSubject
	case "PEER_SUBJECT":
		return (*TLS).PeerSubject
	case "PEER_ISSUER":
		return (*TLS).PeerIssuer
	case "PEER_FINGERPRINT_256":
		return one(fingerprint256)
	case "PEER_FINGERPRINT_1":
		return one(fingerprint1)
	case "PEER_SERIAL":
		return one(serial)
	case "PEER_CHAIN_FINGERPRINTS_256":
		return chain(fingerprint256)
	case "PEER_CHAIN_FINGERPRINTS_1":
		return chain(fingerprint1)
	case "PEER_CHAIN_SERIALS":
		return chain(serial)
	case "PEER_CERT":
		return (*TLS).PeerPEM
	}
	return nil
}
