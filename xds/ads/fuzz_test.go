package ads

import (
	"errors"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

func seed(f *testing.F, ms ...proto.Message) {
	for _, m := range ms {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// hold says what must be so of any response.
func hold(t *testing.T, r *Response, sent int) {
	t.Helper()
	if r.Err != nil && !errors.Is(r.Err, ErrResponse) {
		t.Fatalf("error %v does not wrap ErrResponse", r.Err)
	}
	if r.Err == nil && len(r.Resources) != sent {
		t.Fatalf("%d resources of %d", len(r.Resources), sent)
	}
	for _, res := range r.Resources {
		if res.Body != nil && res.Body.GetTypeUrl() != r.TypeURL {
			t.Fatalf("resource of type %s in a response of %s", res.Body.GetTypeUrl(), r.TypeURL)
		}
	}
	if d := detail(r.Err); d != nil && len(d.Message) > maxDetail+len("…") {
		t.Fatalf("detail of %d bytes", len(d.Message))
	}
}

func FuzzSotW(f *testing.F) {
	beat, err := anypb.New(&discoveryv3.Resource{Name: "a", Version: "1", Ttl: durationpb.New(1e9)})
	if err != nil {
		f.Fatal(err)
	}
	full, err := anypb.New(&discoveryv3.Resource{Name: "a", Version: "1", Resource: &anypb.Any{TypeUrl: lds}})
	if err != nil {
		f.Fatal(err)
	}
	seed(f,
		&discoveryv3.DiscoveryResponse{TypeUrl: lds, VersionInfo: "1", Nonce: "n", Resources: []*anypb.Any{{TypeUrl: lds, Value: []byte("\n\x01l")}}},
		&discoveryv3.DiscoveryResponse{TypeUrl: lds, Resources: []*anypb.Any{beat, full}},
		&discoveryv3.DiscoveryResponse{TypeUrl: lds, Resources: []*anypb.Any{{TypeUrl: cds}}})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(discoveryv3.DiscoveryResponse)
		if proto.Unmarshal(b, m) == nil {
			hold(t, fromSotW(m), len(m.GetResources()))
		}
	})
}

func FuzzDelta(f *testing.F) {
	seed(f,
		&discoveryv3.DeltaDiscoveryResponse{TypeUrl: lds, SystemVersionInfo: "1", Nonce: "n", RemovedResources: []string{"gone"},
			Resources: []*discoveryv3.Resource{{Name: "a", Version: "1", Resource: &anypb.Any{TypeUrl: lds}}, {Name: "b", Ttl: durationpb.New(1e9)}}},
		&discoveryv3.DeltaDiscoveryResponse{TypeUrl: lds, Resources: []*discoveryv3.Resource{{Name: "a"}, {Name: "a"}}},
		&discoveryv3.DeltaDiscoveryResponse{TypeUrl: lds, RemovedResources: []string{"a", "a"}})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(discoveryv3.DeltaDiscoveryResponse)
		if proto.Unmarshal(b, m) == nil {
			hold(t, fromDelta(m), len(m.GetResources()))
		}
	})
}
