package upstream

import (
	"net/netip"
	"reflect"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/dnscache"
	"github.com/sluice-proxy/sluice/dataplane/health"
	"github.com/sluice-proxy/sluice/dataplane/outlier"
)

// Watch is what looks after hosts: after their health, and after the addresses of
// those that connections name. The zero value is for clusters that ask for neither.
type Watch struct {
	Names  *dnscache.Caches
	Health health.Options
	// Warmed returns the checker that a cluster warmed up with, once; nil if there
	// is none.
	Warmed  func(*api.Cluster) *health.Checker
	Outlier outlier.Options
}

// warmed is the checker that waits for c to be put in force.
func (w *Watch) warmed(c *api.Cluster) *health.Checker {
	if len(c.HealthChecks) == 0 || w.Warmed == nil {
		return nil
	}
	return w.Warmed(c)
}

// activeFlags are those that active checks set.
const activeFlags = api.FailedActiveHC | api.DegradedActiveHC | api.PendingActiveHC | api.ExcludedViaImmediateHCFail | api.ActiveHCTimeout

// stayingLocked are the hosts that discovery has dropped, and that stay as long as
// active checks call them healthy (BaseDynamicClusterImpl::updateDynamicHostList).
// It puts them in next.
func (u *Cluster) stayingLocked(c *api.Cluster, next map[hostKey]*Host) (staying []*Host) {
	if u.checker == nil || !u.checker.Fits(c) || c.Discovery == api.Static || c.ByName != nil || c.DNS != nil && c.DNS.One || c.IgnoreHealthOnRemoval {
		return nil
	}
	moved := map[netip.AddrPort]bool{} // to another priority
	for key := range next {
		moved[key.addr] = true
	}
	for _, h := range u.Hosts() {
		key := hostKey{addr: h.Addr(), path: h.Endpoint().Path, target: h.Endpoint().Target, priority: h.priority}
		if moved[h.Addr()] || !h.Endpoint().Checked() || h.Flags()&(api.FailedActiveHC|api.FailedEDSHealth|api.EDSStatusDraining) != 0 {
			continue
		}
		h.mark(api.PendingDynamicRemoval, 0)
		next[key] = h
		staying = append(staying, h)
	}
	return staying
}

// checkLocked has the hosts checked as c asks for, and gives them the flags of
// what is known.
func (u *Cluster) checkLocked(c *api.Cluster, hosts []*Host, warmed *health.Checker) {
	if u.closed {
		return
	}
	old := u.checker
	if old == nil && len(c.HealthChecks) == 0 {
		return
	}
	switch {
	case len(c.HealthChecks) == 0:
		u.checker = nil
	case warmed != nil:
		u.checker = warmed
		u.checker.Attach(u.checked, u.used)
		u.checker.Update(u.watched(c, hosts))
	case old != nil && old.Fits(c):
		old.Update(u.watched(c, hosts))
	default:
		u.checker = health.New(u.watched(c, hosts), u.watch.Health, nil)
		u.checker.Attach(u.checked, u.used)
	}
	if old != nil && old != u.checker {
		old.Close()
	}
	for _, h := range hosts {
		h.mark(u.flags(h), activeFlags)
	}
}

// watched is c with the hosts that only stay.
func (u *Cluster) watched(c *api.Cluster, hosts []*Host) *api.Cluster {
	var more []api.Locality
	for _, h := range hosts {
		if h.Flags()&api.PendingDynamicRemoval != 0 {
			p := h.place.Load()
			more = append(more, api.Locality{Region: p.place.Region, Zone: p.place.Zone, SubZone: p.place.SubZone, Priority: h.priority, Endpoints: []api.Endpoint{p.endpoint}})
		}
	}
	if more == nil {
		return c
	}
	cp, as := *c, *c.Assignment
	as.Localities = append(as.Localities[:len(as.Localities):len(as.Localities)], more...)
	cp.Assignment = &as
	return &cp
}

