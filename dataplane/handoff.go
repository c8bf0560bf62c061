package dataplane

import (
	"net/netip"

	"github.com/sluice-proxy/sluice/dataplane/filter"
)

// destinations are the listeners by their addresses, for connections whose
// original destination was restored. Swapped whole, read by every worker.
type destinations map[netip.AddrPort]*listener

// destinationsLocked makes the map anew; listeners with and without sockets of
// their own are in it.
func (p *Plane) destinationsLocked() {
	d := destinations{}
	for _, l := range p.listeners {
		for i := range l.config.Addresses {
			if a := l.config.Addresses[i].Addr; a.IsValid() {
				d[a] = l
			}
		}
	}
	p.destinations.Store(&d)
}

// at finds the listener of an address: the exact one, else that of the
// unspecified address of its family (connection_handler_impl.cc,
// getBalancedHandlerByAddress).
func (d destinations) at(a netip.AddrPort) *listener {
	if l := d[a]; l != nil {
		return l
	}
	any := netip.IPv6Unspecified()
	if a.Addr().Is4() {
		any = netip.IPv4Unspecified()
	}
	return d[netip.AddrPortFrom(any, a.Port())]
}

// handOff gives a socket whose original destination was restored to the listener
// of that address. False says that l keeps it.
func (p *Plane) handOff(l *listener, s *filter.Socket, t ticket) bool {
	if !l.config.UseOriginalDst || !s.Info.LocalRestored() || s.HandedOff {
		return false
	}
	to := (*p.destinations.Load()).at(s.Info.Local())
	if to == nil || to == l {
		return false
	}
	t.back()
	next, ok := p.admit(to, t.worker, false)
	if !ok {
		filter.CloseQuietly(s.FD)
		return true
	}
	s.Info.Listener = to.told(s.Info.Pipe())
	p.inspect(to, next, &filter.Socket{Core: p.cores[next.worker], FD: s.FD, Info: s.Info, Consumed: s.Consumed, Owner: to, HandedOff: true})
	return true
}
