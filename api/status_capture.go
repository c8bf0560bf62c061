package api

import (
	"net/netip"
	"time"
)

// CaptureStatus is what becomes of the connections that captured programs open.
type CaptureStatus struct {
	// Cgroup is the directory of the cgroup whose programs are captured; empty
	// means that capture is off.
	Cgroup string
	// Generation is that of the snapshot that the routes in force were made of.
	Generation uint64
	// Idle says why nothing is captured, if so.
	Idle string
	// Exclude passes, whatever the routes say.
	Exclude []netip.Prefix
	Routes  []RouteStatus
	// Swaps counts the tables put in force; LastSwap is how long the last took,
	// from filling it to the kernel's answer.
	Swaps    uint64
	LastSwap time.Duration
	// Full says which routes do not fit, if so, and FullSwaps counts the tables that
	// were in that case.
	Full      string
	FullSwaps uint64
	// Hooks are attached to Cgroup, or to that of programs that accept.
	Hooks []HookStatus
	// OnExit is what connections get when the process is gone; Pin is the directory
	// of pins, or empty; Pins is what became of those that were there.
	OnExit, Pin, Pins string
	// Outcomes counts how the kernel's hooks ended, by name.
	Outcomes map[string]uint64
	// Inbound is nil where inbound capture is off.
	Inbound *InboundStatus
}

// HookStatus is a hook in the kernel, by its link's number.
type HookStatus struct {
	Name string
	Link uint32
	// At is the cgroup's directory, or the network namespace.
	At string
}

// RouteStatus is one route. Among those of a connection's port, or else those of
// port 0, the longest prefix decides.
type RouteStatus struct {
	Prefix  netip.Prefix
	Port    uint16 // 0: any
	Verdict string // capture, pass or refuse
	// Listener serves what is captured; Target is the socket that it goes to.
	Listener string
	// Cluster is where it goes if the listener has one cluster for all.
	Cluster string
	// Policy names the kinds of filters that say who may connect there, if any do.
	Policy string
	Target netip.AddrPort
}

// RouteDecision is what becomes of a connection to one destination.
type RouteDecision struct {
	Destination netip.AddrPort
	Verdict     string
	Reason      string
	// Route is nil if none decided.
	Route *RouteStatus
	// Chain and Cluster are those of a connection of which nothing but the
	// destination is known (no server name, plain text).
	Chain, Cluster string
}