func (u *Cluster) flags(h *Host) api.HealthFlags {
	if u.checker == nil || !h.Endpoint().Checked() {
		return 0
	}
	return u.checker.Flags(h.Addr())
}

// used tells whether the cluster has ever had a connection.
func (u *Cluster) used() bool { return u.Stats.Total.Value() > 0 }

// checked is told that an active check of a host has ended.
func (u *Cluster) checked(addr netip.AddrPort, healthy, moved bool) {
	if moved {
		u.takeOver(addr)
	}
	if healthy {
		u.passed(addr)
	}
}

// takeOver gives a host the flags of what active checks have found out.
func (u *Cluster) takeOver(addr netip.AddrPort) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.checker == nil || u.closed {
		return
	}
	coarse, gone := false, false
	for _, h := range u.Hosts() {
		if h.Addr() != addr {
			continue
		}
		was := h.Flags()
		coarse = h.mark(u.flags(h), activeFlags) || coarse
		is := h.Flags()
		if is&^was&api.FailedActiveHC != 0 {
			h.failed()
		}
		gone = gone || is&api.PendingDynamicRemoval != 0 && is&api.FailedActiveHC != 0
	}
	switch {
	case gone:
		u.updateLocked(u.Config(), nil)
	case coarse:
		u.reclassifyLocked()
	}
}

// passed tells the outlier detection of a check that went well.
func (u *Cluster) passed(addr netip.AddrPort) {
	d := u.detector.Load()
	if d == nil {
		return
	}
	for _, h := range u.Hosts() {
		if h.Addr() == addr && h.Flags()&(api.FailedOutlierCheck|api.FailedActiveHC) == api.FailedOutlierCheck {
			d.Passed(h)
		}
	}
}

// detectLocked has the hosts watched for outliers as c asks for. Another
// configuration begins anew: no host is ejected then.
func (u *Cluster) detectLocked(c *api.Cluster, hosts []*Host) {
	old := u.detector.Load()
	if u.closed || old == nil && c.Outlier == nil {
		return
	}
	d := old
	if old == nil || !reflect.DeepEqual(old.Config(), c.Outlier) {
		d = nil
		if c.Outlier != nil {
			d = outlier.New(c, u.watch.Outlier, u.ejected)
		}
		u.detector.Store(d)
		if old != nil {
			old.Close()
		}
	}
	if d != nil {
		d.SetHosts(hosts)
	}
	for _, h := range hosts {
		var m *outlier.Monitor
		if d != nil {
			m = d.Monitor(h)
		}
		h.monitor.Store(m)
		h.markOutlier()
	}
}

// ejected takes over that a host was ejected or has come back.
func (u *Cluster) ejected(h *Host) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return
	}
	was := h.Flags()
	if h.markOutlier() {
		u.reclassifyLocked()
	}
	if h.Flags()&^was&api.FailedOutlierCheck != 0 {
		h.failed()
	}
}

// unwatch ends what looks after the hosts.
func (u *Cluster) unwatch() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	if u.cleanup != nil {
		u.cleanup.Stop()
	}
	if u.checker != nil {
		u.checker.Close()
	}
	if d := u.detector.Load(); d != nil {
		d.Close()
	}
}

// Outliers is what outlier detection knows of the cluster, nil without any.
func (u *Cluster) Outliers() *api.OutlierStatus {
	d := u.detector.Load()
	if d == nil {
		return nil
	}
	average, threshold := d.Rates()
	return &api.OutlierStatus{Average: api.SuccessRate{External: average[0], Local: average[1]}, Threshold: api.SuccessRate{External: threshold[0], Local: threshold[1]}}
}

func (u *Cluster) successRate(h *Host) api.SuccessRate {
	if d := u.detector.Load(); d != nil {
		r := d.Rate(h)
		return api.SuccessRate{External: r[0], Local: r[1]}
	}
	return api.SuccessRate{External: -1, Local: -1}
}
