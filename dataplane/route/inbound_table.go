package route

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
)

// InboundPolicy is what the operator wants captured of what comes in.
type InboundPolicy struct {
	// All captures every port that is not excluded, else Ports are captured.
	All                 bool
	Ports, ExcludePorts []uint16
	// RefuseIdle refuses what is to be captured while no listener can take it.
	RefuseIdle bool
}

// ParseInboundPolicy reads the flags: ports is all or a list as of excludePorts
// (80,443,8000-8010).
func ParseInboundPolicy(ports, excludePorts string) (InboundPolicy, error) {
	var p InboundPolicy
	var err error
	if ports == "all" {
		p.All = true
	} else if p.Ports, err = parsePorts(ports); err == nil && len(p.Ports) == 0 {
		err = fmt.Errorf("%q: %w", ports, errNoPort)
	}
	if err != nil {
		return p, fmt.Errorf("read --capture-inbound-ports: %w", err)
	}
	if p.ExcludePorts, err = parsePorts(excludePorts); err != nil {
		return p, fmt.Errorf("read --capture-inbound-exclude-ports: %w", err)
	}
	return p, nil
}

var errNoPort = errors.New("neither all nor a port")

// InboundTable is one generation of what is captured of what comes in. Immutable
// once built.
type InboundTable struct {
	kernel     bpf.InboundTable
	generation uint64
	// listener takes what is captured; targets are the addresses of its sockets,
	// by the kernel's number.
	listener string
	targets  []netip.AddrPort
	// Idle says why nothing is captured, if so.
	Idle string
}

// NoInboundListener is why nothing is captured before there is who could take it.
const NoInboundListener = "no bound listener is INBOUND and has use_original_dst or the original_dst filter"

var (
	any4 = netip.IPv4Unspecified()
	any6 = netip.IPv6Unspecified()
)

// BuildInbound makes the table of listeners in force. sockets holds one for each
// bound address.
func BuildInbound(generation uint64, ls []*Listener, sockets map[netip.AddrPort]bpf.ListeningSocket, p *InboundPolicy) *InboundTable {
	t := &InboundTable{generation: generation}
	slices.SortFunc(ls, func(a, b *Listener) int { return strings.Compare(a.Name, b.Name) })
	catch := inboundCatcher(ls)
	verdict, families := bpf.VerdictCapture, map[netip.Addr]int{}
	switch {
	case catch != nil:
		t.listener = catch.Name
		families = t.addSockets(catch, sockets)
	case !p.RefuseIdle:
		t.Idle = NoInboundListener
		return t
	default:
		t.Idle, verdict = NoInboundListener, bpf.VerdictRefuse
		families[any4], families[any6] = 0, 0
	}
	entries := map[netip.AddrPort]bpf.InboundEntry{} // a later one takes the place of one about the same
	add := func(a netip.Addr, port uint16, v bpf.Verdict, socket int) {
		to := netip.AddrPortFrom(a.Unmap(), port)
		entries[to] = bpf.InboundEntry{To: to, Verdict: v, Socket: socket}
	}
	ports := p.Ports
	if p.All {
		ports = []uint16{0}
	}
	for _, port := range ports {
		for any, socket := range families {
			add(any, port, verdict, socket)
		}
	}
	for _, port := range p.ExcludePorts {
		add(any4, port, bpf.VerdictPass, 0)
		add(any6, port, bpf.VerdictPass, 0)
	}
	// Who connects to a socket of ours means that one.
	for _, l := range ls {
		for j, at := range l.Bound {
			if !at.IsValid() || at.Addr().IsLoopback() {
				continue // nothing from outside gets there
			}
			add(at.Addr(), at.Port(), bpf.VerdictPass, 0)
			if at.Addr() == any6 && l.Addresses[j].IPv4Compat {
				add(any4, at.Port(), bpf.VerdictPass, 0)
			}
		}
	}
	t.kernel.Entries = slices.SortedFunc(maps.Values(entries), func(a, b bpf.InboundEntry) int { return a.To.Compare(b.To) })
	return t
}

