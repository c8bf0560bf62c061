package api

import "time"

// Defaults of Envoy's load balancing policies.
const (
	DefaultMinRingSize        = 1024
	DefaultMaxRingSize        = 1024 * 1024 * 8
	DefaultMaglevTableSize    = 65537
	DefaultZoneMinClusterSize = 6
	DefaultSlowStartMinWeight = 0.1
)

// LBPolicy says how a host is picked.
type LBPolicy uint8

// The policies that are built.
const (
	RoundRobin LBPolicy = iota
	LeastRequest
	Random
	RingHash
	Maglev
)

func (p LBPolicy) String() string {
	switch p {
	case RoundRobin:
		return "ROUND_ROBIN"
	case LeastRequest:
		return "LEAST_REQUEST"
	case Random:
		return "RANDOM"
	case RingHash:
		return "RING_HASH"
	case Maglev:
		return "MAGLEV"
	}
	return "UNKNOWN"
}

// Hashes says that the policy picks by a hash of the connection.
func (p LBPolicy) Hashes() bool { return p == RingHash || p == Maglev }

// Balancing is how a cluster's hosts are picked: what lb_policy and the fields
// that belong to it, or load_balancing_policy, come to.
type Balancing struct {
	Policy LBPolicy
	// EqualWeights leaves the hosts' weights aside.
	EqualWeights bool
	// LocalityWeighted draws a locality by its weight first.
	LocalityWeighted bool
	// Zone matters only where the bootstrap names a local cluster.
	Zone      ZoneAware
	SlowStart SlowStart

	// ChoiceCount, FullScan and ActiveRequestBias are LEAST_REQUEST's: how many
	// hosts are drawn (at least 2) or whether all are looked at, and the power of
	// the open connections that a weight is divided by.
	ChoiceCount       uint32
	FullScan          bool
	ActiveRequestBias float64

	// MinRingSize, MaxRingSize and Murmur are RING_HASH's, TableSize MAGLEV's.
	MinRingSize, MaxRingSize uint64
	Murmur                   bool
	TableSize                uint64
	// HashByName takes a host's name for its address. BalanceFactor bounds a
	// host's load in percent of the mean; 0 is no bound.
	HashByName bool
	// HashPolicy takes the place of what connections bring, unless it is empty.
	HashPolicy    []HashPolicy
	BalanceFactor uint32

	// Subsets and Override narrow the choice; nil leaves it.
	Subsets  *Subsets
	Override *OverrideHost
}

// ZoneAware is zone_aware_lb_config: prefer hosts of the proxy's own locality.
type ZoneAware struct {
	// Enabled is in percent of connections.
	Enabled        uint32
	MinClusterSize uint64
	FailOnPanic    bool
	// ForceLocal is how many hosts the own locality needs to get all traffic
	// whatever its share; 0 means that it is never forced.
	ForceLocal uint32
	// ByWeight takes weights of hosts for their number.
	ByWeight bool
}

// SlowStart gives a host that has just become healthy less; a Window of 0 is off.
type SlowStart struct {
	Window     time.Duration
	Aggression float64
	// MinWeight is the least share of the weight, of 1.
	MinWeight float64
}

// Fallback says what is done when no subset is found.
type Fallback uint8

// The values of LbSubsetFallbackPolicy, and of a selector's.
const (
	FallbackNone Fallback = iota
	FallbackAny
	FallbackDefault
	FallbackKeys
	// FallbackUnset leaves it to the policy of all.
	FallbackUnset
)

// Subsets is lb_subset_config with at least one selector.
type Subsets struct {
	Fallback Fallback
	// Default is what hosts of the default subset have in common.
	Default             map[string]any
	Selectors           []Selector
	AllowRedundantKeys  bool
	LocalityWeightAware bool
	ScaleLocalityWeight bool
	PanicModeAny        bool
	ListAsAny           bool
	// FallbackList tries the entries of `fallback_list` in turn.
	FallbackList bool
}

// Selector makes a subset of every combination of values of its keys, which are
// sorted.
type Selector struct {
	Keys       []string
	Fallback   Fallback
	KeysSubset []string
	SingleHost bool
}

// OverrideHost takes the hosts that metadata of the connection names before any
// other.
type OverrideHost struct {
	Sources []MetadataKey
	// Selected is where the address of the host that was picked goes; nil is
	// nowhere.
	Selected *MetadataKey
}

// MetadataKey is a place in dynamic metadata.
type MetadataKey struct {
	Filter string
	Path   []string
}

// Place is a locality's name.
type Place struct{ Region, Zone, SubZone string }

// Less is Envoy's order of localities.
func (p Place) Less(o Place) bool {
	if p.Region != o.Region {
		return p.Region < o.Region
	}
	if p.Zone != o.Zone {
		return p.Zone < o.Zone
	}
	return p.SubZone < o.SubZone
}

// Drop is the one category of drop_overloads: connections are turned away at
// random.
type Drop struct {
	Category string
	// Share is of 1.
	Share float64
}
