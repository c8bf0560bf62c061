package upstream

import (
	"time"

	"github.com/sluice-proxy/sluice/dataplane/outlier"
	"github.com/sluice-proxy/sluice/dataplane/tcpstats"
	"github.com/sluice-proxy/sluice/dataplane/tls"
)

// Connection is the accounting of one upstream connection, from the pick to the
// end. It is for one goroutine.
type Connection struct {
	Host *Host

	pool        *pool
	waits       bool // see Await
	established bool
	ended       bool
	held        bool
	watched     bool // see EndWithHost
	local       bool // failed before it got to the host
	shared      bool // is a request on a connection that is counted by itself
	tcp         *tcpstats.Watch
}

// OnShared is what a request on a Shared connection is to its client: its figures are
// those of the Request.
func OnShared(h *Host) Connection { return Connection{Host: h, shared: true} }

// Picked is a connection that is to be opened.
type Picked struct {
	Connection
	// TLS is what originates it; nil: it is in the clear.
	TLS *tls.Client
}

// Cluster is the cluster that was picked from.
func (c *Connection) Cluster() *Cluster { return c.Host.cluster }

// Connected counts the connection as open; took is the time that it needed.
func (c *Connection) Connected(took time.Duration) {
	s := c.Host.cluster.Stats
	c.established = true
	c.Host.report(outlier.Connected)
	c.pool.of.givePending()
	c.Host.rqPending.Add(^uint64(0))
	s.ConnectMS.RecordTime(took)
	s.RqTotal.Inc()
	c.pool.of.request(1)
	c.Host.rqTotal.Add(1)
	c.Host.rqActive.Add(1)
	c.pool.serve()
}

// Failed counts an attempt that came to nothing: refused by the other side, or
// by our clock. Those that waited for it get no other reason, and come to nothing
// too.
func (c *Connection) Failed(timeout bool, why string) {
	if timeout {
		c.Host.report(outlier.TimedOut)
	} else {
		c.Host.report(outlier.Refused)
	}
	s := c.Host.cluster.Stats
	c.ended = true
	c.pool.of.givePending()
	c.pool.of.giveActive()
	s.ConnectFail.Inc()
	s.PendingFailureEject.Inc()
	s.Destroy.Inc()
	if timeout {
		s.ConnectTimeout.Inc()
	}
	if timeout || c.local {
		s.DestroyLocal.Inc()
	} else {
		s.DestroyRemote.Inc()
	}
	c.Host.cxConnectFail.Add(1)
	c.Host.cxActive.Add(^uint64(0))
	c.Host.rqPending.Add(^uint64(0))
	c.drop()
	c.pool.fail(why)
	c.pool.left()
}

// GivenUp counts an attempt that nobody waits for any more, or a wait for one: the
// host is not to blame.
func (c *Connection) GivenUp() {
	s := c.Host.cluster.Stats
	c.ended = true
	c.pool.of.givePending()
	c.Host.rqPending.Add(^uint64(0))
	s.Cancelled.Inc()
	if c.waits {
		c.waits = false
		c.pool.remove(c)
		c.drop()
		return
	}
	c.pool.of.giveActive()
	s.Destroy.Inc()
	s.DestroyLocal.Inc()
	c.Host.cxActive.Add(^uint64(0))
	c.drop()
	c.pool.left()
}

// EndWithHost has end called, on any goroutine, when the host becomes unhealthy
// before the connection's end, if the cluster asks for that
// (close_connections_on_host_health_failure). c must stay where it is.
func (c *Connection) EndWithHost(end func()) {
	h := c.Host
	if !h.cluster.Config().CloseOnHealthFailure {
		return
	}
	h.closing.Lock()
	defer h.closing.Unlock()
	if h.closers == nil {
		h.closers = map[*Connection]func(){}
	}
	h.closers[c] = end
	c.watched = true
}

// Bytes counts bytes: rx more came from the host, tx more went to it.
func (c *Connection) Bytes(rx, tx uint64) {
	if c.shared {
		return
	}
	s := c.Host.cluster.Stats
	s.RxBytes.Add(rx)
	s.TxBytes.Add(tx)
}

// Ended counts the end of an open connection, which lasted so long. remote says
// that the host's side ended it last.
func (c *Connection) Ended(lasted time.Duration, remote bool) {
	if c.ended || !c.established {
		if c.shared {
			c.drop()
		}
		return
	}
	c.ended = true
	s := c.Host.cluster.Stats
	s.Destroy.Inc()
	s.DestroyWithActiveRq.Inc()
	if remote {
		s.DestroyRemote.Inc()
		s.DestroyRemoteWithActiveRq.Inc()
	} else {
		s.DestroyLocal.Inc()
		s.DestroyLocalWithActiveRq.Inc()
	}
	s.LengthMS.RecordTime(lasted)
	c.pool.of.request(-1)
	c.pool.of.giveActive()
	c.Host.rqActive.Add(^uint64(0))
	c.Host.cxActive.Add(^uint64(0))
	c.drop()
	c.pool.left()
}

func (c *Connection) drop() {
	c.tcp.End()
	c.tcp = nil
	if c.watched {
		c.Host.closing.Lock()
		delete(c.Host.closers, c)
		c.Host.closing.Unlock()
	}
	if c.held {
		c.held = false
		c.Host.cluster.holders.Drop()
	}
}
