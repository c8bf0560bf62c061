package control

import (
	"context"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"go.uber.org/goleak"
	statusv3 "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRequestInOneLine(t *testing.T) {
	for want, r := range map[string]Request{
		"CDS v= n= [] node":               {TypeURL: resourcev3.ClusterType, Node: &corev3.Node{}},
		"EDS v=1 n=a [a b]":               {TypeURL: resourcev3.EndpointType, Version: "1", Nonce: "a", Names: []string{"b", "a"}},
		"LDS v= n=x [] !13 bad":           {TypeURL: resourcev3.ListenerType, Nonce: "x", Error: &statusv3.Status{Code: 13, Message: "bad"}},
		"EDS n= +[a b] -[c] have[a=1]":    {TypeURL: resourcev3.EndpointType, Delta: true, Subscribe: []string{"b", "a"}, Unsubscribe: []string{"c"}, Initial: map[string]string{"a": "1"}},
		"type.googleapis.com/foo.Bar n=q": {TypeURL: "type.googleapis.com/foo.Bar", Delta: true, Nonce: "q"},
	} {
		if got := r.String(); got != want {
			t.Errorf("request %q, want %q", got, want)
		}
	}
}

func TestNextHandsOutEachRequestOnce(t *testing.T) {
	s := newSeen()
	s.add(Request{Nonce: "1"})
	go s.add(Request{Nonce: "2"})
	for _, want := range []string{"1", "2"} {
		if got := s.Next(t).Nonce; got != want {
			t.Fatalf("request %s, want %s", got, want)
		}
	}
	if _, found := s.wait(10*time.Millisecond, s.takeLocked); found {
		t.Fatal("a request was handed out twice")
	}
	if got := s.Await(t, "1", func(r Request) bool { return r.Nonce == "1" }); got.Nonce != "1" {
		t.Fatal("Await does not look back")
	}
}

// stream opens a raw stream to a server.
func stream(t *testing.T, to string) discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+to, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	t.Cleanup(func() { cancel(); _ = conn.Close() })
	g, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestServerAnswersFromItsSnapshotAndRecords(t *testing.T) {
	refused := make(chan Request, 1)
	s := StartServer(t, Hooks{Request: func(r Request) error {
		if r.Error != nil {
			refused <- r
			return context.Canceled
		}
		return nil
	}})
	s.Update(t, Resources{Version: "7", Clusters: []types.Resource{&clusterv3.Cluster{Name: "a"}}})
	g := stream(t, s.Addr().String())
	if err := g.Send(&discoveryv3.DiscoveryRequest{TypeUrl: resourcev3.ClusterType, Node: &corev3.Node{Id: "any"}}); err != nil {
		t.Fatal(err)
	}
	r, err := g.Recv()
	if err != nil || r.GetVersionInfo() != "7" || len(r.GetResources()) != 1 {
		t.Fatalf("response %v, %v", r, err)
	}
	if got := s.Next(t).String(); got != "CDS v= n= [] node" {
		t.Fatalf("recorded %q", got)
	}
	_ = g.Send(&discoveryv3.DiscoveryRequest{TypeUrl: resourcev3.ClusterType, ResponseNonce: r.GetNonce(), ErrorDetail: &statusv3.Status{Code: 13}})
	if got := <-refused; !got.IsNACK(resourcev3.ClusterType) {
		t.Fatalf("hook saw %s", got)
	}
	if _, err := g.Recv(); err == nil {
		t.Fatal("the hook's error did not end the stream")
	}
}

func TestScriptComesBackOnTheSamePort(t *testing.T) {
	s := StartScript(t)
	at := s.Addr()
	g := stream(t, at.String())
	s.AwaitStream(t, 1)
	s.Restart(t)
	if _, err := g.Recv(); err == nil {
		t.Fatal("the stream outlived its server")
	}
	if s.Addr() != at {
		t.Fatalf("address %s after %s", s.Addr(), at)
	}
	again := stream(t, at.String())
	s.AwaitStream(t, 2)
	s.Send(t, &discoveryv3.DiscoveryResponse{Nonce: "z"})
	if r, err := again.Recv(); err != nil || r.GetNonce() != "z" {
		t.Fatalf("response %v, %v", r, err)
	}
	s.Close(nil)
	if _, err := again.Recv(); err == nil {
		t.Fatal("Close did not end the stream")
	}
}
