package assemble

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
)

// cluster is one name in all its versions.
type cluster struct {
	name   string
	static bool
	// active serves; warming replaces it once its endpoints are known.
	active, warming *held[api.Cluster]
	// checking is warming with its endpoints, while their first active checks are
	// waited for; nil while the endpoints are.
	checking *api.Cluster
	// joined is active with its endpoints, as published.
	joined *api.Cluster
	failed *Failure
}

// latest is the version that a new one is compared with.
func (c *cluster) latest() *held[api.Cluster] {
	if c.warming != nil {
		return c.warming
	}
	return c.active
}

// HasCluster tells whether raw is what the model has as the newest version.
func (m *Model) HasCluster(name string, raw *anypb.Any) bool {
	c := m.clusters[name]
	return c != nil && !c.static && c.latest().same(raw)
}

// UpdateClusters takes over a CDS response: additions first, then removals
// (Envoy's cds_api_helper). A static cluster is neither replaced nor removed,
// and that is no error (Envoy 1.40: ACKed).
func (m *Model) UpdateClusters(u Update[api.Cluster]) Result {
	var res Result
	seen := make(map[string]bool, len(u.Resources))
	for _, r := range u.Resources {
		if seen[r.Name] && r.Name != "" {
			res.Problems = append(res.Problems, Problem{Name: r.Name, Err: fmt.Errorf("duplicate cluster %s found", r.Name), Whole: true})
			continue
		}
		seen[r.Name] = true
		c := m.clusters[r.Name]
		switch {
		case r.Err != nil:
			res.Problems = append(res.Problems, Problem{Name: r.Name, Err: r.Err})
			if c == nil || c.latest() == nil { // Envoy counts before it tries
				res.Added++
			} else {
				res.Modified++
			}
			m.failCluster(r, u.Now)
		case c != nil && c.static || r.Raw == nil:
		case c == nil || c.latest() == nil:
			if c == nil {
				c = &cluster{name: r.Name}
				m.clusters[r.Name] = c
			}
			res.Added++
			m.setCluster(c, hold(r, u.Now))
			res.subscribed(r.Value)
		default:
			if m.changeCluster(c, r, u.Now) {
				res.Modified++
				res.subscribed(r.Value)
			}
		}
	}
	if u.Whole {
		for name, c := range m.clusters {
			if !seen[name] && m.removeCluster(c) {
				res.Removed++
			}
		}
	}
	for _, name := range u.Removed {
		if c := m.clusters[name]; c != nil && m.removeCluster(c) {
			res.Removed++
		}
	}
	return res
}

func (r *Result) subscribed(c *api.Cluster) {
	if c.Discovery == api.EDS {
		r.Subscribed = append(r.Subscribed, c)
	}
}

// failCluster remembers a rejected version; the name may be new.
func (m *Model) failCluster(r Resource[api.Cluster], now time.Time) {
	c := m.clusters[r.Name]
	if c == nil {
		c = &cluster{name: r.Name}
		m.clusters[r.Name] = c
	}
	c.failed = &Failure{Attempted: r.Raw, Version: r.Version, At: now, Err: r.Err}
}

// changeCluster tells whether r differs from what is known.
func (m *Model) changeCluster(c *cluster, r Resource[api.Cluster], now time.Time) bool {
	c.failed = nil
	latest := c.latest()
	if r.Same || latest.same(r.Raw) {
		return false
	}
	if latest.value.Equal(r.Value) && latest.dialling == r.Dialling {
		// Other bytes, same meaning: only the dump changes.
		latest.raw, latest.version, latest.updated = r.Raw, r.Version, now
		return false
	}
	m.setCluster(c, hold(r, now))
	return true
}

// setCluster makes h active if it needs no endpoints and no secrets, or they are
// known, and warming otherwise. Endpoints that are in force for the same EDS name count:
// servers on go-control-plane do not send an unchanged assignment again, and
// Envoy uses them too, if only after initial_fetch_timeout (since 1.32). Where
// the way to dial them changed, that time is waited here too: they may belong to
// the old way.
func (m *Model) setCluster(c *cluster, h *held[api.Cluster]) {
	c.failed = nil
	if old := c.warming; old != nil {
		m.stopWarming(c)
		defer m.unwant(c, old)
	}
	m.refer(h.value.SecretRefs())
	if h.value.Discovery == api.EDS {
		if e := m.want(c, h.value.EDSKey()); e.current == nil || c.active != nil && c.active.dialling != h.dialling {
			c.warming = h
			m.warming++
			return
		}
	}
	if h.value.DNS != nil && m.follow(c, h) {
		c.warming = h
		m.warming++
		return
	}
	m.settle(c, h)
}

