package http2

import (
	"time"

	"github.com/sluice-proxy/sluice/api/stats"
	"golang.org/x/net/http2"
)

// inbound counts frames that cost their sender little (Envoy's ProtocolConstraints).
type inbound struct {
	empty, priorities, windows, sent uint64
}

// exceeded counts a frame and gives the figure of the limit that it breaks, or nil.
func (n *inbound) exceeded(f http2.Frame, c *Conn) *stats.Counter {
	o, opened := c.pool.options(), uint64(c.opened)
	switch f := f.(type) {
	case *http2.DataFrame:
		n.blank(len(f.Data()) == 0 && !f.StreamEnded())
	case *http2.MetaHeadersFrame:
		n.blank(len(f.Fields) == 0 && !f.StreamEnded())
	case *http2.PriorityFrame:
		if n.priorities++; n.priorities > uint64(o.MaxPriorities)*(1+opened) {
			return c.shared.HTTP2.PriorityFlood
		}
	case *http2.WindowUpdateFrame:
		if n.windows++; n.windows > 5+2*(opened+uint64(o.MaxWindowUpdates)*n.sent) {
			return c.shared.HTTP2.WindowFlood
		}
	}
	if n.empty > uint64(o.MaxEmpty) {
		return c.shared.HTTP2.EmptyFlood
	}
	return nil
}

func (n *inbound) blank(is bool) {
	if !is {
		n.empty = 0
		return
	}
	n.empty++
}

// lives begins what goes by the connection's age: keep-alive, and its end.
func (c *Conn) lives() {
	o := c.pool.options()
	if o.MaxDuration > 0 {
		c.age.F = func() {
			c.shared.HTTP2.MaxDuration.Inc()
			c.drain()
		}
		c.worker.After(&c.age, o.MaxDuration)
	}
	c.ping(o.KeepaliveInterval)
}

// ping asks the host for a sign of life, after a while; 0: never.
func (c *Conn) ping(after time.Duration) {
	if after <= 0 {
		return
	}
	c.probe.F = func() {
		c.put(func(f *http2.Framer) error { return f.WritePing(false, [8]byte{'a', 'l', 'i', 'v', 'e'}) })
		c.probe.F = func() {
			c.shared.HTTP2.KeepaliveTimeout.Inc()
			c.fail(errSilent, false)
		}
		c.worker.After(&c.probe, c.pool.options().KeepaliveTimeout)
	}
	c.worker.After(&c.probe, after)
}

// alive is the answer.
func (c *Conn) alive() { c.ping(c.pool.options().KeepaliveInterval) }
