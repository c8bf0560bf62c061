package als

import (
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/api/tlsname"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// secured is what an entry says of the session with the client; nil without TLS. The
// session's id stays empty: the library tells none.
func secured(i *stream.Info) *datav3.TLSProperties {
	t, _ := i.TLS()
	if t == nil {
		return nil
	}
	p := &datav3.TLSProperties{
		TlsVersion:                 versions[t.Version],
		TlsSniHostname:             i.Hello().ServerName,
		LocalCertificateProperties: certificate(t.LocalURIs(), t.LocalDNSNames(), t.LocalSubject(), ""),
		PeerCertificateProperties:  certificate(t.PeerURIs(), t.PeerDNSNames(), t.PeerSubject(), t.PeerIssuer()),
		Ja3Fingerprint:             i.Hello().JA3,
	}
	if id, ok := tlsname.CipherID(t.Cipher); ok {
		p.TlsCipherSuite = wrapperspb.UInt32(uint32(id))
	}
	return p
}

var versions = map[string]datav3.TLSProperties_TLSVersion{
	"TLSv1": datav3.TLSProperties_TLSv1, "TLSv1.1": datav3.TLSProperties_TLSv1_1,
	"TLSv1.2": datav3.TLSProperties_TLSv1_2, "TLSv1.3": datav3.TLSProperties_TLSv1_3,
}

func certificate(uris, names []string, subject, issuer string) *datav3.TLSProperties_CertificateProperties {
	p := &datav3.TLSProperties_CertificateProperties{Subject: subject, Issuer: issuer}
	for _, u := range uris {
		p.SubjectAltName = append(p.SubjectAltName, &datav3.TLSProperties_CertificateProperties_SubjectAltName{
			San: &datav3.TLSProperties_CertificateProperties_SubjectAltName_Uri{Uri: u}})
	}
	for _, n := range names {
		p.SubjectAltName = append(p.SubjectAltName, &datav3.TLSProperties_CertificateProperties_SubjectAltName{
			San: &datav3.TLSProperties_CertificateProperties_SubjectAltName_Dns{Dns: n}})
	}
	return p
}
