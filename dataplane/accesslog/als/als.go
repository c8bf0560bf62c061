// Package als sends what is said of connections to access log services
// (envoy.service.accesslog.v3), as envoy.access_loggers.tcp_grpc does: entries
// are gathered, and sent in one message on a stream that stays open. No worker
// ever waits for a service; what does not fit is counted and dropped.
//
// It is one of the leaf packages that speak Envoy's gRPC services, and so may
// know Envoy's protos (test/layers).
package als

import (
	"fmt"
	"log/slog"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// Services are the open streams, one for each configuration of a log. Safe for
// concurrent use.
type Services struct {
	node     *corev3.Node
	cluster  func(name string) *upstream.Cluster
	counters counters
	log      *slog.Logger

	mu   sync.Mutex
	open map[string]*sender
}

// counters stand under access_logs.grpc_access_log., with Envoy's names.
type counters struct{ written, dropped, flushed, flushFailed *stats.Counter }

// New makes the set of streams. node is a serialized envoy.config.core.v3.Node,
// what a service is told of us; it may be empty.
func New(node []byte, cluster func(name string) *upstream.Cluster, store *stats.Store, log *slog.Logger) (*Services, error) {
	sc := store.Scope("access_logs", "grpc_access_log")
	s := &Services{node: &corev3.Node{}, cluster: cluster, log: log, open: map[string]*sender{}, counters: counters{
		written: sc.Counter("logs_written"), dropped: sc.Counter("logs_dropped"),
		flushed: sc.Counter("grpc_entries_flushed"), flushFailed: sc.Counter("grpc_entries_flush_failed"),
	}}
	if err := proto.Unmarshal(node, s.node); err != nil {
		return nil, fmt.Errorf("read node for access log services: %w", err)
	}
	return s, nil
}

// Open returns the log of a configuration; logs that are equal share a stream.
func (s *Services) Open(c *api.ServiceLog) *Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	// What the entries hold is the log's own.
	key := fmt.Sprintf("%q %+v %v %d", c.LogName, c.Service, c.FlushInterval, c.BufferSize)
	to := s.open[key]
	if to == nil {
		to = newSender(s, c, key)
		s.open[key] = to
		go to.run()
	}
	to.users++
	return &Log{to: to, config: c, tags: newTags(c.Tags)}
}

// Close sends what waits and ends the streams; it does not wait for ever.
func (s *Services) Close() {
	s.mu.Lock()
	all := make([]*sender, 0, len(s.open))
	for key, to := range s.open {
		delete(s.open, key)
		all = append(all, to)
	}
	s.mu.Unlock()
	for _, to := range all {
		to.stop()
	}
	for _, to := range all {
		<-to.done
	}
}

// release gives a stream back; with its last log it ends.
func (s *Services) release(to *sender) {
	s.mu.Lock()
	to.users--
	last := to.users == 0
	if last && s.open[to.key] == to {
		delete(s.open, to.key)
	}
	s.mu.Unlock()
	if last {
		to.stop()
	}
}
