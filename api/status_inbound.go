package api

import "time"

// InboundStatus is what becomes of connections that come to this process's
// network namespace from outside.
type InboundStatus struct {
	// Namespace is written as /proc/PID/ns/net is.
	Namespace string
	// Generation is that of the snapshot that the table in force was made of.
	Generation uint64
	// Idle says why nothing is captured, if so.
	Idle string
	// Entries: the one of the connection's very address and port decides, else the
	// one of its port, else the one of port 0.
	Entries []RouteStatus
	// Swaps counts the tables put in force; LastSwap is how long the last took.
	Swaps    uint64
	LastSwap time.Duration
	// Hooks are those in the kernel; Pins is what became of pins that were there.
	Hooks []HookStatus
	Pins  string
	// Outcomes counts how the kernel's look-ups ended, by name.
	Outcomes map[string]uint64
}
