package upstream

import (
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/outlier"
)

// Host is an endpoint of a cluster, the same value as long as its address, or the name
// that connections call it by, stays in the same priority.
type Host struct {
	// read-only after creation
	cluster  *Cluster
	priority uint32
	// wanted says that a connection asked for the destination that this host is,
	// since somebody looked.
	wanted atomic.Bool

	// replaced by updates
	place atomic.Pointer[place]
	// flags are api.HealthFlags; who changes them holds the cluster's lock.
	flags atomic.Uint32
	// since is when the host became healthy, by its cluster's clock.
	since atomic.Int64

	// monitor watches for outliers, nil if nobody does.
	monitor atomic.Pointer[outlier.Monitor]
	// closers end the connections that want to end when the host fails.
	closing sync.Mutex
	closers map[*Connection]func()
	// leavers are told when it leaves its cluster; left says that it did.
	leavers map[*int]func()
	left    bool

	// counted by every worker
	cxTotal, cxActive, cxConnectFail atomic.Uint64
	rqTotal, rqActive, rqPending     atomic.Uint64
	rqTold                           atomic.Uint64 // of rqTotal, by TakeLoad
	pools                            pools
}

type place struct {
	endpoint api.Endpoint
	text     string // of its address
	place    api.Place
}

// set puts a configuration in force. One that says nothing new is not taken:
// every open connection to the host keeps the one that it was made with.
func (h *Host) set(e api.Endpoint, l api.Locality) {
	h.mark(e.Health.Flags(), api.EDSFlags|api.PendingDynamicRemoval)
	at := api.Place{Region: l.Region, Zone: l.Zone, SubZone: l.SubZone}
	if p := h.place.Load(); p != nil && p.place == at && same(&p.endpoint, &e) {
		return
	}
	h.place.Store(&place{endpoint: e, text: e.Address(), place: at})
}

// mark clears flags and then sets others; it tells whether the health that
// counts has changed.
func (h *Host) mark(set, clear api.HealthFlags) bool {
	was := h.Flags()
	is := was&^clear | set
	h.flags.Store(uint32(is))
	if is.Coarse() == api.HealthHealthy && was.Coarse() != api.HealthHealthy {
		h.since.Store(h.cluster.now())
	}
	return was.Coarse() != is.Coarse() || was.Excluded() != is.Excluded()
}

func same(a, b *api.Endpoint) bool {
	return a.Addr == b.Addr && a.Path == b.Path && a.Hostname == b.Hostname && a.Weight == b.Weight && a.Health == b.Health && reflect.DeepEqual(a.Check, b.Check) && slices.Equal(a.Additional, b.Additional) && reflect.DeepEqual(a.TLVs, b.TLVs) && reflect.DeepEqual(a.Metadata, b.Metadata)
}

// Endpoint is the configuration of the host that is in force, read-only.
func (h *Host) Endpoint() *api.Endpoint { return &h.place.Load().endpoint }

// Addr is its address; invalid for one on a unix socket.
func (h *Host) Addr() netip.AddrPort { return h.Endpoint().Addr }

// Weight, Active, Flags and the rest down to HealthySince are what a balancer
// asks.
func (h *Host) Weight() uint32         { return h.place.Load().endpoint.Weight }
func (h *Host) Active() uint64         { return h.rqActive.Load() }
func (h *Host) Flags() api.HealthFlags { return api.HealthFlags(h.flags.Load()) }
func (h *Host) Priority() uint32       { return h.priority }
func (h *Host) Place() api.Place       { return h.place.Load().place }
func (h *Host) Address() string        { return h.place.Load().text }
func (h *Host) Hostname() string       { return h.place.Load().endpoint.Hostname }
func (h *Host) Metadata() api.Metadata { return h.place.Load().endpoint.Metadata }
func (h *Host) HealthySince() int64    { return h.since.Load() }

// Cluster is the one that the host belongs to.
func (h *Host) Cluster() *Cluster { return h.cluster }

// Status are the host's figures.
func (h *Host) Status() api.HostStatus {
	p := h.place.Load()
	endpoint := p.endpoint
	if h.cluster.Config().Balancing.EqualWeights {
		endpoint.Weight = 1
	}
	canary, _ := endpoint.Metadata["envoy.lb"]["canary"].(bool)
	return api.HostStatus{
		SuccessRate: h.cluster.successRate(h),
		Endpoint:    endpoint, Flags: h.Flags(), Canary: canary, Region: p.place.Region, Zone: p.place.Zone, SubZone: p.place.SubZone, Priority: h.priority,
		CxTotal: h.cxTotal.Load(), CxActive: h.cxActive.Load(), CxConnectFail: h.cxConnectFail.Load(),
		// Envoy's TCP tells no success or error of requests.
		RqTotal: h.rqTotal.Load(), RqActive: h.rqActive.Load(), RqPendingActive: h.rqPending.Load(),
	}
}

// failed ends the connections that do not outlive the host's health.
func (h *Host) failed() {
	h.closing.Lock()
	defer h.closing.Unlock()
	for _, end := range h.closers {
		end()
	}
}

// OnLeave has f called, on any goroutine, when the host has left its cluster, or the
// cluster has gone or got another configuration. forget takes that back.
func (h *Host) OnLeave(f func()) (forget func()) {
	h.closing.Lock()
	defer h.closing.Unlock()
	if h.left {
		f()
		return func() {}
	}
	key := new(int)
	if h.leavers == nil {
		h.leavers = map[*int]func(){}
	}
	h.leavers[key] = f
	return func() {
		h.closing.Lock()
		defer h.closing.Unlock()
		delete(h.leavers, key)
	}
}

// leave tells who wants to know that the host, or its configuration, went; for good,
// if it is not the cluster's any more.
func (h *Host) leave(forGood bool) {
	h.closing.Lock()
	defer h.closing.Unlock()
	h.left = forGood
	for _, f := range h.leavers {
		f()
	}
	h.leavers = nil
}

// leaveLocked tells hosts that are gone, where somebody may want to know. anew says
// that the cluster has another configuration.
func (u *Cluster) leaveLocked(before, now []*Host, anew bool) {
	if u.http2Stats.Load() == nil {
		return
	}
	still := make(map[*Host]bool, len(now))
	for _, h := range now {
		still[h] = true
	}
	for _, h := range before {
		if !still[h] || anew {
			h.leave(!still[h])
		}
	}
}

// report tells the outlier detection of a connection.
func (h *Host) report(r outlier.Result) {
	if m := h.monitor.Load(); m != nil {
		m.Put(r)
	}
}

// markOutlier sets the flag of outlier detection by what the monitor says.
func (h *Host) markOutlier() bool {
	if m := h.monitor.Load(); m != nil && m.Ejected() {
		return h.mark(api.FailedOutlierCheck, 0)
	}
	return h.mark(0, api.FailedOutlierCheck)
}
