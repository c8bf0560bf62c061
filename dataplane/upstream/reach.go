package upstream

import (
	"errors"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/loop"
)

// Dial connects to the host that was picked, as its cluster says, and sends header
// first. from is where the connection is to come from, whatever the cluster says.
func (c *Connection) Dial(w *loop.Worker, from Source, header []byte, done func(fd int, err error)) *Dial {
	u, e := c.Host.cluster, c.Host.Endpoint()
	cfg := u.Config()
	way := &Way{Path: e.Path, From: from, Bind: cfg.Bind, Keepalive: cfg.Keepalive, Header: header}
	told := func(fd int, err error) {
		switch {
		case errors.As(err, new(*BindError)):
			u.Stats.BindErrors.Inc()
			c.local = true
		case err == nil && len(header) > 0:
			c.Bytes(0, uint64(len(header)))
		}
		if err == nil {
			if s := c.watchTCP(w, fd); s != nil {
				c.tcp.Every(s.Period)
			}
		}
		done(fd, err)
	}
	if len(e.Additional) == 0 {
		d := newDial(w, e.Addr, way, timeout(cfg.ConnectTimeout), told)
		c.watchTCP(w, d.fd) // one that is refused counts too
		return d
	}
	return newRace(w, interleaved(cfg.Eyeballs, e.Addr, e.Additional), way, timeout(cfg.ConnectTimeout), u.Stats.Total.Inc, told)
}

// Unbound says that the connection failed as it had no source address.
func (c *Connection) Unbound() bool { return c.local }

// timeout is at least a moment: 0 would be none.
func timeout(d time.Duration) time.Duration { return max(d, 1) }

// Proxy says which PROXY header the host is to be sent, nil for none.
func (c *Connection) Proxy() *api.ProxyHeader {
	return c.Host.cluster.Config().SocketFor(c.Host.Endpoint()).Proxy
}
