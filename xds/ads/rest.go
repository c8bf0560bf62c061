package ads

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/sluice-proxy/sluice/xds/file"
)

// RESTOptions of a REST. All are required.
type RESTOptions struct {
	// Dial connects to the server; Host is what it is called.
	Dial           func(context.Context) (net.Conn, error)
	Host           string
	Node           *corev3.Node
	TypeURL        string
	RefreshDelay   time.Duration
	RequestTimeout time.Duration
	Events         chan Event
	Log            *slog.Logger
}

// REST polls a management server: POST /v3/discovery:TYPE with a DiscoveryRequest,
// both in JSON (xds_protocol.rst, "REST-JSON polling subscriptions").
type REST struct {
	o      RESTOptions
	http   *http.Client
	wanted chan struct{} // holds one token when the names change

	mu      sync.Mutex
	names   []string
	asked   bool
	version string // last accepted
}

// restPaths are the resources' names in the path.
var restPaths = map[string]string{
	"type.googleapis.com/envoy.config.listener.v3.Listener":                "listeners",
	"type.googleapis.com/envoy.config.cluster.v3.Cluster":                  "clusters",
	"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment":   "endpoints",
	"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret": "secrets",
	"type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig":        "extension_configs",
	"type.googleapis.com/envoy.service.runtime.v3.Runtime":                 "runtime",
}

// NewREST returns a REST; it polls once it runs and something is wanted of it.
func NewREST(o RESTOptions) *REST {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return o.Dial(ctx) }
	return &REST{o: o, wanted: make(chan struct{}, 1), http: &http.Client{
		// TLS, if there is any, is Dial's.
		Transport: &http.Transport{DialContext: dial, DialTLSContext: dial, MaxIdleConnsPerHost: 1},
		Timeout:   o.RequestTimeout,
	}}
}

// Subscribe wants names from now on; nil wants all.
func (r *REST) Subscribe(_ string, names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked && slices.Equal(r.names, names) {
		return
	}
	r.names, r.asked = slices.Clone(names), true
	select {
	case r.wanted <- struct{}{}:
	default:
	}
}

// Ack is told by the version of the next poll.
func (r *REST) Ack(p *Response) { r.Accept(p) }

// Accept is Ack.
func (r *REST) Accept(p *Response) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.version = p.Version
}

// Nack leaves the version as it was; REST has no other way to tell.
func (r *REST) Nack(*Response, error) {}

// The rest of Source has no meaning for polls.
func (r *REST) Pause(string)             {}
func (r *REST) Resume(string)            {}
func (r *REST) Repeat(string)            {}
func (r *REST) Expire(string, ...string) {}

// Run polls until ctx ends.
func (r *REST) Run(ctx context.Context) error {
	defer r.http.CloseIdleConnections()
	select {
	case <-r.wanted:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		e := Event{From: r}
		e.Response, e.Unread = r.fetch(ctx)
		if e.Response != nil || e.Unread != nil {
			select {
			case r.o.Events <- e:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		// Up to twice the delay, so that proxies do not poll in step (Envoy).
		wait := time.NewTimer(r.o.RefreshDelay + rand.N(max(r.o.RefreshDelay, 1)))
		select {
		case <-wait.C:
		case <-r.wanted:
		case <-ctx.Done():
			wait.Stop()
			return ctx.Err()
		}
		wait.Stop()
	}
}

// fetch polls once; both results are nil if the server says 304.
func (r *REST) fetch(ctx context.Context) (*Response, error) {
	r.mu.Lock()
	q := &discoveryv3.DiscoveryRequest{Node: r.o.Node, TypeUrl: r.o.TypeURL, ResourceNames: r.names, VersionInfo: r.version}
	r.mu.Unlock()
	body, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("encode discovery request: %w", err)
	}
	url := "http://" + r.o.Host + "/v3/discovery:" + restPaths[r.o.TypeURL]
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request for %s: %w", url, err)
	}
	post.Header.Set("Content-Type", "application/json")
	answer, err := r.http.Do(post)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read answer of %s: %w", url, err)
	case answer.StatusCode == http.StatusNotModified:
		return nil, nil
	case answer.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("poll %s: status %d", url, answer.StatusCode)
	}
	m := new(discoveryv3.DiscoveryResponse)
	if _, err := file.Parse(text, ".json", file.Options{DropUnknown: true}, m); err != nil {
		return nil, fmt.Errorf("read answer of %s: %w", url, err)
	}
	if m.TypeUrl == "" {
		m.TypeUrl = r.o.TypeURL
	}
	p := fromSotW(m)
	p.From = r
	return p, nil
}
