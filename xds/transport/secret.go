package transport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/sluice-proxy/sluice/xds/file"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// readData reads a DataSource, whose file may have changed since the last time.
func readData(d *corev3.DataSource) ([]byte, error) {
	switch s := d.GetSpecifier().(type) {
	case *corev3.DataSource_Filename:
		b, err := os.ReadFile(s.Filename)
		if err != nil {
			return nil, fmt.Errorf("Invalid path: %s: %w", s.Filename, file.Cause(err))
		}
		return b, nil
	case *corev3.DataSource_InlineBytes:
		return s.InlineBytes, nil
	case *corev3.DataSource_InlineString:
		return []byte(s.InlineString), nil
	case *corev3.DataSource_EnvironmentVariable:
		v, ok := os.LookupEnv(s.EnvironmentVariable)
		if !ok {
			return nil, fmt.Errorf("Environment variable doesn't exist: %s", s.EnvironmentVariable)
		}
		return []byte(v), nil
	}
	return nil, errors.New("Unexpected DataSource::specifier_case(): 0")
}

// secrets are what a TLS context finds by name.
type secrets map[string]*tlsv3.Secret

// source is a secret that is in the bootstrap, or in a file that is read again
// for every connection (Envoy reads it again when something is moved over it; a
// connection that is open keeps what it was made with in both).
type source struct {
	fixed *tlsv3.Secret
	path  string
	name  string // of the secret in the file; empty takes any
}

// sds reads where a secret comes from; kind is Envoy's word for it in an error. Only files and the bootstrap itself can
// be asked before there is a control plane.
func sds(path, kind string, p *tlsv3.SdsSecretConfig, known secrets) (source, error) {
	if p.GetSdsConfig() == nil {
		if s := known[p.GetName()]; s != nil {
			return source{fixed: s}, nil
		}
		return source{}, fmt.Errorf("%s: Unknown static %s: %s", path, kind, resource.Short(p.GetName()))
	}
	f := p.GetSdsConfig().GetPathConfigSource().GetPath()
	if f == "" {
		f = p.GetSdsConfig().GetPath()
	}
	if f == "" {
		return source{}, fmt.Errorf("%s.sds_config: not supported yet for a control plane, except from a file", path)
	}
	if _, err := os.Stat(f); err != nil {
		return source{}, fmt.Errorf("%s.sds_config.path_config_source.path: paths must refer to an existing path in the system: '%s' does not exist", path, f)
	}
	return source{path: f, name: p.GetName()}, nil
}

// read returns the secret as it is now.
func (s source) read() (*tlsv3.Secret, error) {
	if s.path == "" {
		return s.fixed, nil
	}
	r := &discoveryv3.DiscoveryResponse{}
	if _, err := file.Load(s.path, file.Options{DropUnknown: true}, r); err != nil {
		return nil, err
	}
	for _, a := range r.GetResources() {
		m := &tlsv3.Secret{}
		if err := a.UnmarshalTo(m); err != nil {
			return nil, fmt.Errorf("%s: %w", s.path, file.OneLine(err))
		}
		if s.name == "" || m.GetName() == s.name {
			if err := resource.Constraint(m); err != nil {
				return nil, fmt.Errorf("%s: %w", s.path, err)
			}
			return m, nil
		}
	}
	return nil, fmt.Errorf("%s: no secret %q", s.path, s.name)
}

// kept is something that is made anew for every connection, and kept for the
// case that it cannot be: a file that is just being written costs no connection.
type kept[T any] struct {
	make func() (T, error)

	mu   sync.Mutex
	good *T
}

func (k *kept[T]) get() (v T, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v, err = k.make()
	switch {
	case err == nil:
		k.good = &v
		return v, nil
	case k.good != nil:
		return *k.good, nil
	}
	return v, err
}

// certificate loads a certificate with its key.
func certificate(path string, p *tlsv3.TlsCertificate) (*tls.Certificate, error) {
	c, err := resource.Certificate(path, p)
	if err != nil {
		return nil, err
	}
	out, err := tls.X509KeyPair(c.Chain, c.Key)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "tls: "))
	}
	return &out, nil
}
