package api

import (
	"time"

	"github.com/sluice-proxy/sluice/api/runtime"
)

// ConnectionLimit is envoy.filters.network.connection_limit. It counts the
// connections of its filter chain, on all workers.
type ConnectionLimit struct {
	StatPrefix     string
	MaxConnections uint64
	// Delay is how long a connection beyond the limit is kept before it is
	// closed; it counts meanwhile.
	Delay time.Duration
	// Enabled, if it is off, lets all pass, uncounted.
	Enabled runtime.Flag
}

// LocalRateLimit is envoy.filters.network.local_ratelimit: a connection takes a
// token or is closed.
type LocalRateLimit struct {
	StatPrefix string
	Bucket     TokenBucket
	// ShareKey, if it is not empty, names a bucket that all filters with this key
	// and an equal Bucket share.
	ShareKey string
	Enabled  runtime.Flag
}

// TokenBucket is full at first and is filled at an even rate, as Envoy's is:
// TokensPerFill in every FillInterval, up to MaxTokens.
type TokenBucket struct {
	MaxTokens     uint32
	TokensPerFill uint32
	FillInterval  time.Duration
}

// DirectResponse is envoy.filters.network.direct_response: Body, and the end.
type DirectResponse struct{ Body string }
