package launch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/xds/file"
)

const (
	cds = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	eds = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	lds = "type.googleapis.com/envoy.config.listener.v3.Listener"
)

// order is the one that all four servers send in.
var order = []string{cds, eds, lds}

type doubleOptions struct {
	listen, cert, clientCA, header, refusal, node, resources, version string
	deltaOnly, oneAtATime                                             bool
	delay                                                             time.Duration
}

// double is a server as one launcher's proxy meets it: it wants the same proof,
// and answers in the same order and form.
type double struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	o      doubleOptions
	server *grpc.Server
	done   chan struct{}

	mu      sync.Mutex
	state   map[string]map[string]*anypb.Any // by type and name
	changed chan struct{}                    // closed by the next set
	lines   []string
}

func newDouble(o doubleOptions) *double {
	return &double{o: o, changed: make(chan struct{}), done: make(chan struct{})}
}

// set replaces all resources and has them sent.
func (d *double) set(text string) error {
	r := &discoveryv3.DiscoveryResponse{}
	if _, err := file.Parse([]byte(text), ".yaml", file.Options{}, r); err != nil {
		return err
	}
	state := map[string]map[string]*anypb.Any{cds: {}, eds: {}, lds: {}}
	for _, a := range r.GetResources() {
		m, err := a.UnmarshalNew()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *clusterv3.Cluster:
			state[cds][m.GetName()] = a
		case *endpointv3.ClusterLoadAssignment:
			state[eds][m.GetClusterName()] = a
		case *listenerv3.Listener:
			state[lds][m.GetName()] = a
		default:
			return fmt.Errorf("resource of type %s", a.GetTypeUrl())
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state = state
	close(d.changed)
	d.changed = make(chan struct{})
	return nil
}

func (d *double) start() error {
	network, address, _ := strings.Cut(d.o.listen, ":")
	if network == "tcp" {
		address = "127.0.0.1:" + address
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	var o []grpc.ServerOption
	if d.o.cert != "" {
		c, err := tls.LoadX509KeyPair(d.o.cert, strings.TrimSuffix(d.o.cert, ".pem")+".key")
		if err != nil {
			return err
		}
		t := &tls.Config{Certificates: []tls.Certificate{c}, NextProtos: []string{"h2"}}
		if d.o.clientCA != "" {
			b, err := os.ReadFile(d.o.clientCA)
			if err != nil {
				return err
			}
			t.ClientAuth, t.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
			t.ClientCAs.AppendCertsFromPEM(b)
		}
		o = append(o, grpc.Creds(credentials.NewTLS(t)))
	}
	d.server = grpc.NewServer(o...)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(d.server, d)
	go func() { defer close(d.done); _ = d.server.Serve(l) }() // ends with stop
	return nil
}

func (d *double) stop() {
	if d.server != nil {
		d.server.Stop()
		<-d.done
	}
}

func (d *double) seen() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.lines, "\n") + "\n"
}

