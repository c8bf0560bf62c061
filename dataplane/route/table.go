// Package route makes the kernel's routes of listeners: what becomes of a
// connection that a captured program opens. A listener in force that is bound
// and has use_original_dst takes what is captured (Istio's and Kuma's 15001),
// and hands it to the listener of the original destination, if there is one.
package route

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
)

// Listener is one that is in force.
type Listener struct {
	*api.Listener
	// Bound are the addresses that its sockets have, port 0 replaced.
	Bound []netip.AddrPort
}

// Table is one generation of routes, with the names that they stand for.
// Immutable once built.
type Table struct {
	kernel bpf.RouteTable
	// names of listeners and clusters by the numbers of the kernel's routes; 0 is
	// none.
	listeners, clusters []string
	// Idle says why nothing is captured, if so.
	Idle string
}

var (
	all4 = netip.MustParsePrefix("0.0.0.0/0")
	all6 = netip.MustParsePrefix("::/0")
)

// NoListener is why nothing is captured before there is who could take it.
const NoListener = "no bound listener has use_original_dst"

// Build makes the routes of listeners in force, sorted by name.
func Build(generation uint64, ls []Listener, p *Policy) *Table {
	t := &Table{listeners: []string{""}, clusters: []string{""}}
	t.kernel.Generation = generation
	t.kernel.Exclude = append(slices.Clip(local), p.Exclude...)
	catch := catcher(ls)
	if catch == nil {
		t.Idle = NoListener
		return t
	}
	targets := t.addTargets(catch)
	own := t.number(catch.Listener)
	ports := p.Ports
	if p.All {
		ports = []uint16{0}
	}
	for _, port := range ports {
		t.capture(all4, port, own, targets)
		t.capture(all6, port, own, targets)
	}
	for i := range ls {
		l := &ls[i]
		// The others' sockets can be reached without us.
		if l.Listener == catch.Listener || !l.HandedOnly {
			continue
		}
		number := t.number(l.Listener)
		for j := range l.Addresses {
			a := l.Addresses[j].Addr
			if !a.IsValid() || a.Port() == 0 || len(p.Ports) > 0 && !slices.Contains(p.Ports, a.Port()) {
				continue
			}
			t.capture(prefixOf(a.Addr()), a.Port(), number, targets)
		}
	}
	t.kernel.Routes = slices.DeleteFunc(t.kernel.Routes, func(r bpf.Route) bool { return slices.Contains(p.ExcludePorts, r.Port) })
	for _, port := range p.ExcludePorts {
		for _, all := range []netip.Prefix{all4, all6} {
			t.kernel.Routes = append(t.kernel.Routes, bpf.Route{Prefix: all, Port: port, Verdict: bpf.VerdictPass})
		}
	}
	return t
}

// catcher is the listener that takes what is captured: the outbound one, else
// the first that is not inbound.
func catcher(ls []Listener) *Listener {
	var found *Listener
	for i := range ls {
		l := &ls[i]
		if l.HandedOnly || !l.UseOriginalDst || l.Direction == api.Inbound || len(l.Bound) == 0 {
			continue
		}
		if l.Direction == api.Outbound {
			return l
		}
		if found == nil {
			found = l
		}
	}
	return found
}

// targets are numbers of sockets by family; -1: there is none.
type targets struct{ v4, v6 int }

func (t *Table) addTargets(l *Listener) targets {
	out := targets{-1, -1}
	add := func(slot *int, a netip.Addr, port uint16) {
		if *slot < 0 {
			*slot = len(t.kernel.Targets)
			t.kernel.Targets = append(t.kernel.Targets, netip.AddrPortFrom(a, port))
		}
	}
	for i, b := range l.Bound {
		a := b.Addr()
		switch {
		case !b.IsValid():
		case a == netip.IPv4Unspecified():
			add(&out.v4, netip.AddrFrom4([4]byte{127, 0, 0, 1}), b.Port())
		case a == netip.IPv6Unspecified():
			add(&out.v6, netip.IPv6Loopback(), b.Port())
			if i < len(l.Addresses) && l.Addresses[i].IPv4Compat {
				add(&out.v4, netip.AddrFrom4([4]byte{127, 0, 0, 1}), b.Port())
			}
		case a.Unmap().Is4():
			add(&out.v4, a.Unmap(), b.Port())
		default:
			add(&out.v6, a, b.Port())
		}
	}
	return out
}

