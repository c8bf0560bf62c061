package dataplane

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/accesslog"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/listen"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/match"
	"github.com/sluice-proxy/sluice/dataplane/pair"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// bound is an address that is listened on; its owner may change, the sockets
// stay.
type bound struct {
	sockets *listen.Sockets
	owner   atomic.Pointer[listener]
}

// socketPlace names the sockets of an address. Port 0 is another port for every
// listener that asks for it.
type socketPlace struct {
	addr     api.BindAddress
	listener string // only for port 0
}

func place(c *api.Listener, addr api.BindAddress) socketPlace {
	p := socketPlace{addr: addr}
	if addr.Addr.Port() == 0 {
		p.listener = c.Name
	}
	return p
}

// listener is one version of a listener in force. Read-only after newListener.
type listener struct {
	config     *api.Listener
	generation uint64
	index      *match.Index
	chains     map[*api.FilterChain]*filter.Chain
	// listenerFilters run before the chain is known.
	listenerFilters []filter.ListenerFactory
	logs            accesslog.Logs
	stats           *listenerStats
	// holders are the plane and the connections: the figures live as long as
	// one of them.
	holders *stats.Holders
}

type listenerStats struct {
	scope                            *stats.Scope
	total, destroy, noMatch, missing *stats.Counter
	timeout, remoteClose             *stats.Counter
	active, inspected                *stats.Gauge
	length                           *stats.Histogram
	workers                          []workerStats
}

type workerStats struct {
	scope  *stats.Scope
	total  *stats.Counter
	active *stats.Gauge
}

// newListener makes a version of a listener; the error is that of opening an
// access log.
func (p *Plane) newListener(c *api.Listener) (*listener, error) {
	logs, err := p.files.Logs(c.AccessLogs)
	if err != nil {
		return nil, err
	}
	l := &listener{logs: logs, config: c, generation: p.generation, chains: map[*api.FilterChain]*filter.Chain{}, listenerFilters: p.newListenerFilters(c)}
	l.index = match.New(c)
	for _, chain := range append(c.FilterChains[:len(c.FilterChains):len(c.FilterChains)], c.DefaultFilterChain) {
		if chain == nil {
			continue
		}
		if l.chains[chain], err = p.newChain(chain); err != nil {
			delete(l.chains, chain)
			l.releaseFilters()
			return nil, err
		}
	}
	l.stats = p.newListenerStats(c.StatName())
	l.holders = stats.NewHolders(l.release)
	return l, nil
}

