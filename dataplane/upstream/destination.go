package upstream

import (
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// ChooseDestination is Choose for a cluster whose hosts are the destinations of its
// connections; an invalid address is that of a connection that has none.
func (u *Cluster) ChooseDestination(to netip.AddrPort, worker int) Choice {
	v := u.view.Load()
	if v.resources.full() {
		return u.overflow()
	}
	if !to.IsValid() || v.byAddr == nil {
		return u.none()
	}
	h, _ := v.byAddr.Load(to)
	host, ok := h.(*Host)
	if !ok {
		if v, host = u.bring(to); host == nil {
			return u.none()
		}
	}
	host.wanted.Store(true)
	return Choice{Host: host, view: v, worker: worker}
}

// bring makes a host of a destination, unless another worker was faster.
func (u *Cluster) bring(to netip.AddrPort) (*view, *Host) {
	u.mu.Lock()
	defer u.mu.Unlock()
	v := *u.view.Load()
	if v.byAddr == nil {
		return &v, nil // an update made another cluster of it
	}
	if h, ok := v.byAddr.Load(to); ok {
		return &v, h.(*Host)
	}
	e := api.Endpoint{Addr: to, Hostname: v.config.Name + to.String(), Weight: 1}
	h := &Host{cluster: u}
	h.since.Store(u.now())
	h.set(e, api.Locality{})
	u.Stats.matched(matchOf(v.config, &e, &api.Locality{})).Inc()
	v.byAddr.Store(to, h)
	u.hosts[hostKey{addr: to}] = h
	u.membersLocked(&v, append(slices.Clip(v.hosts), h))
	if u.cleanup == nil {
		u.cleanup = time.AfterFunc(v.config.ByDestination.Cleanup, u.clean)
	}
	return &v, h
}

// membersLocked puts other hosts in force.
func (u *Cluster) membersLocked(v *view, hosts []*Host) {
	v.hosts = hosts
	u.view.Store(v)
	s := u.Stats
	s.MembershipChange.Inc()
	s.MembershipTotal.Set(uint64(len(hosts)))
	s.MembershipHealthy.Set(uint64(len(hosts)))
}

// clean lets hosts go that nobody asked for since the last time, and that have no
// connection.
func (u *Cluster) clean() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.cleanup = nil
	v := *u.view.Load()
	if u.closed || v.byAddr == nil {
		return
	}
	keep := make([]*Host, 0, len(v.hosts))
	for _, h := range v.hosts {
		if h.wanted.Swap(false) || h.cxActive.Load() > 0 {
			keep = append(keep, h)
			continue
		}
		v.byAddr.Delete(h.Addr())
		delete(u.hosts, hostKey{addr: h.Addr()})
	}
	if len(keep) < len(v.hosts) {
		u.membersLocked(&v, keep)
	}
	if len(keep) > 0 {
		u.cleanup = time.AfterFunc(v.config.ByDestination.Cleanup, u.clean)
	}
}
