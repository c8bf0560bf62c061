package assemble

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
)

// endpoints are those of one EDS name.
type endpoints struct {
	// users are the clusters that have a version of this EDS name.
	users map[*cluster]struct{}
	// current is nil until something came, or the wait was given up.
	current *held[api.Assignment]
	failed  *Failure
}

func emptyAssignment() *api.Assignment {
	return &api.Assignment{OverprovisioningFactor: api.DefaultOverprovisioningFactor}
}

// want notes that c needs the endpoints called name.
func (m *Model) want(c *cluster, name string) *endpoints {
	e := m.endpoints[name]
	if e == nil {
		e = &endpoints{users: map[*cluster]struct{}{}}
		m.endpoints[name] = e
		m.epoch++
	}
	e.users[c] = struct{}{}
	return e
}

// unwant notes that version old of c is gone; endpoints that nobody wants are
// forgotten, their deletion is implied (xds_protocol.rst).
func (m *Model) unwant(c *cluster, old *held[api.Cluster]) {
	m.unfollow(old)
	m.unrefer(old.value.SecretRefs())
	if old.value.Discovery != api.EDS {
		return
	}
	name := old.value.EDSKey()
	for _, h := range []*held[api.Cluster]{c.active, c.warming} {
		if h != nil && h.value.Discovery == api.EDS && h.value.EDSKey() == name {
			return
		}
	}
	e := m.endpoints[name]
	delete(e.users, c)
	if len(e.users) == 0 {
		delete(m.endpoints, name)
		m.epoch++
	}
}

