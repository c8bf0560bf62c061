// Package sniforward is envoy.filters.network.sni_dynamic_forward_proxy: a connection
// waits until the DNS cache knows the server name that its client asks for, or the
// host that filters name. The cluster finds it there.
package sniforward

import (
	"strconv"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/dnscache"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// Filter state objects: what other filters say, and what is said to those after.
const (
	stateHost = "envoy.upstream.dynamic_host"
	statePort = "envoy.upstream.dynamic_port"
)

// Factory is the filter of one chain.
type Factory struct {
	config *api.SNIForwardProxy
	cache  *dnscache.Cache
}

// New makes the filter of one chain.
func New(c *api.SNIForwardProxy, ctx filter.Context) *Factory {
	return &Factory{config: c, cache: ctx.Names.Use(c.Cache)}
}

// New makes the filter of a connection.
func (f *Factory) New(c *filter.Connection) filter.Filter { return &session{factory: f, conn: c} }

// Watch says that no byte is needed.
func (*Factory) Watch() filter.Watch { return filter.Nothing }

// Release gives the cache back.
func (f *Factory) Release() { f.cache.Release() }

type session struct {
	filter.Base
	factory *Factory
	conn    *filter.Connection
	cancel  func() // of the wait for a name, or nil
}

// NewConnection asks for the name. Without one the connection goes on: its cluster
// knows what to do with it.
func (s *session) NewConnection() filter.Status {
	info, cache := s.conn.Info, s.factory.cache
	name := info.Hello().ServerName
	if o, ok := info.State()[stateHost]; ok {
		name = o.Value
	}
	if name == "" {
		return filter.Continue
	}
	if !cache.Enter() {
		s.conn.Refuse("")
		return filter.Closed
	}
	found, cancel := cache.Load(name, s.port(), s.conn.Core.Worker, s.loaded)
	switch found {
	case dnscache.Loading:
		s.cancel = cancel
		return filter.Stop
	case dnscache.Full:
		cache.Leave()
		s.conn.Refuse("")
		return filter.Closed
	}
	cache.Leave()
	return filter.Continue
}

// port is what filters say, or else the configuration's, which is said to the cluster.
func (s *session) port() uint16 {
	info := s.conn.Info
	if n, err := strconv.ParseUint(info.State()[statePort].Value, 10, 16); err == nil && n > 0 {
		return uint16(n)
	}
	info.SetState(statePort, stream.Object{Value: strconv.Itoa(int(s.factory.config.Port))})
	return s.factory.config.Port
}

// loaded goes on, whether there is an address or not.
func (s *session) loaded() {
	s.cancel = nil
	s.factory.cache.Leave()
	s.conn.Resume()
}

// Ended gives the wait up.
func (s *session) Ended() {
	if s.cancel != nil {
		s.cancel()
		s.cancel = nil
		s.factory.cache.Leave()
	}
}
