// Package transport connects to control planes: to an endpoint of a static
// cluster of the bootstrap (envoy_grpc), or to a target of its own (google_grpc).
//
// Nothing runs between two connections: names are resolved and certificates read
// when a connection is made, as far as they are due. Whoever holds a connection
// keeps it until it breaks; retrying is for the caller alone.
package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/xds/resolve"
)

// Errors that callers tell apart.
var (
	// ErrCluster says that there is no such cluster.
	ErrCluster = errors.New("unknown cluster")
	// ErrTLS says that the peer was reached and that no secured connection to it
	// came about: it will not go away by itself.
	ErrTLS = errors.New("TLS")
)

// Service is a gRPC service as a bootstrap names it (envoy.config.core.v3.GrpcService).
type Service struct {
	// Cluster is the static cluster that the service is reached through. It may be
	// that of a google_grpc, which is no cluster of the bootstrap.
	Cluster string
	// Authority is the :authority header.
	Authority string
	// Metadata are header names and values, in order.
	Metadata [][2]string
	// Tokens are headers whose values are read anew for each stream.
	Tokens []Token
}

// Token is a header with a secret that lies in a file, most often.
type Token struct {
	Header, Prefix string
	value          *corev3.DataSource
}

// Cluster is a static cluster, as connections of Sluice's own use it.
type Cluster struct {
	Name string
	// Endpoints are tried in turn, one per connection.
	Endpoints []Endpoint
	// DNS says how those that are names are resolved; nil as by default.
	DNS *api.DNS
	// TLS is nil for plaintext.
	TLS *TLS
	// ConnectTimeout bounds each of resolving, connecting and TLS; 5 s if 0.
	ConnectTimeout time.Duration
	// KeepAlive is the HTTP/2 ping; none if its Interval is 0.
	KeepAlive KeepAlive
	// TCP is the kernel's keep-alive; off unless enabled.
	TCP net.KeepAliveConfig
	// Source is the local address to connect from, if valid.
	Source netip.Addr
}

// Endpoint is an address, or a name that is resolved to some, or a unix socket.
type Endpoint struct {
	Addr netip.AddrPort
	// Host and Port are set if Addr is not valid.
	Host string
	Port uint16
	// Path is that of a unix socket, relative to the working directory unless it
	// begins with a slash; one that begins with @ is in the abstract namespace.
	Path string
}

func (e Endpoint) String() string {
	switch {
	case e.Path != "":
		return "unix:" + e.Path
	case e.Addr.IsValid():
		return e.Addr.String()
	}
	return net.JoinHostPort(e.Host, fmt.Sprint(e.Port))
}

// KeepAlive is HttpProtocolOptions' connection_keepalive.
type KeepAlive struct{ Interval, Timeout time.Duration }

// Options of a Dialer.
type Options struct {
	// Clusters by name. They are not changed.
	Clusters map[string]*Cluster
	// Resolver resolves the names of clusters that ask for no other; nil for the
	// default.
	Resolver *api.Resolver
	// Resolve makes resolvers; nil is resolve.New.
	Resolve func(api.Resolver) resolve.Resolver
}

// Dialer makes connections to control planes. Its methods may be called from any
// goroutine.
type Dialer struct {
	peers map[string]*peer // never changed
}

// peer is what is kept of a cluster from one connection to the next.
type peer struct {
	*Cluster

	resolver resolve.Resolver

	mu      sync.Mutex // also held while names are resolved
	turn    int        // of the next connection
	answers map[string]answer
}

// New returns a Dialer, which needs no closing.
func New(o Options) *Dialer {
	if o.Resolver == nil {
		o.Resolver = &api.Resolver{}
	}
	if o.Resolve == nil {
		o.Resolve = resolve.New
	}
	d := &Dialer{peers: make(map[string]*peer, len(o.Clusters))}
	for name, c := range o.Clusters {
		r := o.Resolver
		if c.DNS != nil && c.DNS.Resolver != nil {
			r = c.DNS.Resolver
		}
		d.peers[name] = &peer{Cluster: c, resolver: o.Resolve(*r), answers: map[string]answer{}}
	}
	return d
}

// Conn is a connection to one endpoint, over which streams and calls go.
type Conn interface {
	grpc.ClientConnInterface
	// Close ends the connection and what goes over it.
	Close() error
}

// GRPC connects to the next endpoint of s's cluster and makes HTTP/2 of it.
// Streams and calls over it carry the service's metadata.
func (d *Dialer) GRPC(ctx context.Context, s Service) (Conn, error) {
	p, err := d.peer(s.Cluster)
	if err != nil {
		return nil, err
	}
	raw, err := p.connect(ctx, "h2")
	if err != nil {
		return nil, err
	}
	return p.http2(raw, s)
}

// HTTP connects to the next endpoint of a cluster and leaves the rest to the
// caller, who speaks HTTP/1.1 (REST).
func (d *Dialer) HTTP(ctx context.Context, cluster string) (net.Conn, error) {
	p, err := d.peer(cluster)
	if err != nil {
		return nil, err
	}
	c, err := p.connect(ctx, "http/1.1")
	if err != nil {
		return nil, err
	}
	return c.Conn, nil
}

func (d *Dialer) peer(name string) (*peer, error) {
	if p := d.peers[name]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("connect to control plane: %w %q", ErrCluster, name)
}
