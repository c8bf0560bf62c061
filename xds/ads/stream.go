package ads

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Envoy's defaults (jittered_lower_bound is not in use for xDS).
const (
	backoffBase = 500 * time.Millisecond
	backoffCap  = 30 * time.Second
)

// Jitter waits anything below 500 ms, 1 s, 2 s, … 30 s (Envoy's
// JitteredExponentialBackOffStrategy).
func Jitter(n int) time.Duration {
	bound := backoffCap
	if n < 7 { // 500 ms << 6 is over the cap
		bound = min(bound, backoffBase<<(n-1))
	}
	return rand.N(bound)
}

// maxUnsent is how many requests may wait for a server that does not read.
const maxUnsent = 4096

// outbox lets requests wait without blocking who makes them: a server may
// refuse to read until we have read what it wrote.
type outbox struct {
	wake chan struct{} // holds one token
	full context.CancelCauseFunc

	mu    sync.Mutex
	queue []proto.Message
}

func (o *outbox) put(m proto.Message) {
	o.mu.Lock()
	o.queue = append(o.queue, m)
	over := len(o.queue) > maxUnsent
	o.mu.Unlock()
	if over {
		o.full(errors.New("the server does not read its requests"))
	}
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *outbox) take() []proto.Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	q := o.queue
	o.queue = nil
	return q
}

// stream lives through one stream. heard says that a response came.
func (c *Client) stream(ctx context.Context) (heard bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn, err := c.o.Dial(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	g, err := c.begin(ctx, conn)
	if err != nil {
		return false, fmt.Errorf("open stream: %w", err)
	}
	out := &outbox{wake: make(chan struct{}, 1), full: cancel}
	sent := make(chan struct{})
	number := c.open(out)
	go c.send(ctx, g, out, sent)
	defer func() { <-sent }()
	defer cancel(nil)
	defer c.close()
	if !c.tell(ctx, Event{Opened: true}) {
		return false, ctx.Err()
	}
	for {
		r, err := c.receive(g)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return heard, err
		}
		if !heard {
			c.told.answers(c.o.Log)
		}
		heard = true
		r.stream = number
		if !c.tell(ctx, Event{Response: r}) {
			return heard, context.Cause(ctx)
		}
	}
}

// services are those of the types that can have a stream of their own, without
// the variant that the method begins with.
var services = map[string][2]string{
	"type.googleapis.com/envoy.config.listener.v3.Listener":                {"/envoy.service.listener.v3.ListenerDiscoveryService/", "Listeners"},
	"type.googleapis.com/envoy.config.cluster.v3.Cluster":                  {"/envoy.service.cluster.v3.ClusterDiscoveryService/", "Clusters"},
	"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment":   {"/envoy.service.endpoint.v3.EndpointDiscoveryService/", "Endpoints"},
	"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret": {"/envoy.service.secret.v3.SecretDiscoveryService/", "Secrets"},
	"type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig":        {"/envoy.service.extension.v3.ExtensionConfigDiscoveryService/", "ExtensionConfigs"},
	"type.googleapis.com/envoy.config.route.v3.RouteConfiguration":         {"/envoy.service.route.v3.RouteDiscoveryService/", "Routes"},
	"type.googleapis.com/envoy.service.runtime.v3.Runtime":                 {"/envoy.service.runtime.v3.RuntimeDiscoveryService/", "Runtime"},
}

func (c *Client) method() string {
	s, ok := services[c.o.TypeURL]
	if !ok {
		s = [2]string{"/envoy.service.discovery.v3.AggregatedDiscoveryService/", "AggregatedResources"}
	}
	if c.o.Delta {
		return s[0] + "Delta" + s[1]
	}
	return s[0] + "Stream" + s[1]
}

func (c *Client) begin(ctx context.Context, conn grpc.ClientConnInterface) (grpc.ClientStream, error) {
	return conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, c.method())
}

func (c *Client) receive(g grpc.ClientStream) (*Response, error) {
	if c.o.Delta {
		m := new(discoveryv3.DeltaDiscoveryResponse)
		if err := g.RecvMsg(m); err != nil {
			return nil, ended(err)
		}
		return fromDelta(m), nil
	}
	m := new(discoveryv3.DiscoveryResponse)
	if err := g.RecvMsg(m); err != nil {
		return nil, ended(err)
	}
	return fromSotW(m), nil
}

func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("stream closed by the server")
	}
	return err
}

// send writes what comes into the outbox until the stream ends. Its errors show
// in receive as well, with the status.
func (c *Client) send(ctx context.Context, g grpc.ClientStream, out *outbox, done chan<- struct{}) {
	defer close(done)
	for {
		for _, m := range out.take() {
			if !c.mayBeSent(ctx) {
				return
			}
			if g.SendMsg(m) != nil {
				return
			}
		}
		select {
		case <-out.wake:
		case <-ctx.Done():
			return
		}
	}
}

// mayBeSent waits for a token of rate_limit_settings; it tells whether one came
// before the stream ended.
func (c *Client) mayBeSent(ctx context.Context) bool {
	if c.o.Limit == nil || c.o.Limit.Allow() {
		return true
	}
	if c.o.Limited != nil {
		c.o.Limited()
	}
	return c.o.Limit.Wait(ctx) == nil
}

func code(err error) codes.Code { return status.Code(err) }

func validUTF8(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
