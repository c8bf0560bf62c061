package xds

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/test/control"
)

// Request sequences in this package are Envoy 1.40's, recorded with the same
// scripts against the real one, except where a comment says otherwise.

func TestListenersAreAskedForOnceAllEndpointsCame(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.want("CDS v= n= [] node", "CDS n= node")
		s.send(clusterURL, "1", nil, edsCluster("a", 0), edsCluster("b", 0), staticCluster("s"))
		// While it starts the CDS ACK does not wait for endpoints.
		s.want("EDS v= n= [a b]", "EDS n= +[a b]", "CDS v=1 n=n1 []", "CDS n=n1")
		s.send(endpointURL, "1", nil, assignment("a", 1))
		s.want("EDS v=1 n=n2 [a b]", "EDS n=n2")
		s.send(endpointURL, "2", nil, assignment("b", 2))
		s.want("LDS v= n= []", "LDS n=", "EDS v=2 n=n3 [a b]", "EDS n=n3")
		select {
		case <-s.Initialized():
			s.Fatal("initialized before LDS answered")
		default:
		}
		s.send(listenerURL, "1", nil, tcpListener("l1", 19801, "a"))
		s.want("LDS v=1 n=n4 []", "LDS n=n4")
		<-s.Initialized()
		snap := s.sink.last()
		if snap.Listener("l1") == nil || snap.Clusters.Len() != 3 {
			s.Fatalf("snapshot has listeners %v and %d clusters", snap.Listeners, snap.Clusters.Len())
		}
		s.wantStats(map[string]string{
			"cluster_manager.cds.update_attempt": "2", "cluster_manager.cds.update_success": "1",
			"cluster_manager.cds.version": "13237225503670494420", "cluster_manager.cds.version_text": "1",
			"cluster_manager.cds.config_reload": "1", "cluster_manager.cluster_added": "3",
			"cluster_manager.active_clusters": "3", "cluster_manager.warming_clusters": "0",
			"listener_manager.lds.update_attempt": "2", "listener_manager.lds.update_success": "1",
			"listener_manager.listener_added": "1", "listener_manager.listener_create_success": "2",
			"listener_manager.total_listeners_active": "1", "listener_manager.workers_started": "1",
			"control_plane.connected_state": "1", "cluster.a.update_success": "1", "cluster.a.version_text": "1",
			"cluster.b.version_text": "2",
		})
	})
}

func TestSilentControlPlaneTimesOut(t *testing.T) {
	variants(t, settings{fetch: 50 * time.Millisecond}, func(s *story) {
		s.want("CDS v= n= [] node", "CDS n= node", "LDS v= n= []", "LDS n=")
		<-s.Initialized()
		s.wantStats(map[string]string{
			"cluster_manager.cds.init_fetch_timeout": "1", "cluster_manager.cds.update_attempt": "2",
			"listener_manager.lds.init_fetch_timeout": "1", "listener_manager.lds.update_attempt": "2",
		})
		// What comes late is taken all the same.
		s.send(clusterURL, "1", nil, staticCluster("s"))
		s.want("CDS v=1 n=n1 []", "CDS n=n1")
		s.send(listenerURL, "1", nil, tcpListener("l1", 19801, "s"))
		s.want("LDS v=1 n=n2 []", "LDS n=n2")
	})
}

func TestDeadControlPlaneStillTimesOut(t *testing.T) {
	s := control.StartScript(t)
	s.Stop()
	st := stats.New()
	c := run(t, Options{Bootstrap: config(t, s.Addr(), true, settings{fetch: 50 * time.Millisecond}), Sink: newSink(), Stats: st})
	<-c.Initialized()
	figure := func(name string) uint64 {
		for _, f := range st.All() {
			if f.Name == name {
				return f.Value
			}
		}
		return 0
	}
	if figure("control_plane.connected_state") != 0 || figure("cluster_manager.cds.update_failure") == 0 {
		t.Fatal("a dead control plane is not to be seen in the stats")
	}
}

func TestEndpointsThatNeverComeTimeOutToNone(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.want("CDS v= n= [] node", "CDS n= node")
		s.send(clusterURL, "1", nil, edsCluster("a", 50*time.Millisecond))
		s.want("EDS v= n= [a]", "EDS n= +[a]", "CDS v=1 n=n1 []", "CDS n=n1", "LDS v= n= []", "LDS n=")
		if got := ports(s.sink.last().Clusters.Get("a")); len(got) != 0 {
			s.Fatalf("cluster a has endpoints %v, want none", got)
		}
		s.wantStats(map[string]string{"cluster.a.init_fetch_timeout": "1"})
		s.send(endpointURL, "1", nil, assignment("a", 7))
		s.want("EDS v=1 n=n2 [a]", "EDS n=n2")
		if got := ports(s.sink.last().Clusters.Get("a")); len(got) != 1 || got[0] != 7 {
			s.Fatalf("cluster a has endpoints %v, want 7", got)
		}
	})
}

func TestEveryClusterHasItsOwnTimeout(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.want("CDS v= n= [] node", "CDS n= node")
		s.send(clusterURL, "1", nil, edsCluster("soon", 20*time.Millisecond), edsCluster("later", 600*time.Millisecond), edsCluster("never", 0))
		s.want("EDS v= n= [later never soon]", "EDS n= +[later never soon]", "CDS v=1 n=n1 []", "CDS n=n1")
		s.sink.await(s.T, "cluster soon alone", func(p *api.Snapshot) bool { return p.Clusters.Get("soon") != nil && p.Clusters.Get("later") == nil })
		s.sink.await(s.T, "cluster later", func(p *api.Snapshot) bool { return p.Clusters.Get("later") != nil })
		if s.sink.last().Clusters.Get("never") != nil {
			s.Fatal("a cluster with timeout 0 did not wait for ever")
		}
	})
}

