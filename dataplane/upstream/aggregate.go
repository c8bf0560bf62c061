package upstream

import "github.com/sluice-proxy/sluice/dataplane/balance"

// ChooseAmong is Choose for a cluster that has the hosts of others, which are members:
// the connection is counted as the member's. u's own limit is held against what u
// counts, which is never anything; beyond the member's a connection waits. name
// is the server name that the client asks for, by which members may know their hosts:
// as in Envoy they get no other, and no port.
func (u *Cluster) ChooseAmong(members []*Cluster, worker int, a *balance.Asked, name string) Choice {
	v := u.view.Load()
	if v.resources.full() {
		return u.overflow()
	}
	views, sets := make([]*view, len(members)), make([]*balance.Set, len(members))
	for i, m := range members {
		views[i] = m.view.Load()
		sets[i] = views[i].set
	}
	i, at, ok := balance.Joined(sets, balance.Config{Balancing: &v.config.Balancing, PanicThreshold: v.config.PanicThreshold})
	if ok {
		m := members[i]
		if views[i].config.ByName != nil {
			c, loading := m.named(views[i], name, 0, worker)
			if c.Host == nil && !loading {
				u.none()
			}
			c.member = true
			return c
		}
		var h balance.Host
		if h, ok = sets[i].PickAt(m.pickers.of(worker), a, at); ok {
			return Choice{Host: h.(*Host), view: views[i], worker: worker, member: true}
		}
	}
	return u.none()
}
