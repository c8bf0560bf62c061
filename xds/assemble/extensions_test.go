package assemble

import (
	"testing"

	"github.com/sluice-proxy/sluice/api"
)

// An extension changes, and goes: what is published of the listener that wants it
// follows, and an update that changes neither leaves the slice as it is.
func TestAListenerIsPublishedWithTheNewestExtension(t *testing.T) {
	m := New()
	l := on("l", 1)
	l.Value.FilterChains = []*api.FilterChain{{Filters: []api.Filter{{Name: "x", Discovery: &api.FilterDiscovery{
		TypeURLs: []string{"limit"}, Default: &api.Filter{Name: "x", SNICluster: &api.SNICluster{}}}}}}}
	m.UpdateListeners(listeners(l))
	give := func(max uint64) {
		m.UpdateExtensions(Update[api.Extension]{Now: now, Resources: []Resource[api.Extension]{{Name: "x", Raw: raw("limit %d", max),
			Value: &api.Extension{Type: "limit", Filter: api.Filter{ConnectionLimit: &api.ConnectionLimit{MaxConnections: max}}}}}})
	}
	published := func() *api.Filter {
		t.Helper()
		s := next(m)
		if s == nil || len(s.Listeners) != 1 {
			t.Fatalf("published %+v, want the listener", s)
		}
		return &s.Listeners[0].FilterChains[0].Filters[0]
	}
	for _, max := range []uint64{3, 4} {
		give(max)
		if f := published(); f.ConnectionLimit == nil || f.ConnectionLimit.MaxConnections != max {
			t.Errorf("published with %+v, want a limit of %d", f, max)
		}
	}
	m.UpdateExtensions(Update[api.Extension]{Now: now, Removed: []string{"x"}})
	if f := published(); f.SNICluster == nil {
		t.Errorf("published with %+v, want the default", f)
	}
	before := m.listed
	m.UpdateClusters(clusters(fixed("c", 1)))
	if s := next(m); &s.Listeners[0] != &before[0] {
		t.Error("a cluster came, and the listeners are listed anew")
	}
}
