package api

import (
	"time"

	"github.com/sluice-proxy/sluice/api/substitution"
)

// RateLimit is envoy.filters.network.ratelimit: a service says for each
// connection whether it is one too many.
type RateLimit struct {
	StatPrefix  string
	Domain      string
	Descriptors []RateLimitDescriptor
	Service     GRPCService
	// Timeout is how long the service may take.
	Timeout time.Duration
	// FailureModeDeny closes connections when the service cannot be asked.
	FailureModeDeny bool
}

// RateLimitDescriptor is a list of entries that the service looks up.
type RateLimitDescriptor []RateLimitEntry

// RateLimitEntry is one key and its value, which is printed for each connection.
type RateLimitEntry struct {
	Key   string
	Value substitution.Format
}
