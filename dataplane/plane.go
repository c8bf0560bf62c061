package dataplane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/api"
	apiruntime "github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/dataplane/accesslog"
	"github.com/sluice-proxy/sluice/dataplane/accesslog/als"
	"github.com/sluice-proxy/sluice/dataplane/dnscache"
	"github.com/sluice-proxy/sluice/dataplane/drain"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/filter/localratelimit"
	"github.com/sluice-proxy/sluice/dataplane/health"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/overload"
	"github.com/sluice-proxy/sluice/dataplane/pair"
	"github.com/sluice-proxy/sluice/dataplane/route"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// ErrClosed says that the plane is closed.
var ErrClosed = errors.New("data plane is closed")

// Options are what a plane is made with.
type Options struct {
	// Concurrency is the number of workers; 0 means one per CPU.
	Concurrency int
	// Splice is auto, always or off; empty means auto.
	Splice string
	// SpliceMemory bounds what all splices may hold in the kernel beside their
	// sockets, in bytes; 0 means an eighth of the machine's memory.
	SpliceMemory uint64
	// Graft is auto or off; empty means off.
	Graft string
	// Capture, if it is not nil, captures connections of other programs.
	Capture *route.Options
	// Inbound, if it is not nil, captures connections that come from outside to
	// the network namespace of the thread that calls New.
	Inbound *route.InboundOptions
	Limits  Limits
	Drain   DrainOptions
	Stats   *stats.Store
	// Node is a serialized envoy.config.core.v3.Node: who Sluice is to access log
	// services.
	Node []byte
	// Home is the proxy's own locality, LocalCluster the cluster of its own kind,
	// or empty: with it near hosts are preferred.
	Home         api.Place
	LocalCluster string
	// FlushInterval and FlushSize are --file-flush-interval-msec and
	// --file-flush-min-size-kb, in bytes, of access logs; 0 is Envoy's default.
	FlushInterval time.Duration
	FlushSize     int
	// Runtime is asked for the keys of filters, logs, health checks and outlier
	// detection; it may be nil.
	Runtime *apiruntime.Runtime
	// OutlierLog is the path of outlier detection's event log, empty for none.
	OutlierLog string
	// Overload may be nil.
	Overload *api.Overload
	// Resolver makes who resolves the names that connections bring; nil is the one
	// for configurations that name none.
	Resolver func(*api.Resolver) dnscache.Resolver
	Log      *slog.Logger
}

// Limits bound how many downstream connections may be open; 0 is no bound.
type Limits struct {
	Connections uint64
	// ByListener are those of single listeners, by name.
	ByListener map[string]uint64
}

// Plane is the data plane. Its methods are safe for concurrent use.
type Plane struct {
	// read-only after New
	stats        *stats.Store
	log          *slog.Logger
	cores        []*filter.Core
	splice       *bpf.Splice
	crowd        *pair.Crowd
	graft        *grafter
	capture      *route.Capture // nil: off
	inbound      *route.Inbound // nil: off
	captureStats *stats.Scope   // `capture.`
	files        *accesslog.Files
	status       api.SpliceStatus
	drains       *drain.Manager
	near         upstream.Near
	names        *dnscache.Caches
	drainOptions DrainOptions
	drainStats   drainStats
	threads      threadFigures
	// watch is what looks after hosts' health.
	watch upstream.Watch
	// warmed is told of clusters whose hosts have been checked once.
	warmed   atomic.Pointer[func(*api.Cluster)]
	overload *overload.Manager
	// spliceStats is the scope `splice.`.
	spliceStats *stats.Scope
	// buckets are those that rate limits share; it has a lock of its own.
	buckets localratelimit.Shared

	handshakes handshakes
	demands    demands
	// clusters in force, *upstream.Cluster by name.
	clusters sync.Map

	// swapped whole
	destinations atomic.Pointer[destinations]
	limits       atomic.Pointer[Limits]
	secrets      atomic.Pointer[api.Secrets]
	nextID       atomic.Uint64
	// open counts the downstream sockets.
	open atomic.Int64

	mu         sync.Mutex // one Apply at a time; guards what follows
	generation uint64
	// wanted is what was last applied; retry says that not all of its listeners and
	// routes could be put in force.
	wanted    *api.Snapshot
	retry     bool
	listeners map[string]*listener
	sockets   map[string]*bound // by api.Listener.PlaceKey
	replaced  replaced
	stopped   stop
	timers    map[*time.Timer]struct{}   // that have not fired
	warming   map[string]*health.Checker // by cluster
	scale     overload.Scale             // of handshakes' timeouts, as the cores have it
	closed    bool
}

