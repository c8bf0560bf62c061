package xds

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/test/control"
	"github.com/sluice-proxy/sluice/xds/bootstrap"
	"github.com/sluice-proxy/sluice/xds/resource"
	"github.com/sluice-proxy/sluice/xds/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink records snapshots and refuses the listeners that it is told to.
type sink struct {
	mu      sync.Mutex
	all     []*api.Snapshot
	refuse  map[string]error
	changed chan struct{}
}

func newSink() *sink { return &sink{refuse: map[string]error{}, changed: make(chan struct{})} }

func (s *sink) Apply(_ context.Context, snap *api.Snapshot) *api.Applied {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, snap)
	close(s.changed)
	s.changed = make(chan struct{})
	a := &api.Applied{Generation: snap.Generation}
	for _, l := range snap.Listeners {
		if err := s.refuse[l.Name]; err != nil {
			if a.Refused == nil {
				a.Refused = map[string]error{}
			}
			a.Refused[l.Name] = err
		}
	}
	return a
}

func (s *sink) refusing(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse[name] = err
}

func (s *sink) snapshots() []*api.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

func (s *sink) last() *api.Snapshot { all := s.snapshots(); return all[len(all)-1] }

// await returns the first snapshot, past or future, for which ok is true.
func (s *sink) await(tb testing.TB, what string, ok func(*api.Snapshot) bool) *api.Snapshot {
	tb.Helper()
	deadline := time.NewTimer(control.Patience)
	defer deadline.Stop()
	for i := 0; ; {
		s.mu.Lock()
		all, changed := s.all, s.changed
		s.mu.Unlock()
		for ; i < len(all); i++ {
			if ok(all[i]) {
				return all[i]
			}
		}
		select {
		case <-changed:
		case <-deadline.C:
			tb.Fatalf("await snapshot with %s: none among %d", what, len(all))
		}
	}
}

func pack(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return a
}

func address(ip string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: ip, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

// edsCluster waits for its endpoints for wait; 0 is for ever.
func edsCluster(name string, wait time.Duration) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name: name, ConnectTimeout: durationpb.New(time.Second),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{
			ResourceApiVersion: corev3.ApiVersion_V3, InitialFetchTimeout: durationpb.New(wait),
			ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		}},
	}
}

func staticCluster(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name: name, ConnectTimeout: durationpb.New(time.Second),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, LoadAssignment: assignment(name, 1),
	}
}

func assignment(name string, port uint32) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: address("127.0.0.1", port)},
		}}},
	}}}
}

func tcpListener(name string, port uint32, cluster string) *listenerv3.Listener {
	return &listenerv3.Listener{Name: name, Address: address("127.0.0.1", port), FilterChains: []*listenerv3.FilterChain{{
		Filters: []*listenerv3.Filter{{Name: "tcp", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(&tcpv3.TcpProxy{
			StatPrefix: "x", ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: cluster},
		})}}},
	}}}
}

func badListener(name, ip string) *listenerv3.Listener {
	l := tcpListener(name, 19811, "s")
	l.Address = address(ip, 19811)
	return l
}

// story is a client under a scripted server.
type story struct {
	*testing.T
	*control.Script
	*Client
	sink  *sink
	stats *stats.Store
	delta bool
	nonce int
}

type settings struct {
	fetch     time.Duration // of CDS and LDS; 0 is for ever
	noCDS     bool
	listeners []*listenerv3.Listener
	clusters  []*clusterv3.Cluster
	refuse    map[string]error
}

func config(t testing.TB, to netip.AddrPort, delta bool, o settings) *bootstrap.Config {
	t.Helper()
	b := &bootstrap.Config{
		Node: &corev3.Node{Id: "n"},
		LDS:  &bootstrap.Source{ConfigSource: api.ConfigSource{InitialFetchTimeout: o.fetch}},
		CDS:  &bootstrap.Source{ConfigSource: api.ConfigSource{InitialFetchTimeout: o.fetch}},
		ADS:  &bootstrap.ADS{Delta: delta, Service: transport.Service{Cluster: "xds", Authority: "xds"}, SetNodeOnFirstMessageOnly: true},
		ControlPlanes: map[string]*transport.Cluster{
			"xds": {Name: "xds", Endpoints: []transport.Endpoint{{Addr: to}}},
		},
	}
	if o.noCDS {
		b.CDS = nil
	}
	for _, m := range o.clusters {
		_, v, n, err := resource.Cluster(pack(m))
		if err != nil {
			t.Fatal(err)
		}
		b.Clusters = append(b.Clusters, bootstrap.StaticCluster{Value: v, Any: pack(m), Notes: n})
	}
	for _, m := range o.listeners {
		_, v, n, err := resource.Listener(pack(m))
		if err != nil {
			t.Fatal(err)
		}
		b.Listeners = append(b.Listeners, bootstrap.StaticListener{Value: v, Any: pack(m), Notes: n})
	}
	return b
}

