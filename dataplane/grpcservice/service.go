// Package grpcservice connects to a gRPC service that the configuration names
// (Envoy's GrpcService): a cluster of ours, whose balancer picks the host, or a
// target of its own. It speaks no service; who calls one does, off the workers'
// threads.
package grpcservice

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// errNoCluster says that the service's cluster is not in force.
var errNoCluster = errors.New("no such cluster")

// Service has one HTTP/2 connection, made when it is first needed; for a cluster
// to a host that its balancer picks. Its methods are safe for concurrent use.
type Service struct {
	config  *api.GRPCService
	cluster func(name string) *upstream.Cluster

	mu     sync.Mutex
	conn   *grpc.ClientConn
	closed bool
}

// New makes a service; cluster finds one in force.
func New(c *api.GRPCService, cluster func(name string) *upstream.Cluster) *Service {
	return &Service{config: c, cluster: cluster}
}

// Timeout is how long a call may take.
func (s *Service) Timeout() time.Duration { return s.config.Timeout }

// Connection is what a client of the service is made with, and a context for its
// calls, with the metadata of the configuration. The error says why there can be
// none now; that the host does not answer is an error of the call.
func (s *Service) Connection(ctx context.Context) (context.Context, *grpc.ClientConn, error) {
	conn, err := s.connection()
	if err != nil {
		return nil, nil, err
	}
	for _, m := range s.config.Metadata {
		ctx = metadata.AppendToOutgoingContext(ctx, m.Key, m.Value)
	}
	return ctx, conn, nil
}

func (s *Service) connection() (*grpc.ClientConn, error) {
	if s.config.Cluster != "" && s.cluster(s.config.Cluster) == nil {
		return nil, fmt.Errorf("%w: %s", errNoCluster, s.config.Cluster)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, status.Error(codes.Canceled, "the service is closed")
	case s.conn != nil:
		return s.conn, nil
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
		grpc.WithIdleTimeout(0),
		// A call waits for the service at most its own time; the next one tries
		// again.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.6, MaxDelay: time.Second}, MinConnectTimeout: time.Second}),
	}
	target := s.config.Target
	if s.config.Cluster != "" {
		// The host is the balancer's choice, so that the target is but a name.
		target = "passthrough:///sluice"
		opts = append(opts, grpc.WithContextDialer(s.dial), grpc.WithAuthority(s.config.Cluster))
	}
	if s.config.Authority != "" {
		opts = append(opts, grpc.WithAuthority(s.config.Authority))
	}
	conn, err := grpc.NewClient(target, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", target, err)
	}
	s.conn = conn
	return conn, nil
}

// dial connects to a host of the cluster; the connection counts there.
func (s *Service) dial(ctx context.Context, _ string) (net.Conn, error) {
	c := s.cluster(s.config.Cluster)
	if c == nil {
		return nil, fmt.Errorf("%w: %s", errNoCluster, s.config.Cluster)
	}
	return Dial(ctx, c, "h2")
}

// Dial connects to a host of c, for a library; the connection counts there.
func Dial(ctx context.Context, c *upstream.Cluster, protocols ...string) (net.Conn, error) {
	up, err := c.PickAside()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Config().ConnectTimeout)
	defer cancel()
	began := time.Now()
	var d net.Dialer
	d.SetMultipathTCP(false)
	conn, err := d.DialContext(ctx, "tcp", up.Host.Address())
	if err != nil {
		up.Failed(errors.Is(err, context.DeadlineExceeded), "")
		return nil, err
	}
	secured, err := up.Secure(ctx, conn, protocols...)
	if err != nil {
		conn.Close()
		up.Failed(errors.Is(err, context.DeadlineExceeded), "")
		return nil, err
	}
	conn = secured
	up.Connected(time.Since(began))
	return &counted{Conn: conn, up: up.Connection, since: time.Now()}, nil
}

// counted tells the cluster of the connection's end.
type counted struct {
	net.Conn
	once  sync.Once
	up    upstream.Connection
	since time.Time
}

func (c *counted) Close() error {
	c.once.Do(func() { c.up.Ended(time.Since(c.since), false) })
	return c.Conn.Close()
}

// Close ends the connection and every call on it.
func (s *Service) Close() {
	s.mu.Lock()
	conn := s.conn
	s.conn, s.closed = nil, true
	s.mu.Unlock()
	if conn != nil {
		// Of what is wrong with an end nobody has a use.
		_ = conn.Close()
	}
}
