package api

import "time"

// OnDemand is tcp_proxy's on_demand: where a cluster that is not known is asked
// for, and how long a connection waits for it.
type OnDemand struct {
	Source  ConfigSource
	Timeout time.Duration
}

// Demand is a connection's wish for a cluster that is not in force. Where the
// cluster is asked for already, the timeout of who asked first holds.
type Demand struct {
	Cluster string
	*OnDemand
}

// DemandOutcome is what became of a Demand.
type DemandOutcome uint8

// The outcomes. Missing is what the control plane said, Late that it said nothing
// in time.
const (
	Available DemandOutcome = iota
	Missing
	Late
)
