package pair

import (
	"fmt"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/address"
)

// Bytes are the bytes taken from the downstream and from the upstream so far.
func (p *Pair) Bytes() (request, response uint64) {
	return p.direction[0].handed() + p.direction[0].graftedBytes(), p.direction[1].handed() + p.direction[1].graftedBytes()
}

// FirstEnd is the side whose stream was handed on to its end first: 0
// downstream, 1 upstream, -1 neither yet.
func (p *Pair) FirstEnd() int { return int(p.firstEnd) }

// Status fills in what the pair knows of a connection: addresses, paths, bytes.
func (p *Pair) Status(c *api.Connection) {
	c.State = "open"
	if p.direction[0].done || p.direction[1].done || p.graftHalf() {
		c.State = "half-closed"
	}
	if p.deadline() != 0 {
		c.State = "resetting"
	}
	c.DownstreamRemote, c.DownstreamLocal = address.Ends(p.ends[0].fd)
	c.UpstreamRemote, c.UpstreamLocal = address.Ends(p.ends[1].fd)
	if p.cfg.graft != nil && p.cfg.graft.refused != nil {
		c.GraftRefused = p.cfg.graft.refused.Error()
	}
	c.Request, c.Response = p.direction[0].status(), p.direction[1].status()
}

func (d *direction) status() api.DirectionStatus {
	s := api.DirectionStatus{Path: d.path, Reason: d.p.set.say(d.reason), Changes: uint64(d.changes), Ended: d.done, Relayed: d.plain - d.piped, Piped: d.piped}
	if d.slot.Taken() {
		s.Spliced = d.slot.Redirected()
	}
	s.Grafted = d.graftedBytes()
	s.Bytes = s.Relayed + s.Piped + s.Spliced + s.Grafted
	if d.path == api.PathGraft {
		ended, _ := d.p.cfg.graft.Finished(int(d.side))
		s.Ended = s.Ended || ended
		return s // the socket counted but what it held
	}
	// The kernel's own count, not ours. A FIN counts one in it; the SYN does not.
	if d.src().transport() == nil && tcpInfo(d.src().fd, &d.p.set.info) == 0 {
		s.Bytes = d.p.set.info.Bytes_received - d.before()
		if d.src().fin && !d.src().failed && s.Bytes > 0 {
			s.Bytes--
		}
	}
	return s
}

// Activity is when a byte was last seen, in nanoseconds of CLOCK_MONOTONIC.
func (p *Pair) Activity() int64 {
	last := p.active
	for i := range p.direction {
		if s := &p.direction[i].slot; s.Taken() {
			last = max(last, s.Last())
		}
	}
	if p.cfg.graft != nil && p.cfg.graft.Taken() {
		last = max(last, p.cfg.graft.Last())
	}
	return last
}

// graftHalf says that one end of a grafted pair was passed on.
func (p *Pair) graftHalf() bool {
	return p.cfg.graft != nil && p.cfg.graft.Taken() && p.cfg.graft.First() >= 0
}

// Told is what Status leaves out: what the pair waits for, and what its graft's
// programs know. For whoever looks into a stall. On the worker.
func (p *Pair) Told() string {
	now := p.set.worker.Now()
	var b strings.Builder
	fmt.Fprintf(&b, "closed %v deadline %d first end %d", p.closed, p.deadline(), p.firstEnd)
	for i := range p.direction {
		e, d := &p.ends[i], &p.direction[i]
		fmt.Fprintf(&b, "\n    end %d: mask %#x watched %v edge %v fin %v failed %v; direction: holds %v reading %v awaiting %v done %v emptied %v backoff %v due in %v",
			i, e.mask, e.watched, e.edge, e.fin, e.failed, d.holds(), d.reading, d.awaiting, d.done, d.emptied, d.backoff, dueIn(d.due, now))
	}
	if g := p.cfg.graft; g != nil {
		fmt.Fprintf(&b, "\n    graft: frozen %v refused %v tries %d quiet scans %d; %v", g.frozen, g.refused, g.tries, g.quiet, &g.Grafted)
	}
	return b.String()
}

func dueIn(due, now int64) string {
	if due == 0 {
		return "never"
	}
	return time.Duration(due - now).String()
}