// New makes a plane and its workers. A kernel that cannot splice is no error:
// every pair relays then, and Splice says why.
func New(o Options) (*Plane, error) {
	if o.Concurrency <= 0 {
		o.Concurrency = runtime.NumCPU()
	}
	if o.Splice == "" {
		o.Splice = pair.Auto.String()
	}
	mode, err := pair.ParseMode(o.Splice)
	if err != nil {
		return nil, err
	}
	if o.Drain.Time == 0 {
		o.Drain.Time = drain.DefaultTime
	}
	p := &Plane{drainOptions: o.Drain, drains: &drain.Manager{Time: o.Drain.Time, Strategy: o.Drain.Strategy},
		drainStats: newDrainStats(o.Stats), timers: map[*time.Timer]struct{}{}, crowd: pair.NewCrowd(), stats: o.Stats, log: o.Log, wanted: &api.Snapshot{}, retry: true, listeners: map[string]*listener{}, sockets: map[string]*bound{}}
	p.threads = newThreadFigures(o.Stats, o.Concurrency)
	p.handshakes = newHandshakes(o.Concurrency)
	if err := p.newOverload(o.Overload, o.Runtime); err != nil {
		return nil, err
	}
	services, err := als.New(o.Node, p.cluster, o.Stats, o.Log)
	if err != nil {
		return nil, err
	}
	p.files = accesslog.NewFiles(o.Stats, o.FlushInterval, o.FlushSize, services, o.Runtime, o.Log)
	p.names = dnscache.New(o.Resolver, o.Stats)
	p.watchHealth(&o)
	if err := p.logOutliers(o.OutlierLog); err != nil {
		return nil, err
	}
	p.destinations.Store(&destinations{})
	p.near.Home, p.near.Threads = o.Home, uint64(o.Concurrency)+1 // the main one too
	p.near.Runtime, p.near.Sheds, p.near.Updates = o.Runtime, p.overload.ShedsHosts, upstream.NewUpdates(o.Stats)
	if o.LocalCluster != "" {
		p.near.Name = o.LocalCluster
		p.near.Local = func() *upstream.Cluster { return p.cluster(o.LocalCluster) }
	}
	p.SetLimits(o.Limits)
	p.spliceStats = o.Stats.Scope("splice")
	if o.Capture != nil || o.Inbound != nil {
		p.captureStats = o.Stats.Scope("capture")
	}
	if o.Inbound != nil {
		if p.inbound, err = route.StartInbound(*o.Inbound, o.Log); err != nil {
			p.Close()
			return nil, err
		}
		logPins(o.Log, "inbound capture is pinned", o.Inbound.Pin, p.inbound.Taken())
	}
	if o.Capture != nil {
		if p.capture, err = route.Start(*o.Capture); err != nil {
			p.Close()
			return nil, err
		}
		logPins(o.Log, "capture is pinned", o.Capture.Pin, p.capture.Taken())
	}
	p.splice, p.status = prepareSplice(&o, mode)
	if p.graft, err = newGrafter(&o); err != nil {
		p.Close()
		return nil, err
	}
	for i := range o.Concurrency {
		if err := p.addWorker(i, mode); err != nil {
			p.Close()
			return nil, fmt.Errorf("start worker %d: %w", i, err)
		}
	}
	p.overload.Start()
	return p, nil
}

// SetLimits changes the limits for connections to come; l is not changed by
// anybody from now on.
func (p *Plane) SetLimits(l Limits) { p.limits.Store(&l) }