func TestRejectedFirstClustersDoNotHoldUpListeners(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.want("CDS v= n= [] node", "CDS n= node")
		bad := edsCluster("bad", 0)
		bad.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		s.send(clusterURL, "1", nil, bad)
		s.want("LDS v= n= []", "LDS n=")
		if r := s.Next(s.T); !r.IsNACK(clusterURL) {
			s.Fatalf("request %s, want a CDS NACK", r)
		}
	})
}

func TestOnlyLDS(t *testing.T) {
	variants(t, settings{noCDS: true}, func(s *story) {
		s.want("LDS v= n= [] node", "LDS n= node")
		s.send(listenerURL, "1", nil, tcpListener("l1", 19801, "s"))
		s.want("LDS v=1 n=n1 []", "LDS n=n1")
		<-s.Initialized()
	})
}

func TestStaticClusterWithEDSIsAskedForAtOnce(t *testing.T) {
	variants(t, settings{noCDS: true, clusters: []*clusterv3.Cluster{edsCluster("a", 0)}}, func(s *story) {
		s.want("EDS v= n= [a] node", "EDS n= +[a] node")
		if s.sink.snapshots()[0].Clusters.Len() != 0 {
			s.Fatal("a cluster without endpoints was published")
		}
		s.send(endpointURL, "1", nil, assignment("a", 1))
		s.want("LDS v= n= []", "LDS n=", "EDS v=1 n=n1 [a]", "EDS n=n1")
		if c := s.sink.last().Clusters.Get("a"); c == nil || !c.Static {
			s.Fatalf("cluster a is %+v", c)
		}
	})
}

func TestStaticResourcesAreNeitherReplacedNorRemoved(t *testing.T) {
	variants(t, settings{
		clusters: []*clusterv3.Cluster{staticCluster("own")}, listeners: []*listenerv3.Listener{tcpListener("own", 19777, "own")},
	}, func(s *story) {
		s.ready(msgs(staticCluster("s")), tcpListener("l1", 19801, "s"))
		first := s.sink.snapshots()[0]
		other := staticCluster("own")
		other.ConnectTimeout.Seconds = 9
		s.send(clusterURL, "2", nil, staticCluster("s"), other)
		s.want("CDS v=2 n=n3 []", "CDS n=n3") // Envoy accepts, and changes nothing
		s.send(listenerURL, "2", nil, tcpListener("l1", 19801, "s"), tcpListener("own", 19778, "own"))
		s.want("LDS v=2 n=n4 []", "LDS n=n4")
		s.send(clusterURL, "3", []string{"own"}, staticCluster("s"))
		s.want("CDS v=3 n=n5 []", "CDS n=n5")
		s.send(listenerURL, "3", []string{"own", "never"}, tcpListener("l1", 19801, "s"))
		s.want("LDS v=3 n=n6 []", "LDS n=n6")
		last := s.sink.last()
		if last.Clusters.Get("own") != first.Clusters.Get("own") || last.Listener("own") != first.Listener("own") || last.Listener("own") == nil {
			s.Fatal("a static resource was changed")
		}
		if !last.Clusters.Get("own").Static || !last.Listener("own").Static || last.Clusters.Get("s").Static || last.Listener("l1").Static {
			s.Error("what is static and what is not is mixed up")
		}
		s.send(listenerURL, "4", nil, tcpListener("l1", 19801, "s"), tcpListener("l9", 19777, "s"))
		s.want("LDS v=3 n=n7 [] !13 "+clashText("l9", "127.0.0.1:19777"), "LDS n=n7 !13 "+clashText("l9", "127.0.0.1:19777"))
	})
}

func TestStaticListenerThatIsRefusedEndsRun(t *testing.T) {
	k := newSink()
	k.refusing("own", errors.New("cannot bind"))
	b := config(t, control.StartScript(t).Addr(), true, settings{listeners: []*listenerv3.Listener{tcpListener("own", 19777, "x")}})
	c, err := New(Options{Bootstrap: b, Sink: k, Stats: stats.New(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	err = c.Run(context.Background())
	if err == nil || !strings.Contains(err.Error(), "add static listener own: cannot bind") {
		t.Fatalf("run ended with %v", err)
	}
}

func TestStaticOnlyIsReadyAtOnce(t *testing.T) {
	b := config(t, control.StartScript(t).Addr(), true, settings{clusters: []*clusterv3.Cluster{staticCluster("own")}})
	b.ADS, b.LDS, b.CDS = nil, nil, nil
	k := newSink()
	c := run(t, Options{Bootstrap: b, Sink: k, Stats: stats.New()})
	<-c.Initialized()
	if s := k.last(); s.Generation != 1 || s.Clusters.Get("own") == nil {
		t.Fatalf("first snapshot is %+v", s)
	}
}

func TestEDSWithoutADSIsRefused(t *testing.T) {
	b := config(t, control.StartScript(t).Addr(), true, settings{clusters: []*clusterv3.Cluster{edsCluster("own", 0)}})
	b.ADS, b.LDS, b.CDS = nil, nil, nil
	if _, err := New(Options{Bootstrap: b, Sink: newSink(), Stats: stats.New(), Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Fatal("a cluster that nobody can fill was accepted")
	}
}