// inboundCatcher is the listener that takes what is captured: the first with
// use_original_dst, else the first with the filter.
func inboundCatcher(ls []*Listener) *Listener {
	var found *Listener
	for _, l := range ls {
		if l.HandedOnly || l.Direction != api.Inbound || !slices.ContainsFunc(l.Bound, netip.AddrPort.IsValid) {
			continue
		}
		if l.UseOriginalDst {
			return l
		}
		if found == nil && slices.ContainsFunc(l.ListenerFilters, func(f api.ListenerFilter) bool { return f.OriginalDst != nil }) {
			found = l
		}
	}
	return found
}

// addSockets chooses a socket for each family, which is named by its unspecified
// address.
func (t *InboundTable) addSockets(l *Listener, sockets map[netip.AddrPort]bpf.ListeningSocket) map[netip.Addr]int {
	families := map[netip.Addr]int{}
	for i, at := range l.Bound {
		s, ok := sockets[at]
		if !ok {
			continue
		}
		takes := []netip.Addr{any6}
		switch {
		case at.Addr().Unmap().Is4():
			takes = []netip.Addr{any4}
		case l.Addresses[i].IPv4Compat:
			takes = []netip.Addr{any6, any4}
		}
		for _, family := range takes {
			if _, has := families[family]; has {
				continue
			}
			if n := len(t.targets); n == 0 || t.targets[n-1] != at {
				t.targets = append(t.targets, at)
				t.kernel.Sockets = append(t.kernel.Sockets, s)
			}
			families[family] = len(t.targets) - 1
		}
	}
	return families
}

// Equal tells whether t and o decide alike, for the same sockets.
func (t *InboundTable) Equal(o *InboundTable) bool {
	return t.Idle == o.Idle && t.listener == o.listener && slices.Equal(t.targets, o.targets) &&
		slices.Equal(t.kernel.Entries, o.kernel.Entries) && slices.Equal(t.kernel.Sockets, o.kernel.Sockets)
}

// Find decides as the program in the kernel does (bpf/inbound.bpf.c), but for
// what only it knows: who connects, and whether anybody listens.
func (t *InboundTable) Find(to netip.AddrPort) api.RouteDecision {
	to = netip.AddrPortFrom(to.Addr().Unmap().WithZone(""), to.Port())
	d := api.RouteDecision{Destination: to, Verdict: bpf.VerdictPass.String()}
	any := any6
	if to.Addr().Is4() {
		any = any4
	}
	e := t.at(to)
	if e == nil {
		e = t.at(netip.AddrPortFrom(any, to.Port()))
	}
	if e == nil {
		e = t.at(netip.AddrPortFrom(any, 0))
	}
	switch {
	case to.Addr().IsLoopback():
		d.Reason = "loopback addresses pass"
	case t.Idle != "":
		d.Reason = t.Idle
		if e != nil {
			d.Verdict = e.Verdict.String()
		}
	case e == nil:
		d.Reason = "the port is not captured"
	default:
		s := t.route(e)
		d.Route, d.Verdict = &s, s.Verdict
		d.Reason = fmt.Sprintf("inbound %v port %d", s.Prefix, s.Port)
		if s.Port == 0 {
			d.Reason = fmt.Sprintf("inbound %v any port", s.Prefix)
		}
	}
	return d
}

func (t *InboundTable) at(to netip.AddrPort) *bpf.InboundEntry {
	for i := range t.kernel.Entries {
		if e := &t.kernel.Entries[i]; e.To == to {
			return e
		}
	}
	return nil
}

func (t *InboundTable) status() []api.RouteStatus {
	var out []api.RouteStatus
	for i := range t.kernel.Entries {
		out = append(out, t.route(&t.kernel.Entries[i]))
	}
	return out
}

func (t *InboundTable) route(e *bpf.InboundEntry) api.RouteStatus {
	s := api.RouteStatus{Prefix: prefixOf(e.To.Addr()), Port: e.To.Port(), Verdict: e.Verdict.String()}
	if e.Verdict == bpf.VerdictCapture {
		s.Listener, s.Target = t.listener, t.targets[e.Socket]
	}
	return s
}
