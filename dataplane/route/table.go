// Package route makes the kernel's routes of listeners: what becomes of a
// connection that a captured program opens. A listener in force that is bound
// and has use_original_dst takes what is captured (Istio's and Kuma's 15001),
// and hands it to the listener of the original destination, if there is one.
package route

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

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
	// names by the numbers of the kernel's routes; 0 is none.
	listeners, clusters, policies []string
	// Idle says why nothing is captured, if so. What was to be passes, or is
	// refused.
	Idle    string
	refuses bool
	// Full says what did not fit, if anything.
	Full string
}

// NoListener is why nothing is captured before there is who could take it.
const NoListener = "no bound listener has use_original_dst"

// refuse is what becomes of what nobody can take, if the policy wants it so.
const refuse = "refuse"

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
		if t.refuses && r != nil && r.Verdict == bpf.VerdictCapture {
			d.Verdict = refuse
		}
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
		if r.Port == port && r.Prefix.Contains(a) && (best == nil || r.Prefix.Bits() > best.Prefix.Bits()) {
			best = r
		}
	}
	return best
}

func (t *Table) status(r *bpf.Route) api.RouteStatus {
	s := api.RouteStatus{
		Prefix: r.Prefix, Port: r.Port, Verdict: r.Verdict.String(),
		Listener: t.listeners[r.Listener], Cluster: t.clusters[r.Cluster], Policy: t.policies[r.Policy],
	}
	switch {
	case r.Verdict == bpf.VerdictCapture && t.refuses:
		s.Verdict = refuse
	case r.Verdict == bpf.VerdictCapture:
		s.Target = t.kernel.Targets[r.Target]
	}
	return s
}

// routes are all of them, by listener, prefix and port.
func (t *Table) routes() []api.RouteStatus {
	out := make([]api.RouteStatus, 0, len(t.kernel.Routes))
	for i := range t.kernel.Routes {
		out = append(out, t.status(&t.kernel.Routes[i]))
	}
	slices.SortFunc(out, func(a, b api.RouteStatus) int {
		return cmp.Or(strings.Compare(a.Listener, b.Listener), a.Prefix.Addr().Compare(b.Prefix.Addr()),
			cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), cmp.Compare(a.Port, b.Port))
	})
	return out
}
