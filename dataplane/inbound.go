package dataplane

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/dataplane/route"
)

// swapInboundLocked captures for the listeners that stay. Its place is that of
// swapRoutesLocked, and so is what it returns. The sockets come with it: an address may have got others.
func (p *Plane) swapInboundLocked(generation uint64, leaving []*listener) bool {
	if p.inbound == nil {
		return true
	}
	ls, sockets := map[*listener]*route.Listener{}, map[netip.AddrPort]bpf.ListeningSocket{}
	for _, b := range p.sockets {
		l, bound := b.owner.Load(), b.sockets.Bound
		if bound.Path != "" || p.listeners[l.config.Name] != l || slices.Contains(leaving, l) {
			continue
		}
		fd := b.sockets.Descriptors()[0] // stands for the others of its group
		cookie, err := bpf.Cookie(fd)
		if err != nil {
			p.log.Error("capture inbound for a listener", "address", bound, "error", err)
			continue
		}
		sockets[bound.Addr] = bpf.ListeningSocket{FD: fd, Cookie: cookie}
		if ls[l] == nil {
			ls[l] = &route.Listener{Listener: l.config, Bound: make([]netip.AddrPort, len(l.config.Addresses))}
		}
		for i := range l.config.Addresses {
			if p.sockets[l.config.PlaceKey(i)] == b {
				ls[l].Bound[i] = bound.Addr
			}
		}
	}
	if err := p.inbound.Swap(generation, slices.Collect(maps.Values(ls)), sockets); err != nil {
		p.log.Error("swap what is captured inbound, the old stays", "error", err)
		p.captureStats.Counter("inbound.swap_failed").Inc()
		return false
	}
	return true
}

// InboundRoute says what becomes of a connection that comes from outside to an
// address: which listener takes it, and which one serves it, by which chain.
// False: inbound capture is off.
func (p *Plane) InboundRoute(to netip.AddrPort) (api.RouteDecision, bool) {
	if p.inbound == nil {
		return api.RouteDecision{}, false
	}
	d := p.inbound.Find(to)
	l := p.routed(d)
	if l == nil {
		return d, true
	}
	if next := (*p.destinations.Load()).at(d.Destination); next != nil && next != l && l.config.UseOriginalDst {
		l, d.Route.Listener = next, next.config.Name
	}
	served(&d, l)
	return d, true
}

// flushInbound copies what the program counted to the store, under
// `capture.inbound.`.
func (p *Plane) flushInbound() {
	if p.inbound == nil {
		return
	}
	s, sc := p.inbound.Status(), p.captureStats
	sc.Gauge("inbound.entries").Set(uint64(len(s.Entries)))
	sc.Gauge("inbound.generation").Set(s.Generation)
	sc.Gauge("inbound.swaps").Set(s.Swaps)
	sc.Gauge("inbound.last_swap_us").Set(uint64(s.LastSwap.Microseconds()))
	for name, n := range s.Outcomes {
		sc.Gauge(name).Set(n)
	}
}
