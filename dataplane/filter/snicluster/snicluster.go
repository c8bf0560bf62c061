// Package snicluster is envoy.filters.network.sni_cluster: the server name that a
// listener filter found is the name of tcp_proxy's cluster.
package snicluster

import (
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// key is the filter state object that tcp_proxy reads.
const key = "envoy.tcp_proxy.cluster"

// Factory has no configuration and no statistics.
type Factory struct{}

// New makes the filter of a connection.
func (Factory) New(c *filter.Connection) filter.Filter { return session{conn: c} }

// Watch says that no byte is needed.
func (Factory) Watch() filter.Watch { return filter.Nothing }

// Release does nothing.
func (Factory) Release() {}

type session struct {
	filter.Base
	conn *filter.Connection
}

// NewConnection names the cluster; without a server name tcp_proxy's own stays.
func (s session) NewConnection() filter.Status {
	if name := s.conn.Info.Hello().ServerName; name != "" {
		s.conn.Info.SetState(key, stream.Object{Value: name})
	}
	return filter.Continue
}
