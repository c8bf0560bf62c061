package dataplane

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
)

func TestClustersInForceAreThoseOfTheSnapshot(t *testing.T) {
	w := newWorld(t)
	random := rand.New(rand.NewPCG(8, 8))
	for range 300 {
		for range 1 + random.IntN(4) {
			name := fmt.Sprint("c", random.IntN(20))
			if random.IntN(3) == 0 {
				w.snap.Clusters = w.snap.Clusters.Without(name)
				continue
			}
			w.cluster(name, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(1+random.IntN(5))))
			if c := w.snap.Clusters.Get(name); random.IntN(5) == 0 {
				c.AltStatName = "other" + name
			}
		}
		w.apply()
		have := w.plane.Clusters()
		if len(have) != w.snap.Clusters.Len() {
			t.Fatalf("%d clusters in force, want %d", len(have), w.snap.Clusters.Len())
		}
		for _, s := range have {
			want := w.snap.Clusters.Get(s.Cluster.Name)
			if want == nil || !want.Equal(s.Cluster) || s.Hosts[0].Endpoint.Addr != want.Assignment.Localities[0].Endpoints[0].Addr {
				t.Fatalf("%s is in force as %v, want %v", s.Cluster.Name, s.Cluster, want)
			}
		}
	}
}

// A listener whose port was in use is tried again, though nothing in the snapshot
// changes.
func TestARefusedListenerIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.cluster("c")
	other := newWorld(t)
	other.cluster("c")
	l := tcpListener("l", "127.0.0.1:0", "c")
	other.apply(l)
	at := other.plane.Listeners()[0].Bound[0].Addr
	same := []*api.Listener{tcpListener("l", at.String(), "c")}
	if a := w.apply(same...); a.Refused["l"] == nil {
		t.Fatal("two listeners on one port")
	}
	other.apply()
	if a := w.apply(same...); a.Refused != nil || len(w.plane.Listeners()) != 1 {
		t.Errorf("the port is free, and the listener is not in force: %v", a.Refused)
	}
}

// An endpoint changes: what that costs does not depend on the other clusters.
func BenchmarkOneEndpointChanges(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p, err := New(Options{Concurrency: 1, Splice: "off", Stats: stats.New()})
			if err != nil {
				b.Fatal(err)
			}
			defer p.Close()
			cluster := func(i, port int) *api.Cluster {
				return &api.Cluster{Name: fmt.Sprint("c", i), Assignment: &api.Assignment{Localities: []api.Locality{{Endpoints: []api.Endpoint{
					{Addr: netip.AddrPortFrom(netip.IPv6Loopback(), uint16(port)), Weight: 1}}}}}}
			}
			s := &api.Snapshot{}
			for i := range n {
				s.Clusters = s.Clusters.With(cluster(i, 1))
				s.Listeners = append(s.Listeners, &api.Listener{Name: fmt.Sprintf("l%06d", i), HandedOnly: true})
			}
			p.Apply(b.Context(), s)
			for i := 0; b.Loop(); i++ {
				s = &api.Snapshot{Generation: uint64(i), Listeners: s.Listeners, Clusters: s.Clusters.With(cluster(7, 1+i&1))}
				p.Apply(b.Context(), s)
			}
		})
	}
}
