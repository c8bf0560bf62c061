package transport

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

// conn is a gRPC client over exactly one connection.
type conn struct {
	*grpc.ClientConn
	raw net.Conn
	s   Service
}

// http2 makes a gRPC client of w, which belongs to the result from now on.
func (p *peer) http2(w *wire, s Service) (Conn, error) {
	once := make(chan net.Conn, 1)
	once <- w.Conn
	dial := func(context.Context, string) (net.Conn, error) {
		select {
		case c := <-once:
			return c, nil
		default:
			return nil, errors.New("connection lost")
		}
	}
	o := []grpc.DialOption{
		grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(w.credentials()),
		grpc.WithAuthority(s.Authority),
		grpc.WithNoProxy(), // HTTPS_PROXY is not meant for us
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: p.timeout()}),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableServiceConfig(),
	}
	if k := p.KeepAlive; k.Interval > 0 {
		// The library pings a silent connection only, and not oftener than every 10 s.
		o = append(o, grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: k.Interval, Timeout: k.Timeout, PermitWithoutStream: true}))
	}
	g, err := grpc.NewClient("passthrough:///"+strings.ReplaceAll(w.to.String(), "%", "_"), o...)
	if err != nil {
		_ = w.Close() // the error that counts is err
		return nil, fmt.Errorf("make gRPC client for %s: %w", w.to, err)
	}
	return &conn{ClientConn: g, raw: w.Conn, s: s}, nil
}

func (w *wire) credentials() credentials.TransportCredentials {
	if w.secured {
		return handshaken{insecure.NewCredentials()}
	}
	return insecure.NewCredentials()
}

// handshaken are credentials for a connection that is secured already; gRPC sends
// `:scheme: https` by their name.
type handshaken struct {
	credentials.TransportCredentials
}

func (handshaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (h handshaken) Clone() credentials.TransportCredentials { return h }

// Close closes the connection also where gRPC has not taken it yet.
func (c *conn) Close() error {
	err := c.ClientConn.Close()
	_ = c.raw.Close() // nil or "already closed"
	return err
}

// NewStream opens a stream with the service's metadata.
func (c *conn) NewStream(ctx context.Context, d *grpc.StreamDesc, method string, o ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, err := c.s.outgoing(ctx)
	if err != nil {
		return nil, err
	}
	return c.ClientConn.NewStream(ctx, d, method, o...)
}

// Invoke makes a call with the service's metadata.
func (c *conn) Invoke(ctx context.Context, method string, args, reply any, o ...grpc.CallOption) error {
	ctx, err := c.s.outgoing(ctx)
	if err != nil {
		return err
	}
	return c.ClientConn.Invoke(ctx, method, args, reply, o...)
}

func (s Service) outgoing(ctx context.Context) (context.Context, error) {
	for _, kv := range s.Metadata {
		ctx = metadata.AppendToOutgoingContext(ctx, strings.ToLower(kv[0]), kv[1])
	}
	for _, t := range s.Tokens {
		b, err := readData(t.value)
		if err != nil {
			return nil, fmt.Errorf("read token: %w", err)
		}
		ctx = metadata.AppendToOutgoingContext(ctx, strings.ToLower(t.Header), t.Prefix+strings.TrimSpace(string(b)))
	}
	return ctx, nil
}
