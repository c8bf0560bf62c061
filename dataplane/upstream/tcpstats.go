package upstream

import (
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/tcpstats"
)

// needTCPStats makes the figures of the TCP to hosts, if a transport socket has them
// kept. They stay with the cluster.
func (u *Cluster) needTCPStats(c *api.Cluster) {
	wanted := c.Socket.TCPStats != nil
	for i := range c.SocketMatches {
		wanted = wanted || c.SocketMatches[i].Socket.TCPStats != nil
	}
	if wanted && u.tcpStats.Load() == nil {
		u.tcpStats.Store(tcpstats.New(u.store, "cluster", stats.Tag{Name: "envoy.cluster_name", Value: u.statName}))
	}
}

// watchTCP begins to keep the figures of the connection's TCP, if its host's transport
// socket has them kept; nil: it has not.
func (c *Connection) watchTCP(w *loop.Worker, fd int) *api.TCPStats {
	u := c.Host.cluster
	kept := u.tcpStats.Load()
	if kept == nil || fd < 0 {
		return nil
	}
	s := u.Config().SocketFor(c.Host.Endpoint()).TCPStats
	if s != nil && c.tcp == nil {
		c.tcp = kept.Watch(w, fd)
	}
	return s
}
