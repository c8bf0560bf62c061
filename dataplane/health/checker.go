package health

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"sync"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/clock"
)

// Options are what all checkers share.
type Options struct {
	Stats   *stats.Store
	OpenLog func(path string) (Log, error)
	Runtime *runtime.Runtime // may be nil
	Clock   clock.Clock
	// Dialer opens the connections of a cluster's checks; TLS, where the cluster has
	// it, is its business.
	Dialer func(*api.Cluster) Dialer
	// Slots bounds how many checks run at once: one value each.
	Slots chan struct{}
	// Rand yields uniform numbers; rand.Uint64 if nil.
	Rand func() uint64
	Log  *slog.Logger

	prober func(Target) prober // of tests
}

// Log is a file of events.
type Log interface {
	Write(line []byte)
	Close()
}

// Dialer opens the connections of one cluster's checks.
type Dialer interface {
	Dial(context.Context, Target) (net.Conn, error)
	Close()
}

// Target is a host as a check sees it.
type Target struct {
	Cluster  *api.Cluster
	Check    *api.HealthCheck
	Endpoint *api.Endpoint
}

// Checker checks the hosts of one cluster. It is safe for concurrent use.
type Checker struct {
	o      Options
	dialer Dialer
	checks []*check

	mu      sync.Mutex
	cluster *api.Cluster
	hosts   map[netip.AddrPort]*host
	traffic func() bool
	told    Told
	// unready counts the sessions whose first check has not ended; ready is called
	// when none is left.
	unready int
	ready   func()
	closed  bool
}

// Told is told that a check of a host ended: whether it is healthy, by this
// check, and whether its flags are other ones now. It is called without a lock.
type Told func(addr netip.AddrPort, healthy, moved bool)

// check is one of the cluster's checks, in all its hosts.
type check struct {
	config *api.HealthCheck
	stats  *checkStats
	logs   []Log
}

type host struct {
	addr     netip.AddrPort
	endpoint api.Endpoint
	locality locality
	sessions []*session // one for each check
}

type locality struct {
	Region  string `json:"region"`
	Zone    string `json:"zone"`
	SubZone string `json:"sub_zone"`
}

// New starts to check the hosts of c, at once. ready is called once, when each
// host has been checked, in another goroutine; it may be nil.
func New(c *api.Cluster, o Options, ready func()) *Checker {
	if o.Rand == nil {
		o.Rand = rand.Uint64
	}
	k := &Checker{o: o, dialer: o.Dialer(c), hosts: map[netip.AddrPort]*host{}, ready: ready}
	for i := range c.HealthChecks {
		one := &check{config: &c.HealthChecks[i], stats: newCheckStats(o.Stats, c, c.HealthChecks[i].Name)}
		k.checks = append(k.checks, one)
		for _, path := range one.config.EventLogs {
			f, err := o.OpenLog(path)
			if err != nil {
				o.Log.Warn("health check events are not logged", "cluster", c.Name, "error", err)
				continue
			}
			one.logs = append(one.logs, f)
		}
	}
	k.Update(c)
	return k
}

// Fits tells whether the checker does what c asks for, so that Update will do.
func (k *Checker) Fits(c *api.Cluster) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cluster.StatName() == c.StatName() && k.cluster.Name == c.Name && k.cluster.IgnoreNewHosts == c.IgnoreNewHosts &&
		reflect.DeepEqual(k.cluster.HealthChecks, c.HealthChecks) &&
		reflect.DeepEqual(k.cluster.Socket, c.Socket) && reflect.DeepEqual(k.cluster.SocketMatches, c.SocketMatches)
}

// Attach says who is told of every check that ended, and whether the cluster
// has ever had a connection.
func (k *Checker) Attach(told Told, traffic func() bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.told, k.traffic = told, traffic
}

// Flags are what active checks have found out about a host.
func (k *Checker) Flags(addr netip.AddrPort) api.HealthFlags {
	k.mu.Lock()
	defer k.mu.Unlock()
	var f api.HealthFlags
	if h := k.hosts[addr]; h != nil {
		for _, s := range h.sessions {
			f |= s.flags
		}
	}
	return f
}

// Update puts the hosts of c, whose checks are the same, in the place of those
// before. Hosts that stay keep what is known of them, unless the address that
// they are checked at is another one.
func (k *Checker) Update(c *api.Cluster) {
	k.mu.Lock()
	k.cluster = c
	seen := make(map[netip.AddrPort]bool)
	var begin []*session
	for _, l := range c.Assignment.Localities {
		for i := range l.Endpoints {
			e := &l.Endpoints[i]
			if seen[e.Addr] || !e.Checked() {
				continue
			}
			seen[e.Addr] = true
			h := k.hosts[e.Addr]
			if h != nil && h.endpoint.CheckAddr() != e.CheckAddr() {
				k.dropLocked(h)
				h = nil
			}
			at := locality{l.Region, l.Zone, l.SubZone}
			if h != nil {
				h.endpoint, h.locality = *e, at
				continue
			}
			h = &host{addr: e.Addr, endpoint: *e, locality: at}
			k.hosts[e.Addr] = h
			for _, one := range k.checks {
				s := newSession(k, h, one)
				h.sessions = append(h.sessions, s)
				begin = append(begin, s)
			}
		}
	}
	for addr, h := range k.hosts {
		if !seen[addr] {
			k.dropLocked(h)
		}
	}
	k.unready += len(begin)
	k.readyLocked()
	for _, s := range begin {
		s.startLocked()
	}
	k.mu.Unlock()
}

func (k *Checker) dropLocked(h *host) {
	for _, s := range h.sessions {
		s.closeLocked()
	}
	delete(k.hosts, h.addr)
}

// readyLocked tells that the first round has ended, if it has.
func (k *Checker) readyLocked() {
	if k.unready == 0 && k.ready != nil {
		ready := k.ready
		k.ready = nil
		go ready()
	}
}

// Close ends all checks. Whoever is attached is told nothing more.
func (k *Checker) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	k.closed, k.told, k.ready = true, nil, nil
	k.dialer.Close()
	for _, h := range k.hosts {
		k.dropLocked(h)
	}
	for _, one := range k.checks {
		one.stats.release()
		for _, f := range one.logs {
			f.Close()
		}
	}
}
