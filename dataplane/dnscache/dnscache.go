// Package dnscache keeps the addresses of names that connections bring: Envoy's
// dynamic forward proxy. A name is resolved when the first connection asks for it,
// which waits, and again and again as long as some do.
//
// Who resolves is handed in: the data plane knows no DNS.
package dnscache

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/loop"
)

// Resolver turns a name into addresses, on any goroutine. A name that has none is an
// answer without addresses, and no error.
type Resolver interface {
	Lookup(ctx context.Context, name string, family api.DNSFamily) ([]api.ResolvedAddress, error)
}

// Caches are the caches of a plane. As in Envoy all of them stay as long as one is
// used.
type Caches struct {
	resolver func(*api.Resolver) Resolver
	stats    *stats.Store
	lookups  sync.WaitGroup

	mu    sync.Mutex
	all   map[string]*Cache // by api.DNSCache.Settings
	users int
}

// New makes a plane's caches. resolver makes those that configurations ask for; nil
// is the default one.
func New(resolver func(*api.Resolver) Resolver, store *stats.Store) *Caches {
	return &Caches{resolver: resolver, stats: store, all: map[string]*Cache{}}
}

// Use is the cache of a configuration, until Release.
func (cs *Caches) Use(config *api.DNSCache) *Cache {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.users++
	c := cs.all[config.Settings]
	if c == nil {
		c = cs.open(config)
		cs.all[config.Settings] = c
	}
	return c
}

// Close waits for the look-ups of caches that nobody uses any more.
func (cs *Caches) Close() { cs.lookups.Wait() }

// Cache is one cache. Safe for concurrent use.
type Cache struct {
	of       *Caches
	config   *api.DNSCache
	resolver Resolver
	figures  *figures
	born     time.Time
	ctx      context.Context
	stop     context.CancelFunc

	mu       sync.Mutex
	pending  uint32            // connections that wait
	names    map[string]*entry // by Key
	watchers map[*watcher]struct{}
	closed   bool
}

type watcher struct{ told func(map[string]*Name) }

func (cs *Caches) open(config *api.DNSCache) *Cache {
	c := &Cache{of: cs, config: config, resolver: cs.resolver(config.Resolver), figures: newFigures(cs.stats, config.Name), born: time.Now(),
		names: map[string]*entry{}, watchers: map[*watcher]struct{}{}}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.figures.remaining.Set(uint64(config.MaxPending))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range config.Known {
		if key := Key(n.Name, n.Port); c.names[key] == nil {
			c.resolveLocked(c.addLocked(key, n.Port))
		}
	}
	return c
}

// Release gives the cache back.
func (c *Cache) Release() {
	cs := c.of
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.users--; cs.users > 0 {
		return
	}
	for _, one := range cs.all {
		one.close()
	}
	cs.all = map[string]*Cache{}
}

func (c *Cache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.stop()
	for _, e := range c.names {
		if e.timer != nil {
			e.timer.Stop()
		}
	}
	c.figures.scope.Release()
	c.figures.breakers.Release()
}

// Watch has told called with the names that have addresses, at once, and with those
// whose addresses are others, later; nil is a name that is gone. It is called on any
// goroutine, one call at a time, and may not call the cache.
func (c *Cache) Watch(told func(map[string]*Name)) (end func()) {
	w := &watcher{told}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watchers[w] = struct{}{}
	all := map[string]*Name{}
	for key, e := range c.names {
		if e.name != nil {
			all[key] = e.name
		}
	}
	if len(all) > 0 {
		told(all)
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.watchers, w)
	}
}

func (c *Cache) tellLocked(key string, n *Name) {
	for w := range c.watchers {
		w.told(map[string]*Name{key: n})
	}
}

// Enter counts a connection that may have to wait for a name, unless there are too
// many. Leave follows.
func (c *Cache) Enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending >= c.config.MaxPending {
		c.figures.pendingOverflow.Inc()
		return false
	}
	c.pending++
	c.figures.show(c.pending, c.config.MaxPending)
	return true
}

// Leave says that it does not wait, or not any longer.
func (c *Cache) Leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending--
	c.figures.show(c.pending, c.config.MaxPending)
}

// Found is what becomes of a question.
type Found uint8

// Known: the name was resolved, to addresses or to none. Loading: it is being
// resolved. Full: there is no room for it.
const (
	Known Found = iota
	Loading
	Full
)

// Load asks for a name, whose port counts where it has none itself. Where that is
// Loading, done is called on the worker, whose thread this is, unless cancel is called
// before; without a worker nobody waits.
func (c *Cache) Load(name string, port uint16, on *loop.Worker, done func()) (is Found, cancel func()) {
	key := Key(name, port)
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.names[key]
	anew := false
	if e != nil && e.resolved {
		if anew = c.config.NoRefreshOnFailure && e.failed; !anew {
			return Known, nil
		}
	}
	if len(c.names) >= int(c.config.MaxHosts) {
		c.figures.overflow.Inc()
		return Full, nil
	}
	if c.closed {
		return Full, nil
	}
	if anew {
		c.removeLocked(e)
		e = nil
	}
	if e == nil {
		e = c.addLocked(key, port)
		c.resolveLocked(e)
	}
	if on == nil {
		return Loading, nil
	}
	return Loading, e.await(on, done)
}
