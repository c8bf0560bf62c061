package api

import "net/netip"

// ClusterLoad is what a cluster's hosts were given over a time, as load reports tell
// it.
type ClusterLoad struct {
	// ServiceName is Cluster's.
	ServiceName string
	// Localities are by priority, the proxy's own first in each, then in the order of
	// their names; those without any load are left out.
	Localities []LocalityLoad
}

// LocalityLoad is that of the hosts of one locality and priority.
type LocalityLoad struct {
	Place    Place
	Priority uint32
	Load
	// Hosts are those that have any load.
	Hosts []HostLoad
}

// HostLoad is one host's.
type HostLoad struct {
	Addr netip.AddrPort
	Path string
	Load
}

// Load counts connections: those that began over the time, and those that are open at
// its end.
type Load struct{ Begun, Open uint64 }
