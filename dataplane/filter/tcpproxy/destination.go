package tcpproxy

import (
	"net/netip"
	"strconv"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// stateDestination is the filter state object that names another destination;
// stateHost and statePort name a host of a dynamic forward proxy.
const (
	stateDestination = "envoy.network.transport_socket.original_dst_address"
	stateHost        = "envoy.upstream.dynamic_host"
	statePort        = "envoy.upstream.dynamic_port"
)

// pick chooses the host of this attempt.
func (s *Session) pick(c *upstream.Cluster) upstream.Choice {
	if d := c.Config().ByDestination; d != nil {
		return c.ChooseDestination(s.destination(c, d), s.conn.Core.Worker.ID)
	}
	if c.Config().ByName != nil {
		return s.pickNamed(c)
	}
	asked := s.asked(c)
	if names := c.Config().Members; len(names) > 0 {
		members := make([]*upstream.Cluster, 0, len(names))
		for _, name := range names {
			if m := s.factory.cluster(name); m != nil {
				members = append(members, m)
			}
		}
		return c.ChooseAmong(members, s.conn.Core.Worker.ID, &asked, s.conn.Info.Hello().ServerName)
	}
	host := c.Choose(s.conn.Core.Worker.ID, &asked)
	s.opening.named = asked.Named
	return host
}

// pickNamed chooses the host that filters name, or else the client
// (DynamicForwardProxy::Cluster::LoadBalancer::chooseHost).
func (s *Session) pickNamed(c *upstream.Cluster) upstream.Choice {
	info := s.conn.Info
	name := info.Hello().ServerName
	if o, ok := info.State()[stateHost]; ok {
		name = o.Value
	}
	if s.factory.config.ForHTTP {
		name = "" // it would be in the request
	}
	port, err := strconv.ParseUint(info.State()[statePort].Value, 10, 16)
	if err != nil {
		port = 0
	}
	return c.ChooseNamed(name, uint16(port), s.conn.Core.Worker.ID)
}

// destination is where the client meant to go: what filters say, or what a listener
// filter restored (OriginalDstCluster::LoadBalancer::chooseHost). It is invalid if
// nobody knows.
func (s *Session) destination(c *upstream.Cluster, d *api.ByDestination) netip.AddrPort {
	info := s.conn.Info
	to := addressOf(info.State()[stateDestination].Value)
	if !to.IsValid() && d.Metadata != nil {
		var value any = map[string]any(info.Metadata()[d.Metadata.Filter])
		for _, key := range d.Metadata.Path {
			m, _ := value.(map[string]any)
			value = m[key]
		}
		text, _ := value.(string)
		if to = addressOf(text); text != "" && !to.IsValid() {
			c.Stats.DestinationInvalid.Inc()
		}
	}
	if !to.IsValid() && info.LocalRestored() {
		to = info.Local()
	}
	if to.IsValid() && d.Port != 0 {
		to = netip.AddrPortFrom(to.Addr(), d.Port)
	}
	return to
}

func addressOf(s string) netip.AddrPort {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
