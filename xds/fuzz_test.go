package xds

import (
	"context"
	"log/slog"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/xds/ads"
	"github.com/sluice-proxy/sluice/xds/bootstrap"
)

// FuzzResponse gives a client one response of any type, whose bytes are the
// fuzzer's, after a good start: it may reject it, and must not fall over it, nor
// publish a cluster without an assignment.
func FuzzResponse(f *testing.F) {
	tcp := tcpListener("l", 19801, "c")
	for i, m := range []proto.Message{tcp, edsCluster("c", 0), assignment("c", 1),
		&corev3.TypedExtensionConfig{Name: "f", TypedConfig: tcp.GetFilterChains()[0].GetFilters()[0].GetTypedConfig()}} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), b, false)
		f.Add(byte(i), b, true)
	}
	urls := []string{listenerURL, clusterURL, endpointURL, extensionURL}
	f.Fuzz(func(t *testing.T, kind byte, b []byte, delta bool) {
		s := newSink()
		c, err := New(Options{Sink: s, Stats: stats.New(), Log: slog.New(slog.DiscardHandler), Bootstrap: &bootstrap.Config{
			Node: &corev3.Node{Id: "n"}, ADS: &bootstrap.ADS{Delta: delta},
			LDS: &bootstrap.Source{}, CDS: &bootstrap.Source{}}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { c.fetches.stop(); c.ttls.stop() }()
		ctx := context.Background()
		c.begin()
		give := func(url string, raw []byte) {
			r := &ads.Response{TypeURL: url, Delta: delta, Version: "1", Nonce: "n", From: c.ads,
				Resources: []ads.Resource{{Name: "c", Version: "1", Body: &anypb.Any{TypeUrl: url, Value: raw}}}}
			c.response(ctx, r)
		}
		give(clusterURL, pack(edsCluster("c", 0)).GetValue())
		give(endpointURL, pack(assignment("c", 1)).GetValue())
		give(listenerURL, pack(tcpListener("l", 19801, "c")).GetValue())
		give(urls[int(kind)%len(urls)], b)
		for _, snap := range s.snapshots() {
			for v := range snap.Clusters.All() {
				if v.Assignment == nil {
					t.Fatalf("cluster %s is published without endpoints", v.Name)
				}
			}
			for _, l := range snap.Listeners {
				published(t, l)
			}
		}
	})
}

// published: no listener leaves with a filter that is still to be found.
func published(t *testing.T, l *api.Listener) {
	t.Helper()
	for _, c := range l.FilterChains {
		for _, f := range c.Filters {
			if f.Discovery != nil {
				t.Fatalf("listener %s is published with a discovered filter", l.Name)
			}
		}
	}
}
