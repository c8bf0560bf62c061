package dataplane

import (
	"log/slog"
	"net/netip"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/filter/originaldst"
	"github.com/sluice-proxy/sluice/dataplane/match"
	"github.com/sluice-proxy/sluice/dataplane/route"
)

// routeLocked tells the routes of a listener that came in force, or whose sockets
// changed.
func (p *Plane) routeLocked(l *listener) {
	if p.capture == nil {
		return
	}
	to := route.Listener{Listener: l.config}
	for i := range l.config.Addresses {
		var at netip.AddrPort // stays invalid for what is not bound
		if b := p.sockets[l.config.PlaceKey(i)]; b != nil && !l.config.HandedOnly {
			at = b.sockets.Bound.Addr
		}
		to.Bound = append(to.Bound, at)
	}
	p.capture.Set(&to)
}

// swapRoutesLocked puts the routes in force that a snapshot asks for: once its
// listeners are in, and before those that it does not have go. Routes that cannot
// be swapped leave the old ones, which are good for every listener that stays; it
// returns false then.
func (p *Plane) swapRoutesLocked(generation uint64, leaving []*listener) bool {
	if p.capture == nil {
		return true
	}
	for _, l := range leaving {
		p.capture.Remove(l.config.Name)
	}
	was := p.capture.Full()
	if err := p.capture.Swap(generation); err != nil {
		p.log.Error("swap routes, the old ones stay", "error", err)
		p.captureStats.Counter("swap_failed").Inc()
		return false
	}
	if full := p.capture.Full(); full != was {
		p.log.Error("routes do not fit, fewer are in force", "reason", full)
	}
	return true
}

// originalDst is the filter that restores what clients meant, whether a REDIRECT
// rule or capture brought them.
func (p *Plane) originalDst() originaldst.Factory {
	if p.capture == nil {
		return originaldst.Factory{}
	}
	return originaldst.Factory{Captured: p.capture.Origin}
}

// Capture is what becomes of connections that captured programs open, and of
// those that come from outside.
func (p *Plane) Capture() api.CaptureStatus {
	var s api.CaptureStatus
	if p.capture != nil {
		s = p.capture.Status()
	}
	if p.inbound != nil {
		in := p.inbound.Status()
		s.Inbound = &in
	}
	return s
}

// Route says what becomes of a captured program's connection to a destination:
// which listener serves it, by which chain. False: capture is off.
func (p *Plane) Route(to netip.AddrPort) (api.RouteDecision, bool) {
	if p.capture == nil {
		return api.RouteDecision{}, false
	}
	d := p.capture.Find(to)
	if l := p.routed(d); l != nil {
		served(&d, l)
	}
	return d, true
}

// routed is the listener that a decision names, if it names one that is there.
func (p *Plane) routed(d api.RouteDecision) *listener {
	if d.Route == nil || d.Route.Listener == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.listeners[d.Route.Listener]
}

// served adds to a decision the chain of a listener that serves it, as far as the
// destination tells: nothing is known of the client.
func served(d *api.RouteDecision, l *listener) {
	if c := l.index.Find(&match.Connection{Local: d.Destination}); c != nil {
		d.Chain, d.Cluster = c.Name, route.Cluster(c)
	} else {
		d.Reason += "; no filter chain matches by the destination alone"
	}
}

// flushCapture copies what the hooks counted to the store, under `capture.`.
func (p *Plane) flushCapture() {
	if p.capture == nil {
		return
	}
	s := p.capture.Status()
	sc := p.captureStats
	sc.Gauge("routes").Set(uint64(len(s.Routes)))
	sc.Gauge("generation").Set(s.Generation)
	sc.Gauge("swaps").Set(s.Swaps)
	sc.Gauge("last_swap_us").Set(uint64(s.LastSwap.Microseconds()))
	sc.Gauge("swaps_full").Set(s.FullSwaps)
	for name, n := range s.Outcomes {
		sc.Gauge(name).Set(n)
	}
}

func logPins(log *slog.Logger, what, dir, taken string) {
	if taken != "" {
		log.Info(what, "directory", dir, "pins", taken)
	}
}
