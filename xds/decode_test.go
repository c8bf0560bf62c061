package xds

import (
	"testing"

	"github.com/cespare/xxhash/v2"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"
)

// The hashes are the `version` gauges of Envoy 1.40 for these version_info.
func TestVersionHashIsEnvoys(t *testing.T) {
	for version, want := range map[string]uint64{
		"1": 13237225503670494420, "2": 6927017134761466251, "3": 2744517546871237796, "4": 10464417414901951369,
		"5": 7674613650421074157, "6": 1310192797669293303, "7": 1750302349509622455, "11": 2489716146917121730,
		"": 17241709254077376921,
		"a version that is longer than thirty-two bytes, and than sixty-four as well": 7982685105756481142,
		// xxHash's own reference values.
		"Nobody inspects the spammish repetition": 0xfbcea83c8a378bf1,
	} {
		if got := xxhash.Sum64String(version); got != want {
			t.Errorf("hash of %q is %d, want %d", version, got, want)
		}
	}
}

// FuzzFirstString holds the short cut to what the decoders make of the same bytes.
func FuzzFirstString(f *testing.F) {
	for _, m := range []proto.Message{tcpListener("l1", 1, "a"), edsCluster("a", 0), staticCluster("s"), assignment("zz", 1)} {
		b := pack(m).GetValue()
		f.Add(b)
		f.Add(append(b, 0x0a, 1, 'x')) // the name twice: the last one counts
	}
	f.Add([]byte{})
	f.Add([]byte{0x0a, 0x05, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := firstString(b)
		for _, m := range []interface {
			proto.Message
		}{new(listenerv3.Listener), new(clusterv3.Cluster), new(endpointv3.ClusterLoadAssignment)} {
			if proto.Unmarshal(b, m) != nil {
				continue
			}
			if want := nameOf(m); !ok || got != want {
				t.Errorf("name %q %v, but %T says %q", got, ok, m, want)
			}
		}
	})
}
