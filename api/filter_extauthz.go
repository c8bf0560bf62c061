package api

import "time"

// ExtAuthz is envoy.filters.network.ext_authz: a service says whether a client
// may go on, when its first bytes have come.
type ExtAuthz struct {
	StatPrefix string
	Service    GRPCService
	// FailureModeAllow lets clients go on when the service cannot be asked.
	FailureModeAllow bool
	// EnabledBy, if it is not nil, says by metadata who is asked about at all.
	EnabledBy *MetadataMatch
	// MetadataNamespaces are handed to the service.
	MetadataNamespaces []string
	// IncludeTLSSession tells the service the server name, IncludePeerCertificate the
	// client's certificate.
	IncludeTLSSession      bool
	IncludePeerCertificate bool
}

// GRPCService is where a gRPC service is, and how it is called.
type GRPCService struct {
	// Cluster or, if that is empty, Target (a gRPC target) is dialled.
	Cluster, Target string
	// Authority is the `:authority` of calls; empty means the cluster's name, or
	// the target's host.
	Authority string
	Timeout   time.Duration
	// Metadata goes with every call.
	Metadata []GRPCMetadata
}

// GRPCMetadata is one entry of a call's metadata.
type GRPCMetadata struct{ Key, Value string }
