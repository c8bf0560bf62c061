package upstream

import (
	"errors"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/balance"
	"github.com/sluice-proxy/sluice/dataplane/dnscache"
	"github.com/sluice-proxy/sluice/dataplane/health"
	"github.com/sluice-proxy/sluice/dataplane/outlier"
	"github.com/sluice-proxy/sluice/dataplane/stream"
	"github.com/sluice-proxy/sluice/dataplane/tcpstats"
	"github.com/sluice-proxy/sluice/dataplane/tls"
)

// Errors of Pick.
var (
	// ErrNoHealthyHost is Envoy's UH.
	ErrNoHealthyHost = errors.New("no healthy host")
	// ErrConnectionOverflow is Envoy's UO: max_connections is reached.
	ErrConnectionOverflow = errors.New("connection limit reached")
	// ErrPendingOverflow says that max_pending_requests connections are being
	// opened already (for TCP that is what a pending request is).
	ErrPendingOverflow = errors.New("pending limit reached")
)

// Cluster is a cluster in force. Safe for concurrent use.
type Cluster struct {
	Stats *Stats

	view    atomic.Pointer[view]
	holders *stats.Holders // the plane, and every connection
	near    Near
	born    time.Time
	pickers pickers
	// http2Stats are made with the first connection of HTTP/2.
	http2Once  sync.Once
	http2Stats atomic.Pointer[HTTP2Stats]
	// tcpStats are nil until there was a transport socket that has them kept.
	tcpStats atomic.Pointer[tcpstats.Stats]

	watch    Watch
	store    *stats.Store
	statName string
	tls      *TLS // nil: what is TLS connects to nobody

	unfollow func() // of cache; for who updates

	mu       sync.Mutex      // one update at a time
	cache    *dnscache.Cache // whose names are hosts; nil: there is none
	names    map[string]*dnscache.Name
	hosts    map[hostKey]*Host
	cleanup  *time.Timer     // runs while there are hosts that connections brought
	checker  *health.Checker // nil without active checks
	closed   bool
	tlsStats *tls.Stats // nil until there was a transport socket of TLS
	// detector is nil without outlier detection.
	detector atomic.Pointer[outlier.Detector[*Host]]
}

// view is what a pick needs, swapped whole.
type view struct {
	config    *api.Cluster
	resources *resources
	// told is what connections are told of the cluster. It is shared by them all,
	// and the same from view to view as long as it says the same.
	told    *stream.Cluster
	set     *balance.Set
	hosts   []*Host
	sockets *sockets // nil: all are raw_buffer
	// byAddr are hosts that connections brought, *Host by netip.AddrPort; nil unless
	// the cluster has such.
	byAddr *sync.Map
	// byName are the hosts of a cache, by dnscache.Key.
	byName map[string]named
	cache  *dnscache.Cache // nil unless it has them
}

type hostKey struct {
	addr             netip.AddrPort
	path             string
	name             string // stands alone
	target, priority uint32
}

// Near is what is known of where the proxy stands, for zone-aware routing.
type Near struct {
	// Home is the proxy's own locality.
	Home api.Place
	// Local is the cluster of the proxy's own kind, which is called Name, or nil as
	// long as there is none; no function means that nobody named one.
	Local func() *Cluster
	Name  string
	// Threads and Runtime are balance.Config's.
	Threads uint64
	Runtime *runtime.Runtime
	// Sheds draws whether a connection is not to be begun; it may be nil.
	Sheds func() bool
	// Updates count changes of hosts; they may be nil.
	Updates *Updates
}

// New puts a cluster in force. What looks after its hosts' health is w.
func New(c *api.Cluster, store *stats.Store, w Watch) *Cluster {
	return NewNear(c, store, w, Near{}, nil)
}

// NewNear puts a cluster in force that knows where the proxy stands, and whose sockets
// may be TLS.
func NewNear(c *api.Cluster, store *stats.Store, w Watch, near Near, t *TLS) *Cluster {
	u := &Cluster{
		Stats: newStats(store, c.StatName()), watch: w, near: near, born: time.Now(), hosts: map[hostKey]*Host{},
		store: store, statName: c.StatName(), tls: t,
	}
	u.holders = stats.NewHolders(u.release)
	u.Stats.matched(defaultMatch)
	u.Update(c)
	return u
}

// Config is the configuration in force.
func (u *Cluster) Config() *api.Cluster { return u.view.Load().config }

// Told is what connections are told of the cluster.
func (u *Cluster) Told() *stream.Cluster { return u.view.Load().told }

// Hosts are the hosts in force.
func (u *Cluster) Hosts() []*Host { return u.view.Load().hosts }

