package api

import "github.com/sluice-proxy/sluice/api/substitution"

// SetFilterState is envoy.filters.network.set_filter_state: objects that are set
// in the order given, when the connection comes and when its first bytes do.
type SetFilterState struct {
	OnConnection, OnData []FilterStateValue
}

// FilterStateValue makes one filter state object.
type FilterStateValue struct {
	Key  string
	Kind ObjectKind
	// Text or, if it is not nil, JSON is printed into the object.
	Text substitution.Format
	JSON *substitution.Node
	// OmitEmpty prints nothing where there is no value.
	OmitEmpty bool
	// SkipIfEmpty leaves the object alone where nothing at all is printed.
	SkipIfEmpty bool
	Shared      ObjectSharing
}

// ObjectKind says what an object takes; what it does not take is not set.
type ObjectKind uint8

// The kinds of objects.
const (
	ObjectText ObjectKind = iota
	ObjectNumber
	ObjectIP
	// ObjectAddress is an address with a port.
	ObjectAddress
	// ObjectHashable is text that a hash policy takes.
	ObjectHashable
)

// ObjectSharing is with whom upstream an object is shared.
type ObjectSharing uint8

// The ways to share, with the numbers of the proto.
const (
	SharedWithNobody ObjectSharing = iota
	SharedOnce
	SharedTransitively
)

// SNICluster is envoy.filters.network.sni_cluster: the server name is the name of
// tcp_proxy's cluster.
type SNICluster struct{}
