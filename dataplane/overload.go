package dataplane

import (
	"github.com/sluice-proxy/sluice/api"
	apiruntime "github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/overload"
)

func (p *Plane) newOverload(c *api.Overload, r *apiruntime.Runtime) (err error) {
	p.overload, err = overload.New(overload.Options{
		Config: c, Stats: p.stats, Runtime: r, Log: p.log, Changed: p.overloadChanged,
		Connections: func() uint64 { return uint64(max(p.open.Load(), 0)) },
	})
	return err
}

// overloadChanged puts in force what the overload manager has come to: whether
// sockets are accepted from, and how long handshakes may take. Whether a connection
// is turned away is asked for each.
func (p *Plane) overloadChanged() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	for _, b := range p.sockets {
		p.pauseLocked(b)
	}
	if now := p.overload.ConnectTimeouts(); now != p.scale {
		p.scale = now
		p.everywhere(func(c *filter.Core) { c.ScaleConnectTimeouts(now) })
	}
}

// pauseLocked has an address accepted from, or not, as its owner wants it.
func (p *Plane) pauseLocked(b *bound) {
	l := b.owner.Load()
	if err := b.sockets.Pause(p.overload.StopsAccepting() && !l.config.BypassOverload); err != nil {
		p.log.Error("pause listening", "listener", l.config.Name, "address", b.sockets.Bound, "error", err)
	}
}

// sheds says whether a connection that was just accepted is to be closed, and counts it.
func (p *Plane) sheds(l *listener) bool {
	if l.config.BypassOverload || !p.overload.Rejects() {
		return false
	}
	l.stats.overloadReject.Inc()
	return true
}