// number gives a listener its number, and notes its cluster.
func (t *Table) number(l *api.Listener) bpf.Route {
	t.listeners = append(t.listeners, l.Name)
	r := bpf.Route{Verdict: bpf.VerdictCapture, Listener: uint32(len(t.listeners) - 1)}
	if c := onlyCluster(l); c != "" {
		i := slices.Index(t.clusters, c)
		if i < 0 {
			i = len(t.clusters)
			t.clusters = append(t.clusters, c)
		}
		r.Cluster = uint32(i)
	}
	return r
}

func (t *Table) capture(prefix netip.Prefix, port uint16, r bpf.Route, to targets) {
	target := to.v4
	if prefix.Addr().Is6() {
		target = to.v6
	}
	if target < 0 {
		return
	}
	r.Prefix, r.Port, r.Target = prefix, port, uint32(target)
	t.kernel.Routes = append(t.kernel.Routes, r)
}

// prefixOf is what a listener's address stands for: 0.0.0.0 and :: for every
// address of the family.
func prefixOf(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	switch a {
	case netip.IPv4Unspecified():
		return all4
	case netip.IPv6Unspecified():
		return all6
	}
	return netip.PrefixFrom(a, a.BitLen())
}

// onlyCluster is the cluster that all chains of a listener proxy to, or empty.
func onlyCluster(l *api.Listener) string {
	only := ""
	for _, c := range append(slices.Clip(l.FilterChains), l.DefaultFilterChain) {
		if c == nil {
			continue
		}
		name := Cluster(c)
		if name == "" || only != "" && name != only {
			return ""
		}
		only = name
	}
	return only
}

// Cluster is the one cluster of a chain's tcp_proxy, or empty.
func Cluster(c *api.FilterChain) string {
	if n := len(c.Filters); n > 0 && c.Filters[n-1].TCPProxy != nil {
		return c.Filters[n-1].TCPProxy.Cluster
	}
	return ""
}

// Equal tells whether t and o decide alike.
func (t *Table) Equal(o *Table) bool {
	return o != nil && t.Idle == o.Idle && slices.Equal(t.kernel.Exclude, o.kernel.Exclude) && slices.Equal(t.kernel.Routes, o.kernel.Routes) &&
		slices.Equal(t.kernel.Targets, o.kernel.Targets) && slices.Equal(t.listeners, o.listeners) && slices.Equal(t.clusters, o.clusters)
}

// Find decides as the hook in the kernel does (bpf/route.bpf.c, decide), but for
// what only it knows: who connects, and whether anybody listens.
func (t *Table) Find(to netip.AddrPort) api.RouteDecision {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	d := api.RouteDecision{Destination: to, Verdict: bpf.VerdictPass.String()}
	for _, p := range t.kernel.Exclude {
		if p.Contains(to.Addr()) {
			d.Reason = fmt.Sprintf("%v is excluded", p)
			return d
		}
	}
	r := t.longest(to.Addr(), to.Port())
	if r == nil {
		r = t.longest(to.Addr(), 0)
	}
	switch {
	case t.Idle != "":
		d.Reason = t.Idle
	case r == nil:
		d.Reason = "no route"
	default:
		s := t.status(r)
		d.Route, d.Verdict, d.Cluster = &s, s.Verdict, s.Cluster
		d.Reason = fmt.Sprintf("route %v port %d", r.Prefix, r.Port)
		if r.Port == 0 {
			d.Reason = fmt.Sprintf("route %v any port", r.Prefix)
		}
	}
	return d
}

func (t *Table) longest(a netip.Addr, port uint16) *bpf.Route {
	var best *bpf.Route
	for i := range t.kernel.Routes {
		r := &t.kernel.Routes[i]
		// The last of two equal ones is the one in the map.
		if r.Port == port && r.Prefix.Contains(a) && (best == nil || r.Prefix.Bits() >= best.Prefix.Bits()) {
			best = r
		}
	}
	return best
}

func (t *Table) status(r *bpf.Route) api.RouteStatus {
	s := api.RouteStatus{Prefix: r.Prefix, Port: r.Port, Verdict: r.Verdict.String(), Listener: t.listeners[r.Listener], Cluster: t.clusters[r.Cluster]}
	if r.Verdict == bpf.VerdictCapture {
		s.Target = t.kernel.Targets[r.Target]
	}
	return s
}