func run(t testing.TB, o Options) *Client {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	o.Backoff = func(int) time.Duration { return time.Millisecond }
	o.Workers = 2
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return c
}

func begin(t *testing.T, delta bool, o settings) *story {
	t.Helper()
	s := &story{T: t, Script: control.StartScript(t), sink: newSink(), stats: stats.New(), delta: delta}
	for name, err := range o.refuse {
		s.sink.refusing(name, err)
	}
	s.Client = run(t, Options{Bootstrap: config(t, s.Addr(), delta, o), Sink: s.sink, Stats: s.stats})
	s.AwaitStream(t, 1)
	return s
}

// variants runs f as a state-of-the-world and as a delta client.
func variants(t *testing.T, o settings, f func(*story)) {
	t.Run("sotw", func(t *testing.T) { f(begin(t, false, o)) })
	t.Run("delta", func(t *testing.T) { f(begin(t, true, o)) })
}

func nameOf(m proto.Message) string {
	switch m := m.(type) {
	case *clusterv3.Cluster:
		return m.GetName()
	case *listenerv3.Listener:
		return m.GetName()
	case *endpointv3.ClusterLoadAssignment:
		return m.GetClusterName()
	case *tlsv3.Secret:
		return m.GetName()
	}
	panic(fmt.Sprintf("unexpected %T", m))
}

// send sends a response with nonce n1, n2, …; removed counts in delta only.
func (s *story) send(url, version string, removed []string, ms ...proto.Message) {
	s.Helper()
	s.nonce++
	nonce := fmt.Sprint("n", s.nonce)
	if s.delta {
		d := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: url, Nonce: nonce, SystemVersionInfo: version, RemovedResources: removed}
		for _, m := range ms {
			d.Resources = append(d.Resources, &discoveryv3.Resource{Name: nameOf(m), Version: version, Resource: pack(m)})
		}
		s.SendDelta(s.T, d)
		return
	}
	d := &discoveryv3.DiscoveryResponse{TypeUrl: url, Nonce: nonce, VersionInfo: version}
	for _, m := range ms {
		d.Resources = append(d.Resources, pack(m))
	}
	s.Send(s.T, d)
}

// want awaits the next requests, in this order; elements are pairs of what a
// state-of-the-world and a delta client sends, "" for nothing.
func (s *story) want(pairs ...string) {
	s.Helper()
	for i := 0; i < len(pairs); i += 2 {
		want := pairs[i]
		if s.delta {
			want = pairs[i+1]
		}
		if want == "" {
			continue
		}
		if got := s.Next(s.T).String(); got != want {
			s.Fatalf("request\n\t%s\nwant\n\t%s", got, want)
		}
	}
}

// ready goes through the start with these clusters, which need no endpoints, and
// these listeners; it takes n1 and n2, both of version 1.
func (s *story) ready(clusters []proto.Message, listeners ...proto.Message) {
	s.Helper()
	s.want("CDS v= n= [] node", "CDS n= node")
	s.send(clusterURL, "1", nil, clusters...)
	s.want("LDS v= n= []", "LDS n=", "CDS v=1 n=n1 []", "CDS n=n1")
	s.send(listenerURL, "1", nil, listeners...)
	s.want("LDS v=1 n=n2 []", "LDS n=n2")
	<-s.Initialized()
}

// stat is the value of a counter or gauge, or the text, by its full name.
func (s *story) stat(name string) string {
	s.Helper()
	for _, st := range s.stats.All() {
		if st.Name == name {
			if st.Kind == stats.KindText {
				return st.Text
			}
			return fmt.Sprint(st.Value)
		}
	}
	s.Fatalf("no stat %s", name)
	return ""
}

func (s *story) wantStats(want map[string]string) {
	s.Helper()
	for name, v := range want {
		if got := s.stat(name); got != v {
			s.Errorf("%s is %s, want %s", name, got, v)
		}
	}
}

func ports(c *api.Cluster) []uint16 {
	var out []uint16
	for _, l := range c.Assignment.Localities {
		for _, e := range l.Endpoints {
			out = append(out, e.Addr.Port())
		}
	}
	return out
}

// quiet is how long silence is listened to.
const quiet = 50 * time.Millisecond

func msgs(ms ...proto.Message) []proto.Message { return ms }
