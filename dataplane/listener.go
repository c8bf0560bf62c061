package dataplane

import (
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/accesslog"
	"github.com/sluice-proxy/sluice/dataplane/drain"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/match"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// listener is one version of a listener in force. Read-only after newListener.
type listener struct {
	plane  *Plane
	config *api.Listener
	// common is what all its connections over TCP are told by.
	common *stream.Listener
	index  *match.Index
	chains map[*api.FilterChain]*filter.Chain
	// listenerFilters run before the chain is known. lacksFilter says that the
	// configuration of one did not come.
	listenerFilters []filter.ListenerFactory
	lacksFilter     bool
	logs            accesslog.Logs
	stats           *listenerStats
	// family is shared by all versions of the listener, which version counts.
	family  *drain.Family
	version uint64
	drain   *drain.Listener
	configs map[*filter.Chain]*api.FilterChain // the reverse of chains
	// stopped says that /drain_listeners closed its sockets. Under the plane's
	// lock.
	stopped bool
	bound   []api.BoundAddress // where it was bound when it was stopped
	// open counts the sockets of all versions of the listener, balance those of
	// this one by worker.
	open    *atomic.Int64
	balance []atomic.Int64
	// holders are the plane and the connections: the figures live as long as
	// one of them.
	holders *stats.Holders
}

type listenerStats struct {
	scope                            *stats.Scope
	total, destroy, noMatch, missing *stats.Counter
	missingFilter                    *stats.Counter
	timeout, remoteClose, handshake  *stats.Counter
	overflow, globalOverflow         *stats.Counter
	overloadReject                   *stats.Counter
	active, inspected                *stats.Gauge
	length, accepts                  *stats.Histogram
	workers                          []workerStats
}

type workerStats struct {
	scope  *stats.Scope
	total  *stats.Counter
	active *stats.Gauge
}

// newListener makes a version of a listener; have is the one before, or nil. The
// error is that of opening an access log.
func (p *Plane) newListener(c *api.Listener, have *listener) (*listener, error) {
	logs, err := p.files.Logs(c.AccessLogs)
	if err != nil {
		return nil, err
	}
	l := &listener{
		plane: p, logs: logs, config: c, family: p.drains.Family(), configs: map[*filter.Chain]*api.FilterChain{}, balance: make([]atomic.Int64, len(p.cores)), open: new(atomic.Int64),
		chains: map[*api.FilterChain]*filter.Chain{}, listenerFilters: p.newListenerFilters(c),
	}
	l.common = &stream.Listener{Name: c.Name, Metadata: stream.Metadata(c.Metadata), Generation: p.generation, Direction: int64(c.Direction)}
	l.index = match.New(c)
	l.lacksFilter = slices.ContainsFunc(c.ListenerFilters, func(f api.ListenerFilter) bool { return f.Missing })
	if have != nil {
		l.open, l.family, l.version = have.open, have.family, have.version+1
	}
	l.drain = l.family.Listener(c)
	for _, chain := range append(c.FilterChains[:len(c.FilterChains):len(c.FilterChains)], c.DefaultFilterChain) {
		if chain == nil {
			continue
		}
		if l.chains[chain], err = p.newChain(c, chain, have.same(chain)); err != nil {
			delete(l.chains, chain)
			l.releaseFilters()
			return nil, err
		}
		l.configs[l.chains[chain]] = chain
	}
	l.stats = p.newListenerStats(c.StatName())
	for _, chain := range l.chains {
		chain.TimedOut = l.stats.handshake
	}
	l.holders = stats.NewHolders(l.release)
	return l, nil
}

func (p *Plane) newListenerStats(name string) *listenerStats {
	tag := stats.Tag{Name: "envoy.listener_address", Value: name}
	sc := p.stats.Scope("listener", tag)
	for _, always := range []string{"downstream_listener_filter_error"} {
		sc.Counter(always) // named as Envoy names them, and never moved yet
	}
	s := &listenerStats{
		scope:   sc,
		total:   sc.Counter("downstream_cx_total"),
		destroy: sc.Counter("downstream_cx_destroy"),
		noMatch: sc.Counter("no_filter_chain_match"),
		missing: sc.Counter("network_extension_config_missing"),

		missingFilter: sc.Counter("extension_config_missing"),
		// of the listener filters
		timeout:     sc.Counter("downstream_pre_cx_timeout"),
		handshake:   sc.Counter("downstream_cx_transport_socket_connect_timeout"),
		remoteClose: sc.Counter("downstream_listener_filter_remote_close"),
		inspected:   sc.Gauge("downstream_pre_cx_active"),

		overflow:       sc.Counter("downstream_cx_overflow"),
		globalOverflow: sc.Counter("downstream_global_cx_overflow"),
		overloadReject: sc.Counter("downstream_cx_overload_reject"),

		active:  sc.Gauge("downstream_cx_active"),
		length:  sc.Histogram("downstream_cx_length_ms"),
		accepts: sc.Histogram("connections_accepted_per_socket_event"),
	}
	for i := range p.cores {
		w := p.stats.Scope("listener", tag, stats.Infix{Prefix: "worker_", Tag: stats.Tag{Name: "envoy.worker_id", Value: strconv.Itoa(i)}})
		s.workers = append(s.workers, workerStats{scope: w, total: w.Counter("downstream_cx_total"), active: w.Gauge("downstream_cx_active")})
	}
	return s
}

func (l *listener) release() {
	l.releaseFilters()
	l.stats.scope.Release()
	for _, w := range l.stats.workers {
		w.scope.Release()
	}
}

func (l *listener) releaseFilters() {
	l.logs.Close()
	for _, c := range l.chains {
		c.Release()
	}
	for _, f := range l.listenerFilters {
		f.Release()
	}
}

// accepted takes a socket, on the worker's thread.
func (p *Plane) accepted(b *bound, worker, fd int, remote, local netip.AddrPort) {
	l := b.owner.Load()
	t, ok := p.admit(l, worker, true)
	if !ok {
		filter.CloseQuietly(fd)
		return
	}
	if t.worker == worker {
		p.inspect(l, t, p.newSocket(l, t, fd, &b.sockets.Bound, remote, local))
		return
	}
	if !p.cores[t.worker].Worker.Post(func() { p.inspect(l, t, p.newSocket(l, t, fd, &b.sockets.Bound, remote, local)) }) {
		filter.CloseQuietly(fd)
		t.back()
	}
}

// newSocket takes down what is known of a socket that was just accepted.
func (p *Plane) newSocket(l *listener, t ticket, fd int, bound *api.BoundAddress, remote, local netip.AddrPort) *filter.Socket {
	core := p.cores[t.worker]
	return &filter.Socket{Core: core, FD: fd, Info: stream.New(core.NextID(), l.told(bound.Path), remote, local), Owner: l, Bound: bound.Addr}
}

// told is what a connection is told of the listener; path is that of the unix
// socket that it came by, if it did.
func (l *listener) told(path string) *stream.Listener {
	if path == "" {
		return l.common
	}
	own := *l.common
	own.Pipe = path
	return &own
}

// inspect runs the listener filters, on the thread of the worker that the
// socket was given to.
func (p *Plane) inspect(l *listener, t ticket, s *filter.Socket) {
	if l.lacksFilter {
		l.stats.missingFilter.Inc()
		filter.CloseQuietly(s.FD)
		t.back()
		return
	}
	l.stats.inspected.Inc()
	filter.Inspect(s, l.listenerFilters, l.config.ListenerFiltersTimeout, l.config.ContinueOnListenerFiltersTimeout, func(s *filter.Socket, v filter.Verdict) {
		l.stats.inspected.Dec()
		if v == filter.TimeoutPassed {
			l.stats.timeout.Inc()
		}
		if v == filter.Accepted || v == filter.TimeoutPassed {
			if p.handOff(l, s, t) || p.enter(l, s, t) {
				return
			}
		} else {
			switch v {
			case filter.Timeout:
				l.stats.timeout.Inc()
			case filter.RemoteClose:
				l.stats.remoteClose.Inc()
			}
			filter.CloseQuietly(s.FD)
			l.logs.Write(s.Info, "")
		}
		t.back()
	})
}

// find is the filter chain of a connection, or nil.
func (l *listener) find(i *stream.Info) *api.FilterChain {
	hello := i.Hello()
	c := match.Connection{
		Local: i.Local(), Remote: i.Remote(), Direct: i.DirectRemote(), ServerName: hello.ServerName,
		TransportProtocol: hello.TransportProtocol, ApplicationProtocols: hello.ApplicationProtocols,
	}
	if l.config.Matcher != nil {
		// The objects that are built have no fields of their own.
		c.FilterState = func(key, field string) (string, bool) {
			o, ok := i.State()[key]
			return o.Value, ok && field == ""
		}
	}
	return l.index.Find(&c)
}

// enter finds the filter chain of a socket that the listener filters are done
// with. It returns false when the socket is closed already.
func (p *Plane) enter(l *listener, sock *filter.Socket, t ticket) bool {
	chain := l.find(sock.Info)
	if chain == nil {
		l.stats.noMatch.Inc()
		sock.Info.Flags.Set(stream.NoRouteFound)
		filter.CloseQuietly(sock.FD)
		l.logs.Write(sock.Info, "")
		return false
	}
	s, w := l.stats, &l.stats.workers[sock.Core.Worker.ID]
	s.total.Inc()
	w.total.Inc()
	filters := l.chains[chain]
	if len(filters.Factories) == 0 {
		// An empty list of filters closes the connection.
		s.missing.Inc()
		s.destroy.Inc()
		sock.Info.Chain, sock.Info.Upstream.Absent = &filters.Chain, true
		sock.Info.Explain().LocalClose = "no_filters"
		filter.CloseQuietly(sock.FD)
		l.logs.Write(sock.Info, "")
		return false
	}
	s.active.Inc()
	w.active.Inc()
	sock.Info.SetConsumed(sock.Consumed)
	filters.Accept(&filter.Connection{Core: sock.Core, FD: sock.FD, Info: sock.Info, Owner: l, Held: t.held})
	return true
}

// Due says whether a connection that asks is to end, for the listener drains.
func (l *listener) Due() bool { return l.drain.Due() }

// Limit is the buffer limit of its connections.
func (l *listener) Limit() uint32 { return l.config.PerConnectionBufferLimit }

// Logged says whether it has an access log.
func (l *listener) Logged() bool { return len(l.logs) > 0 }

// Closed writes the listener's access logs.
func (l *listener) Closed(c *filter.Connection) { l.logs.Write(c.Info, "") }

// Ended counts a connection out.
func (l *listener) Ended(c *filter.Connection) {
	s, worker := l.stats, c.Core.Worker.ID
	s.destroy.Inc()
	s.active.Dec()
	s.workers[worker].active.Dec()
	s.length.RecordTime(c.Info.Duration())
	ticket{p: l.plane, l: l, worker: worker, held: c.Held}.back()
}
