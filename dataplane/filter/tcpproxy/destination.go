package tcpproxy

import (
	"net/netip"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// stateDestination is the filter state object that names another destination.
const stateDestination = "envoy.network.transport_socket.original_dst_address"

// pick chooses the host of this attempt.
func (s *Session) pick(c *upstream.Cluster) upstream.Choice {
	if d := c.Config().ByDestination; d != nil {
		return c.ChooseDestination(s.destination(c, d), s.conn.Core.Worker.ID)
	}
	asked := s.asked(c)
	if names := c.Config().Members; len(names) > 0 {
		members := make([]*upstream.Cluster, 0, len(names))
		for _, name := range names {
			if m := s.factory.cluster(name); m != nil {
				members = append(members, m)
			}
		}
		return c.ChooseAmong(members, s.conn.Core.Worker.ID, &asked)
	}
	host := c.Choose(s.conn.Core.Worker.ID, &asked)
	s.opening.named = asked.Named
	return host
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