func (d *double) saw(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

// admit checks what the stream brings along.
func (d *double) admit(ctx context.Context) error {
	if d.o.header == "" {
		return nil
	}
	name, want, _ := strings.Cut(d.o.header, "=")
	md, _ := metadata.FromIncomingContext(ctx)
	if slices.Contains(md.Get(name), want) {
		return nil
	}
	d.saw("refused %s=%s", name, strings.Join(md.Get(name), ","))
	code, text, _ := strings.Cut(d.o.refusal, ":")
	var c codes.Code
	if err := c.UnmarshalJSON([]byte(`"` + code + `"`)); err != nil {
		c = codes.Unauthenticated
	}
	return status.Error(c, text)
}

func (d *double) knows(n *corev3.Node) error {
	if ok, err := regexp.MatchString(d.o.node, n.GetId()); !ok || err != nil {
		d.saw("refused node %s", n.GetId())
		return status.Errorf(codes.InvalidArgument, "invalid node id %q", n.GetId())
	}
	return nil
}

func short(url string) string { return map[string]string{cds: "CDS", eds: "EDS", lds: "LDS"}[url] }

// subscription is what a stream wants of a type.
type subscription struct {
	all   bool
	names map[string]bool
	told  map[string]bool // names the proxy has
}

// DeltaAggregatedResources answers in the servers' order, everything that is
// wanted with every change, equal or not.
func (d *double) DeltaAggregatedResources(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	if err := d.admit(s.Context()); err != nil {
		return err
	}
	in, wants, due := make(chan *discoveryv3.DeltaDiscoveryRequest), map[string]*subscription{}, map[string]bool{}
	go receive(s.Context(), s.Recv, in)
	nonce, unanswered, first := 0, 0, true
	d.mu.Lock()
	changed := d.changed
	d.mu.Unlock()
	for {
		for _, url := range order {
			if !due[url] || d.o.oneAtATime && unanswered > 0 {
				continue
			}
			if first {
				time.Sleep(d.o.delay)
				first = false
			}
			delete(due, url)
			nonce++
			unanswered++
			if err := s.Send(d.delta(url, wants[url], nonce)); err != nil {
				return err
			}
		}
		select {
		case r, ok := <-in:
			if !ok {
				return nil
			}
			if r.GetNode() != nil {
				if err := d.knows(r.GetNode()); err != nil {
					return err
				}
			}
			if wants[r.GetTypeUrl()] == nil || len(r.GetResourceNamesSubscribe()) > 0 {
				due[r.GetTypeUrl()] = true
			}
			unanswered -= d.deltaRequest(r, wants)
		case <-changed:
			d.mu.Lock()
			changed = d.changed
			d.mu.Unlock()
			for url := range wants {
				due[url] = true
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

// deltaRequest takes r in and says how many responses it answers.
func (d *double) deltaRequest(r *discoveryv3.DeltaDiscoveryRequest, wants map[string]*subscription) int {
	w := wants[r.GetTypeUrl()]
	if w == nil {
		w = &subscription{all: len(r.GetResourceNamesSubscribe()) == 0, names: map[string]bool{}, told: map[string]bool{}}
		wants[r.GetTypeUrl()] = w
	}
	for _, n := range r.GetResourceNamesSubscribe() {
		w.names[n] = true
	}
	for _, n := range r.GetResourceNamesUnsubscribe() {
		delete(w.names, n)
	}
	what := "ask"
	if r.GetResponseNonce() != "" {
		what = "ack"
	}
	if e := r.GetErrorDetail(); e != nil {
		what = "nack " + e.GetMessage()
	}
	d.saw("delta %s +%v -%v %s", short(r.GetTypeUrl()), r.GetResourceNamesSubscribe(), r.GetResourceNamesUnsubscribe(), what)
	if r.GetResponseNonce() != "" {
		return 1
	}
	return 0
}

func (d *double) delta(url string, w *subscription, nonce int) *discoveryv3.DeltaDiscoveryResponse {
	out := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: url, Nonce: fmt.Sprint(nonce)}
	now := d.wanted(url, w)
	for _, name := range sorted(now) {
		out.Resources = append(out.Resources, &discoveryv3.Resource{Name: name, Version: d.o.version, Resource: now[name]})
		w.told[name] = true
	}
	for _, name := range sorted(w.told) {
		if now[name] == nil {
			out.RemovedResources = append(out.RemovedResources, name)
			delete(w.told, name)
		}
	}
	return out
}

// StreamAggregatedResources is the same for the state of the world.
func (d *double) StreamAggregatedResources(s discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	if d.o.deltaOnly {
		return errors.New("not implemented")
	}
	if err := d.admit(s.Context()); err != nil {
		return err
	}
	in, wants, due := make(chan *discoveryv3.DiscoveryRequest), map[string]*subscription{}, map[string]bool{}
	go receive(s.Context(), s.Recv, in)
	nonce := 0
	d.mu.Lock()
	changed := d.changed
	d.mu.Unlock()
	for {
		for _, url := range order {
			if !due[url] {
				continue
			}
			delete(due, url)
			nonce++
			out := &discoveryv3.DiscoveryResponse{TypeUrl: url, Nonce: fmt.Sprint(nonce), VersionInfo: fmt.Sprint("v", nonce)}
			now := d.wanted(url, wants[url])
			for _, name := range sorted(now) {
				out.Resources = append(out.Resources, now[name])
			}
			if err := s.Send(out); err != nil {
				return err
			}
		}
		select {
		case r, ok := <-in:
			if !ok {
				return nil
			}
			if r.GetNode() != nil {
				if err := d.knows(r.GetNode()); err != nil {
					return err
				}
			}
			d.saw("sotw %s %v v=%q n=%q %s", short(r.GetTypeUrl()), r.GetResourceNames(), r.GetVersionInfo(), r.GetResponseNonce(), r.GetErrorDetail().GetMessage())
			w := wants[r.GetTypeUrl()]
			names := map[string]bool{}
			for _, n := range r.GetResourceNames() {
				names[n] = true
			}
			if w == nil || len(names) != len(w.names) {
				due[r.GetTypeUrl()] = true
			}
			wants[r.GetTypeUrl()] = &subscription{all: len(names) == 0, names: names}
		case <-changed:
			d.mu.Lock()
			changed = d.changed
			d.mu.Unlock()
			for url := range wants {
				due[url] = true
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

func (d *double) wanted(url string, w *subscription) map[string]*anypb.Any {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string]*anypb.Any{}
	for name, a := range d.state[url] {
		if w.all || w.names[name] {
			out[name] = a
		}
	}
	return out
}

func receive[M proto.Message](ctx context.Context, recv func() (M, error), to chan<- M) {
	defer close(to)
	for {
		m, err := recv()
		if err != nil {
			return
		}
		select {
		case to <- m:
		case <-ctx.Done():
			return
		}
	}
}

func sorted[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
