package upstream

import "github.com/sluice-proxy/sluice/dataplane/balance"

// PickAmong is Pick for a cluster that has the hosts of others, which are members:
// the connection is counted as the member's. u's own limit is held against what u
// counts, which is never anything; beyond the member's a connection waits.
func (u *Cluster) PickAmong(members []*Cluster, worker int, a *balance.Asked) (Picked, error) {
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
		var h balance.Host
		if h, ok = sets[i].PickAt(m.pickers.of(worker), a, at); ok {
			return m.enter(views[i], h.(*Host), worker, false)
		}
	}
	u.Stats.NoneHealthy.Inc()
	return Picked{}, ErrNoHealthyHost
}
