package dnscache

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/loop"
)

// Name is a name that has addresses, as it stands.
type Name struct {
	Addrs []netip.AddrPort
	entry *entry
}

// Touch says that somebody wants it.
func (n *Name) Touch() { n.entry.touch() }

// entry is one name. All but used is the cache's lock's.
type entry struct {
	cache     *Cache
	key, host string
	port      uint16
	used      atomic.Int64 // since the cache was made

	name     *Name // nil: it has had no address yet
	resolved bool  // once, at least
	failed   bool  // when it was, and has no address
	failures int   // in a row
	gone     bool
	timer    *time.Timer // until it is resolved again; nil while it is
	waiting  map[*waiter]struct{}
}

// waiter belongs to its worker.
type waiter struct {
	worker *loop.Worker
	done   func() // nil once it is told, or has given up
}

func (e *entry) touch() { e.used.Store(int64(time.Since(e.cache.born))) }

func (e *entry) await(on *loop.Worker, done func()) (cancel func()) {
	w := &waiter{on, done}
	if e.waiting == nil {
		e.waiting = map[*waiter]struct{}{}
	}
	e.waiting[w] = struct{}{}
	return func() {
		w.done = nil
		e.cache.mu.Lock()
		defer e.cache.mu.Unlock()
		delete(e.waiting, w)
	}
}

// tell ends the wait of all.
func (e *entry) tell() {
	waiting := e.waiting
	e.waiting = nil
	for w := range waiting {
		w.worker.Post(func() {
			if done := w.done; done != nil {
				w.done = nil
				done()
			}
		})
	}
}

func (c *Cache) addLocked(key string, port uint16) *entry {
	e := &entry{cache: c, key: key}
	var own bool
	if e.host, e.port, own = split(key); !own {
		e.port = port
	}
	e.touch()
	c.names[key] = e
	c.figures.added.Inc()
	c.figures.hosts.Inc()
	return e
}

func (c *Cache) removeLocked(e *entry) {
	e.gone = true
	if e.timer != nil {
		e.timer.Stop()
	}
	delete(c.names, e.key)
	c.figures.removed.Inc()
	c.figures.hosts.Dec()
	if e.name != nil {
		c.tellLocked(e.key, nil)
	}
}

// resolveLocked looks the name up, off every loop.
func (c *Cache) resolveLocked(e *entry) {
	e.timer = nil
	c.figures.attempt.Inc()
	c.of.lookups.Go(func() {
		ctx, end := c.ctx, context.CancelFunc(func() {})
		if c.config.QueryTimeout > 0 {
			ctx, end = context.WithTimeout(ctx, c.config.QueryTimeout)
		}
		found, err := c.resolver.Lookup(ctx, e.host, c.config.Family)
		if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			c.figures.timeout.Inc()
		}
		end()
		c.resolved(e, found, err)
	})
}

// again is the end of the wait for the next look-up. A name that nobody has asked for
// is let go then, and not before.
func (c *Cache) again(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed || e.gone:
	case time.Since(c.born)-time.Duration(e.used.Load()) > c.config.HostTTL:
		c.removeLocked(e)
		e.tell()
	default:
		c.resolveLocked(e)
	}
}

// resolved takes an answer over. Addresses stay until there are others.
func (c *Cache) resolved(e *entry, found []api.ResolvedAddress, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || e.gone {
		return
	}
	allowed := c.allowed(found)
	failed := err != nil
	if failed {
		c.figures.failure.Inc()
	} else {
		c.figures.success.Inc()
	}
	var addrs []netip.AddrPort
	for _, a := range allowed {
		addrs = append(addrs, netip.AddrPortFrom(a.Addr, e.port))
	}
	switch {
	case len(addrs) > 0 && (e.name == nil || !slices.Equal(e.name.Addrs, addrs)):
		e.name, e.failed = &Name{addrs, e}, false
		c.figures.changed.Inc()
		c.tellLocked(e.key, e.name)
	case e.name == nil:
		e.failed = failed
	}
	if !e.resolved {
		e.resolved = true
		e.tell()
	}
	if failed {
		e.failures++
		if c.config.NoRefreshOnFailure {
			return
		}
	} else {
		e.failures = 0
	}
	e.timer = time.AfterFunc(c.wait(e.failures, allowed), func() { c.again(e) })
}

func (c *Cache) allowed(found []api.ResolvedAddress) []api.ResolvedAddress {
	if c.config.Denied == nil {
		return found
	}
	var out []api.ResolvedAddress
	for _, a := range found {
		if c.config.Denied.Holds(a.Addr) {
			c.figures.denied.Inc()
			continue
		}
		out = append(out, a)
	}
	return out
}

// wait is how long until a name is resolved again: never less than the least after a
// failure, or an answer with addresses. Envoy counts in whole seconds after an answer.
func (c *Cache) wait(failures int, found []api.ResolvedAddress) time.Duration {
	switch b := c.config.Failure; {
	case failures > 0 && b == nil:
		return max(c.config.MinRefresh, c.config.Refresh)
	case failures > 0:
		top := b.Max
		if n := failures - 1; n < 32 && b.Base<<n < top {
			top = b.Base << n
		}
		return max(c.config.MinRefresh, time.Duration(rand.Int64N(int64(top)+1)))
	case len(found) > 0:
		return max(c.config.MinRefresh.Truncate(time.Second), found[0].TTL)
	case c.config.Refresh < time.Second:
		return c.config.Refresh // Envoy asks at once, for ever
	}
	return c.config.Refresh.Truncate(time.Second)
}