func (p *Plane) newListenerStats(name string) *listenerStats {
	tag := stats.Tag{Name: "envoy.listener_address", Value: name}
	sc := p.stats.Scope("listener", tag)
	for _, always := range []string{"downstream_cx_transport_socket_connect_timeout", "downstream_cx_overflow", "downstream_cx_overload_reject", "downstream_global_cx_overflow",
		"extension_config_missing", "downstream_listener_filter_error"} {
		sc.Counter(always) // named as Envoy names them, and never moved yet
	}
	s := &listenerStats{
		scope:   sc,
		total:   sc.Counter("downstream_cx_total"),
		destroy: sc.Counter("downstream_cx_destroy"),
		noMatch: sc.Counter("no_filter_chain_match"),
		missing: sc.Counter("network_extension_config_missing"),
		// of the listener filters
		timeout:     sc.Counter("downstream_pre_cx_timeout"),
		remoteClose: sc.Counter("downstream_listener_filter_remote_close"),
		inspected:   sc.Gauge("downstream_pre_cx_active"),

		active: sc.Gauge("downstream_cx_active"),
		length: sc.Histogram("downstream_cx_length_ms"),
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
func (p *Plane) accepted(b *bound, worker, fd int) {
	l, core := b.owner.Load(), p.cores[worker]
	info := &stream.Info{ID: core.NextID(), Start: time.Now(), Listener: l.config.Name, Generation: l.generation}
	info.Remote, info.Local = pair.Addresses(fd)
	info.DirectRemote, info.DirectLocal = info.Remote, info.Local
	s := &filter.Socket{Core: core, FD: fd, Info: info}
	held := l.holders.Hold()
	l.stats.inspected.Inc()
	filter.Inspect(s, l.listenerFilters, l.config.ListenerFiltersTimeout, l.config.ContinueOnListenerFiltersTimeout, func(s *filter.Socket, v filter.Verdict) {
		l.stats.inspected.Dec()
		if v == filter.Accepted {
			if p.enter(l, s, held) {
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
		if held {
			l.holders.Drop()
		}
	})
}

// find is the filter chain of a connection, or nil.
func (l *listener) find(i *stream.Info) *api.FilterChain {
	c := match.Connection{
		Local: i.Local, Remote: i.Remote, Direct: i.DirectRemote, ServerName: i.ServerName,
		TransportProtocol: i.TransportProtocol, ApplicationProtocols: i.ApplicationProtocols,
	}
	if l.config.Matcher != nil {
		// The objects that are built have no fields of their own.
		c.FilterState = func(key, field string) (string, bool) {
			o, ok := i.State[key]
			return o.Value, ok && field == ""
		}
	}
	return l.index.Find(&c)
}

// enter finds the filter chain of a socket that the listener filters are done
// with. It returns false when the socket is closed already.
func (p *Plane) enter(l *listener, sock *filter.Socket, held bool) bool {
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
		filter.CloseQuietly(sock.FD)
		l.logs.Write(sock.Info, "")
		return false
	}
	s.active.Inc()
	w.active.Inc()
	c := &filter.Connection{Core: sock.Core, FD: sock.FD, Info: sock.Info, Limit: l.config.PerConnectionBufferLimit, Consumed: sock.Consumed}
	filters.Accept(c, func(c *filter.Connection) { l.logs.Write(c.Info, "") }, func(c *filter.Connection) {
		s.destroy.Inc()
		s.active.Dec()
		w.active.Dec()
		s.length.Record(float64(c.Info.Duration()) / float64(time.Millisecond))
		if held {
			l.holders.Drop()
		}
	})
	return true
}

// listenersInLocked puts new and changed listeners in force and says which could
// not be, and why; of those the old version stays.
func (p *Plane) listenersInLocked(s *api.Snapshot) map[string]error {
	var refused map[string]error
	for _, c := range s.Listeners {
		have := p.listeners[c.Name]
		if have != nil && have.config.Equal(c) {
			continue
		}
		if err := p.listenerInLocked(s, c, have); err != nil {
			if refused == nil {
				refused = map[string]error{}
			}
			refused[c.Name] = err
		}
	}
	return refused
}

func (p *Plane) listenerInLocked(s *api.Snapshot, c *api.Listener, have *listener) error {
	if have != nil && have.config.ReusePort != c.ReusePort {
		return fmt.Errorf("Listener %s: reuse port cannot be changed during an update", c.Name)
	}
	l, err := p.newListener(c)
	if err != nil {
		return err
	}
	fresh := map[api.BindAddress]*bound{}
	undo := func() {
		l.holders.Drop()
		for _, b := range fresh {
			b.sockets.Discard()
		}
	}
	for _, addr := range c.Addresses {
		if b := p.sockets[place(c, addr)]; b != nil {
			if owner := b.owner.Load(); owner != have && s.Listener(owner.config.Name) != nil {
				undo()
				return fmt.Errorf("cannot bind %v: listener %q has it", addr.Addr, owner.config.Name)
			}
			continue
		}
		b := &bound{}
		b.sockets, err = listen.Open(addr, listen.Options{Backlog: c.Backlog, ReusePort: c.ReusePort}, p.workers(), func(worker, fd int) { p.accepted(b, worker, fd) })
		if err != nil {
			undo()
			return err
		}
		fresh[addr] = b
	}
	for addr, b := range fresh {
		b.owner.Store(l)
		p.sockets[place(c, addr)] = b
		if err := b.sockets.Start(); err != nil {
			p.log.Error("start listening", "listener", c.Name, "address", addr.Addr, "error", err)
		}
	}
	for _, addr := range c.Addresses {
		p.sockets[place(c, addr)].owner.Store(l)
	}
	p.listeners[c.Name] = l
	if have != nil {
		p.dropSocketsLocked(have)
		have.holders.Drop()
	}
	return nil
}

// listenersOutLocked removes the listeners that the snapshot does not have.
func (p *Plane) listenersOutLocked(s *api.Snapshot, refused map[string]error) {
	for name, l := range p.listeners {
		if s.Listener(name) == nil && refused[name] == nil {
			delete(p.listeners, name)
			p.dropSocketsLocked(l)
			l.holders.Drop()
		}
	}
}

// dropSocketsLocked closes the addresses that a version of a listener still
// owns; those that another took over have another owner.
func (p *Plane) dropSocketsLocked(l *listener) {
	for _, addr := range l.config.Addresses {
		if b := p.sockets[place(l.config, addr)]; b != nil && b.owner.Load() == l {
			b.sockets.Close()
			delete(p.sockets, place(l.config, addr))
		}
	}
}

func (p *Plane) workers() []*loop.Worker {
	out := make([]*loop.Worker, len(p.cores))
	for i, c := range p.cores {
		out[i] = c.Worker
	}
	return out
}
