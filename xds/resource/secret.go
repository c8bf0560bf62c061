package resource

import (
	"errors"
	"path/filepath"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
)

// Secret decodes an envoy.extensions.transport_sockets.tls.v3.Secret, with the
// files that it names. The name is returned also with an error, whenever it can be
// had.
func Secret(a *anypb.Any) (name string, s *api.Secret, n Notes, err error) {
	var p tlsv3.Secret
	n, err = decode(a, &p)
	name = p.GetName()
	if err != nil {
		return name, nil, n, err
	}
	w := walker{policies: table()}
	w.message("", p.ProtoReflect())
	s = w.secret(&p)
	n.Unbuilt = w.unbuilt
	if err := w.err(); err != nil {
		return name, nil, n, err
	}
	return name, s, n, nil
}

func (w *walker) secret(p *tlsv3.Secret) *api.Secret {
	s := &api.Secret{Name: p.GetName()}
	switch t := p.GetType().(type) {
	case *tlsv3.Secret_TlsCertificate:
		if s.Certificate = w.certificate("tls_certificate", t.TlsCertificate); s.Certificate != nil {
			s.Certificate.Name = s.Name
		}
	case *tlsv3.Secret_ValidationContext:
		if s.Validation = w.validation("validation_context", t.ValidationContext, true); s.Validation != nil {
			s.Validation.Name = s.Name
		}
	case *tlsv3.Secret_SessionTicketKeys:
		s.TicketKeys = w.ticketKeys("session_ticket_keys", t.SessionTicketKeys)
	case *tlsv3.Secret_GenericSecret:
		s.Generic = w.generic("generic_secret", t.GenericSecret)
	default:
		w.fail("type", errors.New("Secret type not implemented"))
	}
	return s
}

func (w *walker) generic(path string, p *tlsv3.GenericSecret) *api.GenericSecret {
	g := &api.GenericSecret{}
	read := func(path string, d *corev3.DataSource) []byte {
		s, err := optional(d)
		if err != nil {
			w.fail(path, err)
		}
		return []byte(s)
	}
	if p.GetSecret() != nil {
		g.Secret = read(path+".secret", p.GetSecret())
	}
	for name, d := range p.GetSecrets() {
		if g.Secrets == nil {
			g.Secrets = map[string][]byte{}
		}
		g.Secrets[name] = read(path+".secrets["+short(name)+"]", d)
	}
	return g
}

// SecretDirectories are the directories in which a file that a secret names may be
// replaced by a move: its watched_directory, else those that the files are in. The
// secret is to be read again then.
func SecretDirectories(a *anypb.Any) []string {
	p := &tlsv3.Secret{}
	if a.UnmarshalTo(p) != nil {
		return nil
	}
	var watched string
	var from []*corev3.DataSource
	switch t := p.GetType().(type) {
	case *tlsv3.Secret_TlsCertificate:
		c := t.TlsCertificate
		watched, from = c.GetWatchedDirectory().GetPath(), []*corev3.DataSource{c.GetCertificateChain(), c.GetPrivateKey(), c.GetPassword(), c.GetOcspStaple()}
	case *tlsv3.Secret_ValidationContext:
		c := t.ValidationContext
		watched, from = c.GetWatchedDirectory().GetPath(), []*corev3.DataSource{c.GetTrustedCa(), c.GetCrl()}
		from = append(from, bundles(c)...)
	}
	var dirs []string
	for _, d := range from {
		if f := d.GetFilename(); f != "" {
			dirs = append(dirs, filepath.Dir(f))
		}
	}
	if watched != "" && len(dirs) > 0 {
		return []string{watched}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

func bundles(c *tlsv3.CertificateValidationContext) (from []*corev3.DataSource) {
	s := &tlsv3.SPIFFECertValidatorConfig{}
	if c.GetCustomValidatorConfig() == nil || c.GetCustomValidatorConfig().GetTypedConfig().UnmarshalTo(s) != nil {
		return nil
	}
	for _, d := range s.GetTrustDomains() {
		from = append(from, d.GetTrustBundle())
	}
	return from
}