func (p *Plane) addWorker(id int, mode pair.Mode) error {
	w, err := loop.New(id, p.log)
	if err != nil {
		return err
	}
	go w.Run()
	core := filter.NewCore(w, func() uint64 { return p.nextID.Add(1) })
	p.cores = append(p.cores, core)
	w.Do(func() {
		if core.Pairs, err = pair.NewSet(w, p.splice, mode, p.status.Reason, p.crowd, p.log); err == nil && p.graft.wanted() {
			core.Pairs.AskForGraft(func() { p.graft.want(p.cores) })
		}
	})
	return err
}

// Apply puts a snapshot in force, by content: what is equal is left alone, and
// what s shares with the snapshot before is not looked at. The order is make
// before break: clusters in, listeners in, routes swapped, sockets and listeners
// out, clusters out. It returns when a connection that is opened now is served by
// s.
func (p *Plane) Apply(_ context.Context, s *api.Snapshot) *api.Applied {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := &api.Applied{Generation: s.Generation}
	if p.closed {
		a.Refused = map[string]error{}
		for _, l := range s.Listeners {
			a.Refused[l.Name] = ErrClosed
		}
		return a
	}
	p.generation = s.Generation
	p.secretsInLocked(s)
	gone := p.clustersInLocked(s)
	p.warmLocked(s)
	if p.retry || !sameListeners(s, p.wanted) {
		a.Refused = p.listenersInLocked(s)
		leaving := p.leavingLocked(s, a.Refused)
		swapped := p.swapRoutesLocked(s.Generation, leaving)
		swapped = p.swapInboundLocked(s.Generation, leaving) && swapped
		p.dropReplacedLocked()
		p.listenersOutLocked(leaving)
		p.destinationsLocked()
		p.retry = len(a.Refused) > 0 || !swapped
	}
	p.clustersOutLocked(gone)
	p.threads.clusters(s.Clusters.Len())
	p.wanted = s
	return a
}

// sameListeners tells of two snapshots whose listeners are one slice.
func sameListeners(s, o *api.Snapshot) bool {
	return len(s.Listeners) == len(o.Listeners) && (len(s.Listeners) == 0 || &s.Listeners[0] == &o.Listeners[0])
}

// clustersInLocked puts new and changed clusters in force, and returns the names
// of those that are to go.
func (p *Plane) clustersInLocked(s *api.Snapshot) (gone []string) {
	s.Clusters.Changes(p.wanted.Clusters, func(was, c *api.Cluster) {
		if c == nil {
			gone = append(gone, was.Name)
			return
		}
		u := p.cluster(c.Name)
		switch {
		case u == nil:
			p.clusters.Store(c.Name, upstream.NewNear(c, p.stats, p.watch, p.near, p.upstreamTLS()))
		case u.Config().StatName() != c.StatName():
			p.clusters.Store(c.Name, upstream.NewNear(c, p.stats, p.watch, p.near, p.upstreamTLS()))
			u.Close()
		case !u.Config().Equal(c):
			u.Update(c)
		}
	})
	return gone
}

func (p *Plane) clustersOutLocked(gone []string) {
	for _, name := range gone {
		u := p.cluster(name)
		p.clusters.Delete(name)
		u.Close()
	}
}

// cluster is the one in force called name, or nil.
func (p *Plane) cluster(name string) *upstream.Cluster {
	u, _ := p.clusters.Load(name)
	c, _ := u.(*upstream.Cluster)
	return c
}

// eachCluster calls f for every cluster in force.
func (p *Plane) eachCluster(f func(*upstream.Cluster)) {
	p.clusters.Range(func(_, u any) bool {
		f(u.(*upstream.Cluster))
		return true
	})
}

