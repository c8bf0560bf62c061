package api

import (
	"fmt"
	"time"
)

// SourceKind is how resources are fetched.
type SourceKind uint8

// The kinds of config_source.proto. FromSelf is the source that the resource with
// the ConfigSource came from.
const (
	FromADS SourceKind = iota
	FromSelf
	FromPath
	FromGRPC
	FromREST
)

// ConfigSource says where resources come from (envoy.config.core.v3.ConfigSource).
type ConfigSource struct {
	Kind SourceKind
	// InitialFetchTimeout bounds the wait for the first answer, 0 is for ever.
	InitialFetchTimeout time.Duration
	// Path is a file's; Directory, if not empty, is watched in place of the
	// directory that the file is in.
	Path, Directory string
	// WatchModify takes writes for changes too, not only moves.
	WatchModify bool
	// Delta says DELTA_GRPC, else GRPC.
	Delta bool
	// Cluster is the static cluster to ask (gRPC and REST), Authority the :authority.
	Cluster, Authority string
	Metadata           [][2]string
	NodeOnce           bool
	// MaxTokens and FillRate (tokens per second) bound requests; 0 is no bound.
	MaxTokens uint32
	FillRate  float64
	// RefreshDelay and RequestTimeout are REST's.
	RefreshDelay, RequestTimeout time.Duration
}

// EDSKey tells the subscriptions to endpoints apart: clusters on ADS share one by
// its name, others have each their own.
func (c *Cluster) EDSKey() string {
	if c.Source.Kind == FromADS || c.Source.Kind == FromSelf {
		return c.EDSName()
	}
	return fmt.Sprintf("%s\x00%s\x00%+v", c.EDSName(), c.Name, c.Source)
}
