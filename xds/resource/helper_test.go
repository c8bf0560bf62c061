package resource

import (
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"
)

// parse reads a message from a YAML flow mapping without its braces.
func parse(t testing.TB, text string, m proto.Message) {
	t.Helper()
	j, err := yaml.YAMLToJSON([]byte("{" + text + "}"))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if err := (protojson.UnmarshalOptions{Resolver: NewResolver()}).Unmarshal(j, m); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

func pack(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func listenerOf(t testing.TB, text string) *listenerv3.Listener {
	var m listenerv3.Listener
	parse(t, text, &m)
	return &m
}

func clusterOf(t testing.TB, text string) *clusterv3.Cluster {
	var m clusterv3.Cluster
	parse(t, text, &m)
	return &m
}

func assignmentOf(t testing.TB, text string) *endpointv3.ClusterLoadAssignment {
	var m endpointv3.ClusterLoadAssignment
	parse(t, text, &m)
	return &m
}

func mustMarshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
