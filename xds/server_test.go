package xds

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/test/control"
)

// state is a world of n clusters with endpoints on port, and a listener each.
func state(version string, n int, port uint32) control.Resources {
	r := control.Resources{Version: version}
	for i := range n {
		name := fmt.Sprintf("c%05d", i)
		r.Clusters = append(r.Clusters, types.Resource(edsCluster(name, 0)))
		r.Endpoints = append(r.Endpoints, types.Resource(assignment(name, port)))
		r.Listeners = append(r.Listeners, types.Resource(tcpListener("l"+name, uint32(20000+i%40000), name)))
	}
	return r
}

// whole tells whether s has n listeners and clusters, all endpoints on port.
func whole(n int, port uint16) func(*api.Snapshot) bool {
	return func(s *api.Snapshot) bool {
		if len(s.Listeners) != n || s.Clusters.Len() != n {
			return false
		}
		for c := range s.Clusters.All() {
			if p := ports(c); len(p) != 1 || p[0] != port {
				return false
			}
		}
		return true
	}
}

func TestGoControlPlane(t *testing.T) {
	for name, delta := range map[string]bool{"sotw": false, "delta": true} {
		t.Run(name, func(t *testing.T) {
			s, k := control.StartServer(t, control.Hooks{}), newSink()
			s.Update(t, state("1", 20, 1))
			var bursts atomic.Int32
			c := run(t, Options{Bootstrap: config(t, s.Addr(), delta, settings{}), Sink: k, Stats: stats.New(), Burst: func() { bursts.Add(1) }})
			<-c.Initialized()
			k.await(t, "20 clusters on port 1", whole(20, 1))
			for g := range 20 { // a push that changes everything, then one that removes half
				port := uint16(100 + g)
				s.Update(t, state(fmt.Sprint("a", g), 20, uint32(port)))
				k.await(t, "new ports", whole(20, port))
				// Another port: 10 on this one there may have been on the way.
				s.Update(t, state(fmt.Sprint("b", g), 10, uint32(port+1000)))
				k.await(t, "half of them", whole(10, port+1000))
			}
			before := k.last()
			s.Restart(t)
			s.Await(t, "the second stream's LDS", func(r control.Request) bool { return r.Stream == 1 && r.Node != nil && r.TypeURL == clusterURL })
			s.Update(t, state("z", 20, 7))
			k.await(t, "the state after the restart", whole(20, 7))
			if before.Clusters.Len() != 10 {
				t.Error("a published snapshot was changed")
			}
			for _, r := range s.Requests() {
				if r.Error != nil {
					t.Errorf("NACK %s", r)
				}
			}
			if n := bursts.Load(); n != 0 {
				t.Errorf("%d bursts of 20 resources", n)
			}
		})
	}
}

// A response is one generation, however big, and a dump can be had meanwhile.
func TestTenThousandClusters(t *testing.T) {
	if testing.Short() {
		t.Skip("big push: left out by -short")
	}
	const n = 10000
	s, k, st := control.StartServer(t, control.Hooks{}), newSink(), stats.New()
	push := func(version string, port uint32) {
		r := state(version, n, port)
		r.Listeners = nil
		s.Update(t, r)
	}
	all := func(port uint16) func(*api.Snapshot) bool {
		return func(s *api.Snapshot) bool {
			return s.Clusters.Len() == n && ports(s.Clusters.Get("c00000"))[0] == port && ports(s.Clusters.Get("c09999"))[0] == port
		}
	}
	push("1", 1)
	var bursts atomic.Int32
	c := run(t, Options{Bootstrap: config(t, s.Addr(), true, settings{}), Sink: k, Stats: st, Burst: func() { bursts.Add(1) }})
	<-c.Initialized()
	k.await(t, "all clusters", all(1))
	if n := bursts.Load(); n != 2 {
		t.Errorf("%d bursts, want one of clusters and one of endpoints", n)
	}
	generations := len(k.snapshots())
	start := time.Now()
	push("2", 2)
	stop, worst := make(chan struct{}), make(chan time.Duration)
	go watchDump(c, stop, worst)
	k.await(t, "all new endpoints", all(2))
	close(stop)
	t.Logf("push of %d endpoints in %v, longest wait for a dump %v", n, time.Since(start), <-worst)
	if got := len(k.snapshots()) - generations; got != 1 {
		t.Errorf("%d generations for one EDS response, want 1", got)
	}
}

// watchDump reads the dump all the time, as an admin client may.
func watchDump(c *Client, stop <-chan struct{}, worst chan<- time.Duration) {
	var longest time.Duration
	for {
		select {
		case <-stop:
			worst <- longest
			return
		default:
			start := time.Now()
			c.Dump()
			longest = max(longest, time.Since(start))
		}
	}
}
