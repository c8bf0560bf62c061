// Package control holds management servers for tests: Server answers as
// go-control-plane does from its snapshot cache, Script sends exactly what a
// test tells it to. Both record every request, listen on loopback, and can stop
// and come back on the same port.
package control

import (
	"context"
	"net/netip"
	"sync"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
)

// everyone is the key of the one snapshot: all nodes get the same.
type everyone struct{}

func (everyone) ID(*corev3.Node) string { return "all" }

// Resources is what a Server hands out.
type Resources struct {
	Version   string
	Listeners []types.Resource
	Clusters  []types.Resource
	Endpoints []types.Resource
}

// Hooks see requests before the server answers them; an error ends the stream.
type Hooks struct {
	Open    func(stream int64) error
	Request func(Request) error
}

// Server is a go-control-plane server, both variants, over ADS.
type Server struct {
	*Seen
	port
	cache cachev3.SnapshotCache
	hooks Hooks

	mu      sync.Mutex
	streams map[int64]int // go-control-plane's id, which both variants count alone -> ours
}

// StartServer starts a server with an empty cache; it stops with the test.
func StartServer(tb testing.TB, hooks Hooks) *Server {
	tb.Helper()
	s := &Server{Seen: newSeen(), hooks: hooks, cache: cachev3.NewSnapshotCache(true, everyone{}, nil), streams: map[int64]int{}}
	s.port.register = s.register
	s.start(tb)
	tb.Cleanup(s.Stop)
	return s
}

// Restart listens again on the same port, with the same cache.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	s.Stop()
	s.start(tb)
}

// StartAt is StartServer on a given loopback address.
func StartAt(tb testing.TB, at netip.AddrPort, hooks Hooks) *Server {
	tb.Helper()
	s := &Server{Seen: newSeen(), hooks: hooks, cache: cachev3.NewSnapshotCache(true, everyone{}, nil), streams: map[int64]int{}}
	s.port.register, s.port.addr = s.register, at
	s.start(tb)
	tb.Cleanup(s.Stop)
	return s
}

// Update replaces the snapshot with r.
func (s *Server) Update(tb testing.TB, r Resources) {
	tb.Helper()
	snap, err := cachev3.NewSnapshot(r.Version, map[resourcev3.Type][]types.Resource{
		resourcev3.ListenerType: r.Listeners,
		resourcev3.ClusterType:  r.Clusters,
		resourcev3.EndpointType: r.Endpoints,
	})
	if err != nil {
		tb.Fatalf("build snapshot %s: %v", r.Version, err)
	}
	s.SetSnapshot(tb, snap)
}

// SetSnapshot replaces the snapshot.
func (s *Server) SetSnapshot(tb testing.TB, snap cachev3.ResourceSnapshot) {
	tb.Helper()
	if err := s.cache.SetSnapshot(context.Background(), "all", snap); err != nil {
		tb.Fatalf("set snapshot: %v", err)
	}
}

func (s *Server) register(g *grpc.Server) {
	ads := serverv3.NewServer(context.Background(), s.cache, serverv3.CallbackFuncs{
		StreamOpenFunc:      func(_ context.Context, id int64, _ string) error { return s.open(id) },
		DeltaStreamOpenFunc: func(_ context.Context, id int64, _ string) error { return s.open(-id) },
		StreamRequestFunc: func(id int64, r *discoveryv3.DiscoveryRequest) error {
			return s.request(fromSotW(s.number(id), r))
		},
		StreamDeltaRequestFunc: func(id int64, r *discoveryv3.DeltaDiscoveryRequest) error {
			return s.request(fromDelta(s.number(-id), r))
		},
	})
	s.mu.Lock()
	clear(s.streams)
	s.mu.Unlock()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, ads)
}

func (s *Server) open(id int64) error {
	s.number(id)
	if s.hooks.Open != nil {
		return s.hooks.Open(id)
	}
	return nil
}

func (s *Server) number(id int64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.streams[id]
	if !ok {
		n = len(s.streams) + 1
		s.streams[id] = n
	}
	return n
}

func (s *Server) request(r Request) error {
	s.add(r)
	if s.hooks.Request != nil {
		return s.hooks.Request(r)
	}
	return nil
}