// Close ends every connection, by RST, and frees everything.
func (p *Plane) Close() error {
	p.overload.Close() // before the lock, which it may wait for
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	var errs []error
	if p.capture != nil { // first, so that nothing new is sent here
		errs = append(errs, p.capture.Detach())
	}
	if p.inbound != nil {
		errs = append(errs, p.inbound.Detach())
	}
	for t := range p.timers {
		t.Stop()
		delete(p.timers, t)
	}
	for _, b := range p.sockets {
		b.sockets.Close()
	}
	for _, c := range p.cores {
		c.Worker.Do(func() {
			for s := range c.Sockets {
				s.Kill()
			}
			for _, s := range slices.Backward(c.Connections) {
				s.Stop()
			}
			if c.Pairs != nil {
				c.Pairs.Close()
			}
			c.HTTP2.Close()
		})
		c.Worker.Close()
	}
	p.handshakes.wait()
	for _, l := range p.listeners {
		l.holders.Drop()
	}
	p.eachCluster((*upstream.Cluster).Close)
	for _, k := range p.warming {
		k.Close()
	}
	p.names.Close()
	p.files.Close()
	if p.capture != nil {
		errs = append(errs, p.capture.Close())
	}
	if p.inbound != nil {
		errs = append(errs, p.inbound.Close())
	}
	if p.splice != nil {
		errs = append(errs, p.splice.Close())
	}
	if p.graft != nil {
		errs = append(errs, p.graft.close())
	}
	return errors.Join(errs...)
}

// everywhere runs f on every worker, one after the other.
func (p *Plane) everywhere(f func(*filter.Core)) {
	for _, c := range p.cores {
		c.Worker.Do(func() { f(c) })
	}
}

// Flush brings the byte counters of open connections up to date.
func (p *Plane) Flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.everywhere(func(c *filter.Core) {
		for _, s := range c.Connections {
			s.Flush()
		}
	})
	p.flushSplice()
	p.flushCapture()
	p.flushInbound()
}

// Connections are the connections that are open now, oldest first.
func (p *Plane) Connections() []api.Connection {
	var out []api.Connection
	p.everywhere(func(c *filter.Core) {
		for _, s := range c.Connections {
			out = append(out, s.Status())
		}
	})
	slices.SortFunc(out, func(a, b api.Connection) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Listeners are those in force, in the order in which they came.
func (p *Plane) Listeners() []api.ListenerStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]api.ListenerStatus, 0, len(p.listeners))
	place := make(map[string]int, len(p.wanted.Order))
	for i, name := range p.wanted.Order {
		place[name] = i
	}
	for _, l := range p.listeners {
		s := api.ListenerStatus{Name: l.config.Name, Generation: l.common.Generation, Bound: l.bound}
		if !l.stopped {
			s.Bound = p.boundLocked(l)
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b api.ListenerStatus) int {
		return cmp.Or(cmp.Compare(place[a.Name], place[b.Name]), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// boundLocked is where a listener listens.
func (p *Plane) boundLocked(l *listener) (out []api.BoundAddress) {
	for i, addr := range l.config.Addresses {
		at := api.BoundAddress{Addr: addr.Addr, Path: addr.Path}
		if b := p.sockets[l.config.PlaceKey(i)]; b != nil {
			at = b.sockets.Bound
		}
		out = append(out, at)
	}
	return out
}

// Clusters are those in force, by name.
func (p *Plane) Clusters() []api.ClusterStatus {
	var out []api.ClusterStatus
	p.eachCluster(func(u *upstream.Cluster) {
		c := api.ClusterStatus{Cluster: u.Config(), Outlier: u.Outliers(), MaxRetries: u.MaxRetries()}
		c.Breakers, c.HighBreakers = u.Breakers()
		for _, h := range u.Hosts() {
			c.Hosts = append(c.Hosts, h.Status())
		}
		out = append(out, c)
	})
	slices.SortFunc(out, func(a, b api.ClusterStatus) int { return cmp.Compare(a.Cluster.Name, b.Cluster.Name) })
	return out
}

// ReopenLogs opens the access logs' files anew, for SIGUSR1.
func (p *Plane) ReopenLogs() { p.files.Reopen() }

// Splice says whether the kernel path is in use, and if not, why.
func (p *Plane) Splice() api.SpliceStatus {
	s := p.status
	_, s.Graft = p.graft.now()
	return s
}