// stopWarming forgets c's warming version.
func (m *Model) stopWarming(c *cluster) {
	c.warming = nil
	m.warming--
	if c.checking != nil {
		c.checking = nil
		m.dirty = true
		m.unpublishedWarming = append(m.unpublishedWarming, c.name)
	}
}

// settle goes on with a version whose endpoints are known: it is active, or
// warms until its secrets came and its hosts have been checked
// (ClusterImplBase::onInitDone).
func (m *Model) settle(c *cluster, h *held[api.Cluster]) {
	h.fed = true
	if m.lacks(h.value.SecretRefs()) {
		if c.warming == nil {
			m.warming++
		}
		c.warming = h
		return
	}
	if len(h.value.HealthChecks) == 0 || !m.Checks {
		if c.warming != nil {
			m.stopWarming(c)
		}
		m.activate(c, h)
		return
	}
	if c.warming == nil {
		m.warming++
	}
	c.warming = h
	if joined := m.joined(h); c.checking == nil || !c.checking.Equal(joined) {
		c.checking = joined
		m.dirty = true
		m.unpublishedWarming = append(m.unpublishedWarming, c.name)
	}
}

// Checking is how many clusters wait for their first active checks.
func (m *Model) Checking() int {
	n := 0
	if m.warming > 0 {
		for _, c := range m.clusters {
			if c.checking != nil {
				n++
			}
		}
	}
	return n
}

// Checked says that the hosts of a warming version, as it was published, have
// been checked. It tells whether that was still of interest.
func (m *Model) Checked(v *api.Cluster) bool {
	c := m.clusters[v.Name]
	if c == nil || c.checking == nil {
		return false
	}
	// The endpoints may have changed meanwhile: those are not waited for again.
	was, is := *v, *c.checking
	was.Assignment, is.Assignment = nil, nil
	if !was.Equal(&is) {
		return false
	}
	h := c.warming
	m.stopWarming(c)
	m.activate(c, h)
	return true
}

// activate puts h in force with the endpoints there are.
func (m *Model) activate(c *cluster, h *held[api.Cluster]) {
	if c.active == nil {
		m.active++
	} else if old := c.active; old != h {
		defer m.unwant(c, old)
	}
	c.active = h
	m.join(c)
}

// join rebuilds what is published of c; equal content keeps its pointer.
func (m *Model) join(c *cluster) {
	joined := m.joined(c.active)
	if c.joined != nil && c.joined.Equal(joined) {
		return
	}
	c.joined = joined
	m.unpublished = append(m.unpublished, c.name)
	m.dirty = true
}

// joined is a version with its endpoints.
func (m *Model) joined(h *held[api.Cluster]) *api.Cluster {
	joined := h.value
	if joined.Discovery == api.EDS {
		cp := *joined
		cp.Assignment = m.endpoints[joined.EDSKey()].current.value
		joined = &cp
	}
	if joined.DNS != nil {
		cp := *joined
		cp.Assignment = resolved(joined, h.answers)
		joined = &cp
	}
	if joined.Assignment == nil {
		cp := *joined
		cp.Assignment = emptyAssignment()
		joined = &cp
	}
	return joined
}

// removeCluster takes c out, unless it is static. A listener that still names it
// does no harm: its connections end as those to an unknown cluster.
func (m *Model) removeCluster(c *cluster) bool {
	if c.static {
		return false
	}
	delete(m.clusters, c.name)
	was := c.latest() != nil
	if w := c.warming; w != nil {
		m.stopWarming(c)
		m.unwant(c, w)
	}
	if a := c.active; a != nil {
		c.active = nil
		m.active--
		m.unpublished = append(m.unpublished, c.name)
		m.dirty = true
		m.unwant(c, a)
	}
	return was
}

// Clusters lists all clusters by name.
func (m *Model) Clusters() []View {
	out := make([]View, 0, len(m.clusters))
	for name, c := range m.clusters {
		out = append(out, view(name, c.static, c.active, c.warming, c.failed))
	}
	return sortViews(out)
}

// AddStaticCluster adds a cluster of the bootstrap.
func (m *Model) AddStaticCluster(r Resource[api.Cluster], now time.Time) error {
	if m.clusters[r.Name] != nil {
		return fmt.Errorf("cluster %s: duplicate name", r.Name)
	}
	c := &cluster{name: r.Name, static: true}
	m.clusters[r.Name] = c
	m.setCluster(c, hold(r, now))
	return nil
}

// Known tells whether a cluster called name has any version, warming or active.
func (m *Model) Known(name string) bool {
	c := m.clusters[name]
	return c != nil && c.latest() != nil
}
