package admin

import (
	"net/netip"

	"github.com/sluice-proxy/sluice/api"
)

// CaptureJSON is the answer of /routes, which is Sluice's own, in the words of
// api.CaptureStatus.
type CaptureJSON struct {
	Cgroup     string            `json:"cgroup"`
	Generation uint64            `json:"generation"`
	Idle       string            `json:"idle,omitempty"`
	Exclude    []string          `json:"exclude"`
	Routes     []RouteJSON       `json:"routes"`
	Swaps      uint64            `json:"swaps"`
	LastSwapUS int64             `json:"last_swap_us"`
	Full       string            `json:"full,omitempty"`
	FullSwaps  uint64            `json:"full_swaps"`
	OnExit     string            `json:"on_exit,omitempty"`
	Pin        string            `json:"pin,omitempty"`
	Pins       string            `json:"pins,omitempty"`
	Hooks      []HookJSON        `json:"hooks"`
	Outcomes   map[string]uint64 `json:"outcomes"`
	Inbound    *InboundJSON      `json:"inbound,omitempty"`
}

// InboundJSON is what it says of connections from outside, in the words of
// api.InboundStatus.
type InboundJSON struct {
	Namespace  string            `json:"namespace"`
	Generation uint64            `json:"generation"`
	Idle       string            `json:"idle,omitempty"`
	Entries    []RouteJSON       `json:"entries"`
	Swaps      uint64            `json:"swaps"`
	LastSwapUS int64             `json:"last_swap_us"`
	Pins       string            `json:"pins,omitempty"`
	Hooks      []HookJSON        `json:"hooks"`
	Outcomes   map[string]uint64 `json:"outcomes"`
}

// HookJSON is one hook in the kernel.
type HookJSON struct {
	Name string `json:"name"`
	Link uint32 `json:"link"`
	At   string `json:"at,omitempty"`
}

// RouteJSON is one route of it.
type RouteJSON struct {
	Prefix   string `json:"prefix"`
	Port     uint16 `json:"port"`
	Verdict  string `json:"verdict"`
	Listener string `json:"listener,omitempty"`
	Cluster  string `json:"cluster,omitempty"`
	Policy   string `json:"policy,omitempty"`
	Target   string `json:"target,omitempty"`
}

// DecisionJSON is the answer of /routes?destination= and ?inbound=.
type DecisionJSON struct {
	Destination string     `json:"destination"`
	Verdict     string     `json:"verdict"`
	Reason      string     `json:"reason"`
	Route       *RouteJSON `json:"route,omitempty"`
	Chain       string     `json:"chain,omitempty"`
	Cluster     string     `json:"cluster,omitempty"`
}

func (s *Server) captureRoutes(a *answer, q query) {
	name, decide, flag := "destination", s.o.Plane.Route, "--capture-cgroup"
	to, asked := q.get(name)
	if in, is := q.get("inbound"); is {
		name, decide, flag = "inbound", s.o.Plane.InboundRoute, "--capture-inbound-ports"
		to, asked = in, true
	}
	if !asked {
		writeValue(a, captureOf(s.o.Plane.Capture()))
		return
	}
	at, err := netip.ParseAddrPort(to)
	if err != nil {
		a.fail(400, "read %s: %q is no address with port\n", name, to)
		return
	}
	d, on := decide(at)
	if !on {
		a.fail(400, "capture is off: %s is not given\n", flag)
		return
	}
	out := DecisionJSON{Destination: d.Destination.String(), Verdict: d.Verdict, Reason: d.Reason, Chain: d.Chain, Cluster: d.Cluster}
	if d.Route != nil {
		r := routeOf(*d.Route)
		out.Route = &r
	}
	writeValue(a, out)
}

func captureOf(c api.CaptureStatus) CaptureJSON {
	out := CaptureJSON{
		Cgroup: c.Cgroup, Generation: c.Generation, Idle: c.Idle, Swaps: c.Swaps, LastSwapUS: c.LastSwap.Microseconds(),
		Exclude: []string{}, Routes: []RouteJSON{}, Outcomes: c.Outcomes,
		Full: c.Full, FullSwaps: c.FullSwaps, OnExit: c.OnExit, Pin: c.Pin, Pins: c.Pins, Hooks: hooksOf(c.Hooks),
	}
	for _, p := range c.Exclude {
		out.Exclude = append(out.Exclude, p.String())
	}
	for _, r := range c.Routes {
		out.Routes = append(out.Routes, routeOf(r))
	}
	if in := c.Inbound; in != nil {
		out.Inbound = &InboundJSON{Namespace: in.Namespace, Generation: in.Generation, Idle: in.Idle, Entries: []RouteJSON{}, Swaps: in.Swaps, LastSwapUS: in.LastSwap.Microseconds(), Outcomes: in.Outcomes, Pins: in.Pins, Hooks: hooksOf(in.Hooks)}
		for _, r := range in.Entries {
			out.Inbound.Entries = append(out.Inbound.Entries, routeOf(r))
		}
	}
	return out
}

func hooksOf(hooks []api.HookStatus) []HookJSON {
	out := []HookJSON{}
	for _, h := range hooks {
		out = append(out, HookJSON(h))
	}
	return out
}

func routeOf(r api.RouteStatus) RouteJSON {
	j := RouteJSON{Prefix: r.Prefix.String(), Port: r.Port, Verdict: r.Verdict, Listener: r.Listener, Cluster: r.Cluster, Policy: r.Policy}
	if r.Target.IsValid() {
		j.Target = r.Target.String()
	}
	return j
}