// EDSKeys are the keys of all subscriptions to endpoints, sorted; never nil. The
// key of those over ADS is the EDS name (api.Cluster.EDSKey).
func (m *Model) EDSKeys() []string {
	out := make([]string, 0, len(m.endpoints))
	for name := range m.endpoints {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// EDSNames are the names to ask of EDS over ADS, sorted; never nil.
func (m *Model) EDSNames() []string {
	return slices.DeleteFunc(m.EDSKeys(), func(key string) bool { return strings.Contains(key, "\x00") })
}

// OwnEDS are the clusters whose endpoints do not come over ADS, by key.
func (m *Model) OwnEDS() map[string]*api.Cluster {
	out := map[string]*api.Cluster{}
	for key, e := range m.endpoints {
		if !strings.Contains(key, "\x00") {
			continue
		}
		for c := range e.users {
			for _, h := range []*held[api.Cluster]{c.active, c.warming} {
				if h != nil && h.value.Discovery == api.EDS && h.value.EDSKey() == key {
					out[key] = h.value
				}
			}
		}
	}
	return out
}

// EDSEpoch changes whenever EDSNames does.
func (m *Model) EDSEpoch() uint64 { return m.epoch }

// Waiting tells whether a cluster warms for the endpoints called name.
func (m *Model) Waiting(name string) bool { return len(m.Waiters(name)) > 0 }

// EDSUsers are the clusters that want the endpoints called name, sorted.
func (m *Model) EDSUsers(name string) []*api.Cluster {
	e := m.endpoints[name]
	if e == nil {
		return nil
	}
	out := make([]*api.Cluster, 0, len(e.users))
	for c := range e.users {
		out = append(out, c.latest().value)
	}
	slices.SortFunc(out, func(a, b *api.Cluster) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}

// HasEndpoints tells whether raw is what the model has.
func (m *Model) HasEndpoints(name string, raw *anypb.Any) bool {
	e := m.endpoints[name]
	return e != nil && e.current.same(raw)
}

// Hosts is how many endpoints there are under name.
func (m *Model) Hosts(name string) int {
	if e := m.endpoints[name]; e != nil && e.current != nil {
		return e.current.value.Hosts()
	}
	return 0
}

// StaleAfter is for how long the endpoints called name are to be believed, 0 for
// ever.
func (m *Model) StaleAfter(name string) time.Duration {
	if e := m.endpoints[name]; e != nil && e.current != nil {
		return e.current.value.StaleAfter
	}
	return 0
}

// ClearEndpoints leaves none of the endpoints called name.
func (m *Model) ClearEndpoints(name string) {
	if e := m.endpoints[name]; e != nil {
		e.current = &held[api.Assignment]{value: emptyAssignment()}
		m.arrived(name, e)
	}
}

// Wants tells whether anybody asked for the endpoints called name.
func (m *Model) Wants(name string) bool { return m.endpoints[name] != nil }

// UpdateEndpoints takes over an EDS response. Names that nobody asked for are
// ignored. Removed names leave the endpoints in force, as in Envoy 1.40: only
// the cluster's own end takes them away; a cluster that waits for them goes on
// without. Of duplicates the last one wins (Envoy 1.40 ACKs them in state of the
// world; in delta they do not get here).
func (m *Model) UpdateEndpoints(u Update[api.Assignment]) Result {
	var res Result
	for _, r := range u.Resources {
		e := m.endpoints[r.Name]
		if e == nil {
			if r.Err != nil && r.Name == "" {
				res.Problems = append(res.Problems, Problem{Name: r.Name, Err: r.Err})
			}
			continue
		}
		switch {
		case r.Err != nil:
			res.Problems = append(res.Problems, Problem{Name: r.Name, Err: r.Err})
			e.failed = &Failure{Attempted: r.Raw, Version: r.Version, At: u.Now, Err: r.Err}
			continue
		case r.Raw == nil:
			e.failed = nil
			continue
		case r.Same || e.current.same(r.Raw):
			res.unmoved(r.Name, true)
			e.failed = nil
			if !m.Waiting(r.Name) {
				continue
			}
		case e.current == nil:
			res.Added++
			res.unmoved(r.Name, r.Value.Hosts() == 0)
			e.current = hold(r, u.Now)
		default:
			res.Modified++
			res.unmoved(r.Name, e.current.value.Equal(r.Value) || e.current.value.Hosts()+r.Value.Hosts() == 0)
			e.current = hold(r, u.Now)
		}
		e.failed = nil
		m.arrived(r.Name, e)
	}
	for _, name := range u.Removed {
		m.GiveUp(name)
	}
	return res
}

func (r *Result) unmoved(name string, same bool) {
	if same {
		if r.Unmoved == nil {
			r.Unmoved = map[string]bool{}
		}
		r.Unmoved[name] = true
	}
}

// GiveUp stops the wait for the endpoints called name: the clusters that warm
// for them go on with those that are known, or without any
// (initial_fetch_timeout).
func (m *Model) GiveUp(name string) {
	e := m.endpoints[name]
	if e == nil || !m.Waiting(name) {
		return
	}
	if e.current == nil {
		e.current = &held[api.Assignment]{value: emptyAssignment()}
	}
	m.arrived(name, e)
}

// GiveUpAll stops every wait for endpoints: a rejected EDS response ends them
// all (Envoy's EdsClusterImpl::onConfigUpdateFailed).
func (m *Model) GiveUpAll() {
	for name := range m.endpoints {
		m.GiveUp(name)
	}
}

func (m *Model) arrived(name string, e *endpoints) {
	for c := range e.users {
		if w := c.warming; w != nil && w.value.Discovery == api.EDS && w.value.EDSKey() == name {
			m.settle(c, w)
		}
		if a := c.active; a != nil && a.value.Discovery == api.EDS && a.value.EDSKey() == name {
			m.join(c)
		}
	}
}

// Endpoints lists all endpoints that came, by EDS name.
func (m *Model) Endpoints() []View {
	out := make([]View, 0, len(m.endpoints))
	for name, e := range m.endpoints {
		if e.current != nil && e.current.raw != nil || e.failed != nil {
			name, _, _ := strings.Cut(name, "\x00")
			out = append(out, view[api.Assignment](name, false, e.current, nil, e.failed))
		}
	}
	return sortViews(out)
}

// Waiters are the clusters that warm for the endpoints called name.
func (m *Model) Waiters(name string) []*api.Cluster {
	e := m.endpoints[name]
	if e == nil {
		return nil
	}
	var out []*api.Cluster
	for c := range e.users {
		if w := c.warming; w != nil && c.checking == nil && !w.fed && w.value.Discovery == api.EDS && w.value.EDSKey() == name {
			out = append(out, c.warming.value)
		}
	}
	return out
}