// Update puts another configuration of the same cluster in force, at once and
// whole. Hosts that stay keep their figures; connections to hosts that go stay
// open.
func (u *Cluster) Update(c *api.Cluster) {
	follow := u.takeCache(c)
	u.mu.Lock()
	u.updateLocked(c, u.watch.warmed(c))
	u.mu.Unlock()
	follow()
}

func (u *Cluster) updateLocked(c *api.Cluster, warmed *health.Checker) {
	old, bare := u.view.Load(), c
	c = u.withNamesLocked(c)
	next := make(map[hostKey]*Host)
	secured := u.newSockets(c, old)
	u.needTCPStats(c)
	var hosts []*Host
	changed := false
	maxWeight := uint32(0)
	for _, l := range c.Assignment.Localities {
		for _, e := range l.Endpoints {
			key := hostKey{addr: e.Addr, path: e.Path, target: e.Target, priority: l.Priority}
			if c.ByName != nil {
				key = hostKey{name: e.Hostname}
			}
			if _, twice := next[key]; twice {
				continue // one address counts once in a priority, as in Envoy
			}
			h := u.hosts[key]
			if h == nil {
				h = &Host{cluster: u, priority: l.Priority}
				h.since.Store(u.now())
				changed = true
			}
			h.set(e, l)
			u.Stats.matched(matchOf(c, &e, &l)).Inc()
			secured.assign(h, &e, &l)
			next[key] = h
			hosts = append(hosts, h)
			maxWeight = max(maxWeight, e.Weight)
		}
	}
	hosts = append(hosts, u.stayingLocked(c, next)...)
	changed = changed || len(next) != len(u.hosts)
	u.hosts = next
	u.checkLocked(c, hosts, warmed)
	u.detectLocked(c, hosts)
	secured.assignRest(hosts)
	v := &view{config: bare, hosts: hosts, sockets: secured}
	if old != nil && sameCluster(old.config, bare) {
		v.resources = old.resources
	} else {
		v.resources = u.Stats.newResources(c, u.near.Runtime)
	}
	if c.ByDestination != nil {
		v.byAddr = &sync.Map{}
	}
	u.nameLocked(v)
	v.told = &stream.Cluster{Name: c.Name, Stat: c.StatName(), Metadata: stream.Metadata(c.Metadata)}
	if old != nil && reflect.DeepEqual(old.told, v.told) {
		v.told = old.told
	}
	if changed {
		u.Stats.MembershipChange.Inc()
	}
	// Envoy counts it where hosts are discovered, but for LOGICAL_DNS.
	if c.Discovery != api.Static && c.Discovery != api.LogicalDNS && c.ByName == nil {
		u.Stats.MaxHostWeight.Set(uint64(maxWeight))
	}
	u.classifyLocked(v)
	if old != nil {
		u.leaveLocked(old.hosts, hosts, v.resources != old.resources)
		if v.resources == old.resources {
			u.near.Updates.hosts(old.config.Assignment, c.Assignment)
		}
	}
}

// sameCluster says that two configurations differ in endpoints at most.
func sameCluster(a, b *api.Cluster) bool {
	if a == b {
		return true
	}
	bare := *b
	bare.Assignment = a.Assignment
	return a.Equal(&bare)
}

// classifyLocked sorts the hosts of v by the health that they have now, and puts
// v in force.
func (u *Cluster) classifyLocked(v *view) {
	v.set = u.newSet(v)
	u.view.Store(v)
	s := u.Stats
	s.MembershipTotal.Set(uint64(v.set.Total()))
	s.MembershipHealthy.Set(uint64(v.set.Healthy()))
	s.MembershipDegraded.Set(uint64(v.set.Degraded()))
	s.MembershipExcluded.Set(uint64(v.set.Excluded()))
}

// Mark clears flags of h and then sets others; connections that are opened from
// now on go by it. The flags of EDS belong to updates. It tells whether the
// health that counts has changed. h may have left the cluster meanwhile.
func (u *Cluster) Mark(h *Host, set, clear api.HealthFlags) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	moved := h.mark(set, clear)
	if moved {
		u.reclassifyLocked()
		u.near.Updates.health()
	}
	return moved
}

func (u *Cluster) reclassifyLocked() {
	next := *u.view.Load()
	u.classifyLocked(&next)
}

// Close ends what looks after the hosts, and forgets the cluster's figures with
// its last connection.
func (u *Cluster) Close() {
	u.dropCache()
	u.unwatch()
	u.view.Load().set.Close()
	u.leaveLocked(u.Hosts(), nil, true)
	u.holders.Drop()
}
