package rbac

import (
	"slices"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/match"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// newAuthenticated is Envoy's AuthenticatedMatcher: any of the URIs or of the DNS
// names, else the subject.
func newAuthenticated(a *api.Authenticated) rule {
	if a.Name == nil {
		return func(i *stream.Info) bool { t, _ := i.TLS(); return t != nil }
	}
	holds := match.NewString(a.Name)
	return func(i *stream.Info) bool {
		t, _ := i.TLS()
		return t != nil && (slices.ContainsFunc(t.PeerURIs(), holds) || slices.ContainsFunc(t.PeerDNSNames(), holds) || holds(t.PeerSubject()))
	}
}

// newMutualTLS is Envoy's MtlsAuthenticatedMatcher.
func newMutualTLS(m *api.MutualTLS) rule {
	if m.Name == nil {
		return func(i *stream.Info) bool { t, _ := i.TLS(); return t != nil && t.Verified }
	}
	holds := match.NewString(&m.Name.Match)
	kind := m.Name.Type
	return func(i *stream.Info) bool {
		t, _ := i.TLS()
		return t != nil && t.Verified && slices.ContainsFunc(t.PeerNames(kind), holds)
	}
}
