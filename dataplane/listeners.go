package dataplane

import (
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/listen"
	"github.com/sluice-proxy/sluice/dataplane/loop"
)

// bound is an address that is listened on; its owner may change, the sockets
// stay.
type bound struct {
	plane   *Plane
	sockets *listen.Sockets
	owner   atomic.Pointer[listener]
}

// Accepted is called by the sockets.
func (b *bound) Accepted(worker, fd int, remote, local netip.AddrPort) {
	b.plane.accepted(b, worker, fd, remote, local)
}

// Round is called by the sockets.
func (b *bound) Round(_, n int) { b.owner.Load().stats.accepts.Record(float64(n)) }

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

// listenerInLocked puts one version of a listener in force: it opens what is
// missing first, and only when all is open takes anything over.
func (p *Plane) listenerInLocked(s *api.Snapshot, c *api.Listener, have *listener) error {
	if have != nil {
		if err := mayBecome(have.config, c); err != nil {
			return err
		}
	}
	l, err := p.newListener(c, have)
	if err != nil {
		return err
	}
	fresh, err := p.openLocked(s, c, have)
	if err != nil {
		for _, b := range fresh {
			b.sockets.Discard()
		}
		l.holders.Drop()
		return err
	}
	for key, b := range fresh {
		old := p.sockets[key]
		b.owner.Store(l)
		p.sockets[key] = b
		p.pauseLocked(b)
		if err := b.sockets.Start(); err != nil {
			p.log.Error("start listening", "listener", c.Name, "address", b.sockets.Bound, "error", err)
		}
		if old != nil { // whose options were others; what waits there is served
			old.owner.Store(l)
			p.replaced.sockets = append(p.replaced.sockets, old)
		}
	}
	l.stopped = p.stopped.covers(c)
	for i := range c.Addresses {
		if c.HandedOnly || l.stopped {
			break
		}
		b := p.sockets[c.PlaceKey(i)]
		b.owner.Store(l)
		p.pauseLocked(b)
		b.sockets.SetRounds(c.MaxAcceptsPerEvent)
		if have != nil && have.config.Backlog != c.Backlog {
			if err := b.sockets.SetBacklog(c.Backlog); err != nil {
				p.log.Warn("change backlog", "listener", c.Name, "address", b.sockets.Bound, "error", err)
			}
		}
	}
	p.listeners[c.Name] = l
	p.routeLocked(l)
	if have != nil {
		p.updatedLocked(have, c)
		p.replaced.versions = append(p.replaced.versions, have)
	}
	return nil
}

// replaced is what an Apply has made anew, to be closed once the kernel sends
// nothing there any more.
type replaced struct {
	sockets  []*bound
	versions []*listener
}

func (p *Plane) dropReplacedLocked() {
	for _, b := range p.replaced.sockets {
		b.sockets.Close()
	}
	for _, l := range p.replaced.versions {
		p.dropSocketsLocked(l)
		l.holders.Drop()
	}
	p.replaced = replaced{}
}

// mayBecome refuses, in Envoy's words, what cannot change while sockets live.
func mayBecome(old, c *api.Listener) error {
	if old.ReusePort != c.ReusePort {
		return fmt.Errorf("Listener %s: reuse port cannot be changed during an update", c.Name)
	}
	if c.ReusePort {
		return nil
	}
	options := map[string]*api.SocketOptions{}
	for i := range old.Addresses {
		options[old.PlaceKey(i)] = &old.Addresses[i].Socket
	}
	for i := range c.Addresses {
		addr := &c.Addresses[i]
		if o := options[c.PlaceKey(i)]; o != nil && !o.Equal(&addr.Socket) && !anyPort(addr) {
			return fmt.Errorf("error adding listener: '%s' has duplicate address '%v' as existing listener, "+
				"to check if the listener has duplicated addresses with other listeners or "+
				"'enable_reuse_port' is set to 'false' for the listener", c.Name, addr)
		}
	}
	return nil
}

// anyPort says that other sockets can always be had, at another port.
func anyPort(b *api.BindAddress) bool { return b.Path == "" && b.Addr.Port() == 0 }

// openLocked opens the sockets that a listener needs and cannot take over, by
// their place. With an error it returns those that are to be discarded.
func (p *Plane) openLocked(s *api.Snapshot, c *api.Listener, have *listener) (map[string]*bound, error) {
	fresh := map[string]*bound{}
	if c.HandedOnly || p.stopped.covers(c) {
		return fresh, nil
	}
	for i := range c.Addresses {
		addr, key := c.Addresses[i], c.PlaceKey(i)
		b := p.sockets[key]
		if b != nil {
			owner := b.owner.Load()
			left := p.listeners[owner.config.Name] != owner // by a newer version, before us
			if !left && owner != have && s.Listener(owner.config.Name) != nil && !s.Listener(owner.config.Name).HandedOnly {
				return fresh, fmt.Errorf("cannot bind '%v': listener %q has it", &addr, owner.config.Name)
			}
			if !b.sockets.Reuse && !anyPort(&addr) || b.sockets.Addr.Socket.Equal(&addr.Socket) {
				continue
			}
		}
		if fresh[key] != nil {
			continue
		}
		n := &bound{plane: p}
		var err error
		n.sockets, err = listen.Open(addr, listen.Options{Backlog: c.Backlog, ReusePort: c.ReusePort, Rounds: c.MaxAcceptsPerEvent, Beside: b != nil, Elsewhere: p.inbound != nil}, p.workers(), n)
		if err != nil {
			return fresh, err
		}
		fresh[key] = n
	}
	return fresh, nil
}

// leavingLocked are the listeners that the snapshot does not have.
func (p *Plane) leavingLocked(s *api.Snapshot, refused map[string]error) (out []*listener) {
	for name, l := range p.listeners {
		if s.Listener(name) == nil && refused[name] == nil {
			out = append(out, l)
		}
	}
	return out
}

func (p *Plane) listenersOutLocked(leaving []*listener) {
	for _, l := range leaving {
		delete(p.listeners, l.config.Name)
		p.dropSocketsLocked(l)
		p.removedLocked(l)
		l.holders.Drop()
	}
}

// dropSocketsLocked closes the addresses that a version of a listener still
// owns; those that another took over have another owner.
func (p *Plane) dropSocketsLocked(l *listener) {
	for i := range l.config.Addresses {
		key := l.config.PlaceKey(i)
		if b := p.sockets[key]; b != nil && b.owner.Load() == l {
			b.sockets.Close()
			delete(p.sockets, key)
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
