package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
)

// order is one line to the control plane: the state it is to hand out.
type order struct {
	Version  string `json:"version"`
	Listener string `json:"listener"` // address of the listener
	Endpoint string `json:"endpoint"` // address of the one endpoint
	// Bad adds a second listener that no proxy can take.
	Bad bool `json:"bad,omitempty"`
}

// event is one line from the control plane.
type event struct {
	Kind    string `json:"kind"`              // listening, stream, ack, nack
	Address string `json:"address,omitempty"` // listening
	Type    string `json:"type,omitempty"`    // ack, nack: type URL
	Version string `json:"version,omitempty"` // ack, nack: of the response
	Message string `json:"message,omitempty"` // nack
}

// everyone is the key of the one snapshot.
type everyone struct{}

func (everyone) ID(*corev3.Node) string { return "all" }

// controlPlane serves delta ADS from a snapshot cache.
type controlPlane struct {
	mu   sync.Mutex
	out  *json.Encoder
	sent map[sentKey]string // version of each response
}

type sentKey struct {
	stream int64
	nonce  string
}

// serveControlPlane serves until in ends: its parent is gone then.
func serveControlPlane(ctx context.Context, listen string, in io.Reader, out io.Writer) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("start control plane: %w", err)
	}
	c := &controlPlane{out: json.NewEncoder(out), sent: map[sentKey]string{}}
	cache := cachev3.NewSnapshotCache(true, everyone{}, nil)
	g := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, serverv3.NewServer(ctx, cache, serverv3.CallbackFuncs{
		DeltaStreamOpenFunc:     c.opened,
		StreamDeltaRequestFunc:  c.requested,
		StreamDeltaResponseFunc: c.responded,
	}))
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	c.tell(event{Kind: "listening", Address: l.Addr().String()})
	err = c.follow(ctx, json.NewDecoder(in), cache)
	g.Stop()
	return errors.Join(err, <-done)
}

// follow carries out orders.
func (c *controlPlane) follow(ctx context.Context, in *json.Decoder, cache cachev3.SnapshotCache) error {
	for {
		var o order
		if err := in.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read order: %w", err)
		}
		snapshot, err := o.snapshot()
		if err != nil {
			return err
		}
		if err := cache.SetSnapshot(ctx, "all", snapshot); err != nil {
			return fmt.Errorf("set snapshot %s: %w", o.Version, err)
		}
	}
}

func (c *controlPlane) tell(e event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.out.Encode(e) // the parent is gone: stdin ends too
}

func (c *controlPlane) opened(context.Context, int64, string) error {
	c.tell(event{Kind: "stream"})
	return nil
}

func (c *controlPlane) responded(stream int64, _ *discoveryv3.DeltaDiscoveryRequest, r *discoveryv3.DeltaDiscoveryResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent[sentKey{stream, r.GetNonce()}] = r.GetSystemVersionInfo()
}

func (c *controlPlane) requested(stream int64, r *discoveryv3.DeltaDiscoveryRequest) error {
	if r.GetResponseNonce() == "" {
		return nil
	}
	key := sentKey{stream, r.GetResponseNonce()}
	c.mu.Lock()
	e := event{Kind: "ack", Type: r.GetTypeUrl(), Version: c.sent[key]}
	delete(c.sent, key)
	c.mu.Unlock()
	if d := r.GetErrorDetail(); d != nil {
		e.Kind, e.Message = "nack", d.GetMessage()
	}
	c.tell(e)
	return nil
}
