package xds

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/xds/resource"
)

func clashText(name, at string) string {
	return fmt.Sprintf("Error adding/updating listener(s) %s: %s\n", name, clashCause(name, at))
}

func clashCause(name, at string) string {
	return fmt.Sprintf("error adding listener: '%s' has duplicate address '%s' as existing listener, to check if the listener "+
		"has duplicated addresses with other listeners or 'enable_reuse_port' is set to 'false' for the listener", name, at)
}

func TestCDSACKWaitsForWarmClusters(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.ready(msgs(staticCluster("s")), tcpListener("l1", 19801, "s"))
		s.send(clusterURL, "2", nil, staticCluster("s"), edsCluster("c", 0))
		s.want("EDS v= n= [c]", "EDS n= +[c]")
		s.Quiet(s.T, quiet)
		s.wantStats(map[string]string{"cluster_manager.warming_clusters": "1", "cluster_manager.active_clusters": "1", "cluster_manager.cluster_added": "2"})
		if d := s.Dump().Resources[clusterURL]; d[0].Name != "c" || d[0].Warming == nil || d[0].Active != nil {
			s.Errorf("dump of the warming cluster is %+v", d[0])
		}
		s.send(clusterURL, "3", nil, staticCluster("s"), edsCluster("c", 0), edsCluster("d", 0))
		s.want("EDS v= n= [c d]", "EDS n= +[d]")
		bad := edsCluster("bad", 0)
		bad.LbPolicy = 99 // PGV: not a defined value
		s.send(clusterURL, "4", nil, bad)
		s.Quiet(s.T, quiet)
		s.send(endpointURL, "1", nil, assignment("c", 1))
		s.want("EDS v=1 n=n6 [c d]", "EDS n=n6")
		s.send(endpointURL, "2", nil, assignment("d", 1))
		// State of the world answers for all three at once, delta for each.
		if s.delta {
			s.want("", "CDS n=n3", "", "CDS n=n4")
		}
		if r := s.Next(s.T); !r.IsNACK(clusterURL) || r.Nonce != "n5" || !s.delta && r.Version != "3" {
			s.Fatalf("request %s, want the NACK of n5", r)
		}
		s.want("EDS v=2 n=n7 [c d]", "EDS n=n7")
		if s.sink.last().Clusters.Get("d") == nil {
			s.Error("cluster d is not in force")
		}
	})
}

func TestOldClusterServesWhileTheNewOneWarms(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.ready(msgs(staticCluster("s")), tcpListener("l1", 19801, "s"))
		moved := edsCluster("s", 0)
		moved.EdsClusterConfig.ServiceName = "svc"
		s.send(clusterURL, "2", nil, moved)
		s.want("EDS v= n= [svc]", "EDS n= +[svc]")
		if got := ports(s.sink.last().Clusters.Get("s")); got[0] != 1 {
			s.Fatalf("endpoints %v, want the old ones", got)
		}
		s.send(endpointURL, "1", nil, assignment("svc", 5))
		s.want("CDS v=2 n=n3 []", "CDS n=n3", "EDS v=1 n=n4 [svc]", "EDS n=n4")
		if got := ports(s.sink.last().Clusters.Get("s")); got[0] != 5 {
			s.Fatalf("endpoints %v, want the new ones", got)
		}
		// Another service: the old one is let go of only when the new one is there.
		again := edsCluster("s", 0)
		again.EdsClusterConfig.ServiceName = "svc2"
		s.send(clusterURL, "3", nil, again)
		s.want("EDS v=1 n=n4 [svc svc2]", "EDS n= +[svc2]")
		s.send(endpointURL, "2", nil, assignment("svc2", 6))
		// In state of the world the answer says that svc is let go of.
		s.want("", "EDS n= -[svc]", "CDS v=3 n=n5 []", "CDS n=n5", "EDS v=2 n=n6 [svc2]", "EDS n=n6")
		if got := ports(s.sink.last().Clusters.Get("s")); got[0] != 6 {
			s.Fatalf("endpoints %v, want 6", got)
		}
	})
}

// Envoy subscribes anew and waits, at most initial_fetch_timeout; here the
// endpoints in force are good enough, and nothing is asked.
func TestChangedClusterWithKnownEndpointsIsInForceAtOnce(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.want("CDS v= n= [] node", "CDS n= node")
		s.send(clusterURL, "1", nil, edsCluster("a", 0))
		s.want("EDS v= n= [a]", "EDS n= +[a]", "CDS v=1 n=n1 []", "CDS n=n1")
		s.send(endpointURL, "1", nil, assignment("a", 4))
		s.want("LDS v= n= []", "LDS n=", "EDS v=1 n=n2 [a]", "EDS n=n2")
		c := edsCluster("a", 0)
		c.ConnectTimeout = durationpb.New(2e9)
		s.send(clusterURL, "2", nil, c)
		s.want("CDS v=2 n=n3 []", "CDS n=n3")
		got := s.sink.last().Clusters.Get("a")
		if got.ConnectTimeout != 2e9 || ports(got)[0] != 4 {
			s.Fatalf("cluster is %+v", got)
		}
		s.wantStats(map[string]string{"cluster_manager.cluster_modified": "1"})
	})
}

func TestRemovalOfClusterBeforeItsListenerIsHarmless(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.want("CDS v= n= [] node", "CDS n= node")
		s.send(clusterURL, "1", nil, edsCluster("a", 0), edsCluster("b", 0))
		s.want("EDS v= n= [a b]", "EDS n= +[a b]", "CDS v=1 n=n1 []", "CDS n=n1")
		s.send(endpointURL, "1", nil, assignment("a", 1), assignment("b", 2))
		s.want("LDS v= n= []", "LDS n=", "EDS v=1 n=n2 [a b]", "EDS n=n2")
		s.send(listenerURL, "1", nil, tcpListener("l1", 19801, "b"))
		s.want("LDS v=1 n=n3 []", "LDS n=n3")
		l1 := s.sink.last().Listener("l1")
		s.send(clusterURL, "2", []string{"b"}, edsCluster("a", 0))
		s.want("EDS v=1 n=n2 [a]", "EDS n= -[b]", "CDS v=2 n=n4 []", "CDS n=n4")
		snap := s.sink.last()
		if snap.Clusters.Get("b") != nil || snap.Listener("l1") != l1 {
			s.Fatal("cluster b stayed, or the listener changed")
		}
		s.send(listenerURL, "2", []string{"l1"})
		s.want("LDS v=2 n=n5 []", "LDS n=n5")
		if len(s.sink.last().Listeners) != 0 {
			s.Fatal("listener l1 stayed")
		}
		s.wantStats(map[string]string{"cluster_manager.cluster_removed": "1", "listener_manager.listener_removed": "1", "listener_manager.total_listeners_active": "0"})
		for _, st := range s.stats.All() {
			if strings.HasPrefix(st.Name, "cluster.b.") {
				s.Errorf("%s outlives its cluster", st.Name)
			}
		}
	})
}

func TestUnchangedResendChangesNothing(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.want("CDS v= n= [] node", "CDS n= node")
		s.send(clusterURL, "1", nil, edsCluster("a", 0), staticCluster("s"))
		s.want("EDS v= n= [a]", "EDS n= +[a]", "CDS v=1 n=n1 []", "CDS n=n1")
		s.send(endpointURL, "1", nil, assignment("a", 1))
		s.want("LDS v= n= []", "LDS n=", "EDS v=1 n=n2 [a]", "EDS n=n2")
		s.send(listenerURL, "1", nil, tcpListener("l1", 19801, "a"))
		s.want("LDS v=1 n=n3 []", "LDS n=n3")
		before := s.sink.last()
		s.send(clusterURL, "2", nil, staticCluster("s"), edsCluster("a", 0))
		s.want("CDS v=2 n=n4 []", "CDS n=n4")
		s.send(endpointURL, "", nil, assignment("a", 1))
		s.want("EDS v= n=n5 [a]", "EDS n=n5")
		s.send(listenerURL, "", nil, tcpListener("l1", 19801, "a"))
		s.want("LDS v= n=n6 []", "LDS n=n6")
		// Other bytes with the same meaning: a field that has no effect.
		same := tcpListener("l1", 19801, "a")
		same.FilterChains[0].Filters[0].ConfigType = tcpListener("l1", 1, "a").FilterChains[0].Filters[0].ConfigType
		same.Metadata = &corev3.Metadata{}
		s.send(listenerURL, "4", nil, same)
		s.want("LDS v=4 n=n7 []", "LDS n=n7")
		noted := staticCluster("s")
		noted.Metadata = &corev3.Metadata{}
		s.send(clusterURL, "4", nil, noted, edsCluster("a", 0))
		s.want("CDS v=4 n=n8 []", "CDS n=n8")
		explicit := assignment("a", 1)
		explicit.Policy = &endpointv3.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(140)}
		s.send(endpointURL, "4", nil, explicit)
		s.want("EDS v=4 n=n9 [a]", "EDS n=n9")
		for _, d := range s.Dump().Resources[clusterURL] {
			if want := map[string]string{"a": "1", "s": "4"}[d.Name]; d.Version != want {
				s.Errorf("dump of %s has version %s, want %s", d.Name, d.Version, want)
			}
		}
		if after := s.sink.last(); after != before {
			s.Fatalf("generation %d was published for nothing", after.Generation)
		}
		s.wantStats(map[string]string{"listener_manager.listener_modified": "0", "cluster_manager.cluster_modified": "0", "cluster_manager.cds.config_reload": "1"})
		// A change keeps the pointers of all that did not change.
		s.send(endpointURL, "6", nil, assignment("a", 2))
		s.want("EDS v=6 n=n10 [a]", "EDS n=n10")
		after := s.sink.last()
		if after.Generation != before.Generation+1 || after.Listener("l1") != before.Listener("l1") || after.Clusters.Get("s") != before.Clusters.Get("s") {
			s.Fatal("the change of one cluster replaced other resources")
		}
		if ports(before.Clusters.Get("a"))[0] != 1 || ports(after.Clusters.Get("a"))[0] != 2 {
			s.Fatal("a published snapshot was changed")
		}
	})
}

func TestGoodListenersOfABadResponseAreInForce(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.ready(msgs(staticCluster("s")), tcpListener("l1", 19801, "s"))
		s.send(listenerURL, "2", nil, badListener("l1", "not.ip"), badListener("b2", "not.ip2"), tcpListener("l2", 19802, "s"))
		r := s.Next(s.T)
		if !r.IsNACK(listenerURL) || r.Nonce != "n3" || !s.delta && r.Version != "1" {
			s.Fatalf("request %s, want the NACK of n3", r)
		}
		text := r.Error.GetMessage()
		for _, want := range []string{"Error adding/updating listener(s) l1: ", "\nb2: ", "not.ip", "not.ip2", "address"} {
			if !strings.Contains(text, want) {
				s.Errorf("NACK %q lacks %q", text, want)
			}
		}
		snap := s.sink.last()
		if snap.Listener("l1") == nil || snap.Listener("l2") == nil || snap.Listener("b2") != nil {
			s.Fatalf("listeners in force: %v", snap.Listeners)
		}
		d := s.Dump()
		if d.VersionInfo[listenerURL] != "1" {
			s.Errorf("version_info %q, want the last accepted one", d.VersionInfo[listenerURL])
		}
		for _, l := range d.Resources[listenerURL] {
			if bad := l.Name != "l2"; bad != (l.Failed != nil) {
				s.Errorf("dump of %s: failed is %+v", l.Name, l.Failed)
			}
		}
		s.wantStats(map[string]string{"listener_manager.lds.update_rejected": "1", "listener_manager.lds.version_text": "1"})
	})
}

func TestBrokenConstraintRejectsTheWholeResponse(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.ready(msgs(staticCluster("s")), tcpListener("l1", 19801, "s"))
		before := s.sink.last()
		bad := staticCluster("bad")
		bad.LbPolicy = 99
		s.send(clusterURL, "2", nil, staticCluster("new"), bad)
		r := s.Next(s.T)
		if !r.IsNACK(clusterURL) || !s.delta && r.Version != "1" {
			s.Fatalf("request %s, want a NACK", r)
		}
		text := r.Error.GetMessage()
		if strings.Contains(text, "Error adding/updating") || !strings.Contains(text, "bad") || !strings.Contains(text, "lb_policy") && !strings.Contains(text, "LbPolicy") {
			s.Errorf("NACK %q, want resource and field without Envoy's prefix", text)
		}
		if s.sink.last() != before {
			s.Fatal("a part of the response was taken")
		}
	})
}

func TestDuplicates(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.ready(msgs(staticCluster("s")), tcpListener("l1", 19801, "s"))
		before := s.sink.last()
		s.send(listenerURL, "2", nil, tcpListener("l1", 19801, "s"), tcpListener("l3", 19803, "s"), tcpListener("l3", 19804, "s"))
		s.want("LDS v=1 n=n3 [] !13 Error adding/updating listener(s) l3: duplicate listener l3 found\n",
			"LDS n=n3 !13 duplicate name l3 found among added/updated resources")
		if l := s.sink.last().Listener("l3"); s.delta != (l == nil) || l != nil && l.Addresses[0].Addr.Port() != 19803 {
			s.Errorf("listener l3 is %+v", l)
		}
		s.send(clusterURL, "2", nil, staticCluster("s"), staticCluster("z"), staticCluster("z"))
		s.want("CDS v=1 n=n4 [] !13 Error adding/updating cluster(s) z: duplicate cluster z found",
			"CDS n=n4 !13 duplicate name z found among added/updated resources")
		if s.delta && s.sink.last() != before {
			s.Error("a part of a delta response with duplicates was taken")
		}
		if !s.delta && s.sink.last().Clusters.Get("z") == nil {
			s.Error("the first twin was not taken")
		}
	})
}

func TestAddresses(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.ready(msgs(staticCluster("s")), tcpListener("l1", 19801, "s"), tcpListener("l2", 19802, "s"))
		// A swap in one response is refused both ways.
		s.send(listenerURL, "2", nil, tcpListener("l1", 19802, "s"), tcpListener("l2", 19801, "s"))
		text := "Error adding/updating listener(s) l1: " + clashCause("l1", "127.0.0.1:19802") + "\nl2: " + clashCause("l2", "127.0.0.1:19801") + "\n"
		s.want("LDS v=1 n=n3 [] !13 "+text, "LDS n=n3 !13 "+text)
		// Removals come first: their addresses are free.
		s.send(listenerURL, "3", []string{"l1"}, tcpListener("l5", 19801, "s"), tcpListener("l2", 19802, "s"))
		s.want("LDS v=3 n=n4 []", "LDS n=n4")
		snap := s.sink.last()
		if snap.Listener("l1") != nil || snap.Listener("l5") == nil || snap.Listener("l2") == nil {
			s.Fatalf("listeners in force: %v", snap.Listeners)
		}
		// Port 0 never clashes.
		s.send(listenerURL, "4", nil, tcpListener("p", 0, "s"), tcpListener("q", 0, "s"), tcpListener("l5", 19801, "s"), tcpListener("l2", 19802, "s"))
		s.want("LDS v=4 n=n5 []", "LDS n=n5")
	})
}

func TestRefusedListenerKeepsItsLastGoodVersion(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.ready(msgs(staticCluster("s")), tcpListener("l1", 19801, "s"))
		good := s.sink.last().Listener("l1")
		busy := errors.New("cannot bind '127.0.0.1:19900': Address already in use")
		s.sink.refusing("l1", busy)
		s.sink.refusing("new", busy)
		all := msgs(tcpListener("l1", 19900, "s"), tcpListener("new", 19901, "s"), tcpListener("ok", 19902, "s"))
		s.send(listenerURL, "2", nil, all...)
		text := "Error adding/updating listener(s) l1: " + busy.Error() + "\nnew: " + busy.Error() + "\n"
		s.want("LDS v=1 n=n3 [] !13 "+text, "LDS n=n3 !13 "+text)
		s.wantStats(map[string]string{
			"listener_manager.listener_create_failure": "2", "listener_manager.listener_create_success": "4", "listener_manager.total_listeners_active": "2",
			"listener_manager.listener_added": "2", "listener_manager.listener_modified": "0",
		})
		// Not tried again for a change elsewhere.
		s.send(clusterURL, "2", nil, staticCluster("s"), staticCluster("t"))
		s.want("CDS v=2 n=n4 []", "CDS n=n4")
		snap := s.sink.last()
		if snap.Listener("l1") != good || snap.Listener("new") != nil || snap.Listener("ok") == nil {
			s.Fatalf("listeners in force: %v", snap.Listeners)
		}
		// Tried again when it is sent again.
		s.sink.refusing("l1", nil)
		s.sink.refusing("new", nil)
		s.send(listenerURL, "3", nil, all...)
		s.want("LDS v=3 n=n5 []", "LDS n=n5")
		snap = s.sink.last()
		if snap.Listener("l1").Addresses[0].Addr.Port() != 19900 || snap.Listener("new") == nil {
			s.Fatalf("listeners in force: %v", snap.Listeners)
		}
		for _, d := range s.Dump().Resources[listenerURL] {
			if d.Failed != nil {
				s.Errorf("%s still shows %q", d.Name, d.Failed.Details)
			}
		}
	})
}

func TestEndpointsOddities(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.want("CDS v= n= [] node", "CDS n= node")
		e := edsCluster("e", 0)
		e.EdsClusterConfig.ServiceName = "a"
		s.send(clusterURL, "1", nil, edsCluster("a", 0), edsCluster("b", 0), e)
		s.want("EDS v= n= [a b]", "EDS n= +[a b]", "CDS v=1 n=n1 []", "CDS n=n1")
		unasked := assignment("zz", 1)
		unasked.Endpoints[0].Priority = 999 // over the constraint, and nobody cares
		s.send(endpointURL, "1", nil, unasked, assignment("a", 1))
		s.want("EDS v=1 n=n2 [a b]", "EDS n=n2")
		s.send(endpointURL, "2", nil, assignment("b", 1)) // partial: a stays
		s.want("LDS v= n= []", "LDS n=", "EDS v=2 n=n3 [a b]", "EDS n=n3")
		check := func(what string, want map[string]uint16) {
			s.Helper()
			for name, port := range want {
				if got := ports(s.sink.last().Clusters.Get(name)); len(got) != 1 || got[0] != port {
					s.Errorf("%s: cluster %s has endpoints %v, want %d", what, name, got, port)
				}
			}
		}
		check("shared service", map[string]uint16{"a": 1, "b": 1, "e": 1})
		bad := assignment("a", 3)
		bad.Endpoints[0].LbEndpoints[0].GetEndpoint().Address = address("host.name", 3)
		s.send(endpointURL, "3", nil, assignment("b", 9), bad)
		r := s.Next(s.T)
		if !r.IsNACK(endpointURL) || !s.delta && r.Version != "2" || !strings.HasPrefix(r.Error.GetMessage(), "a: ") || !strings.Contains(r.Error.GetMessage(), "host.name") {
			s.Fatalf("request %s, want a NACK that names a and host.name", r)
		}
		check("bad a, good b", map[string]uint16{"a": 1, "b": 9})
		s.send(endpointURL, "4", nil) // empty: nothing is gone
		s.want("EDS v=4 n=n5 [a b]", "EDS n=n5")
		s.send(endpointURL, "5", []string{"a", "b"})
		s.want("EDS v=5 n=n6 [a b]", "EDS n=n6")
		check("removed", map[string]uint16{"a": 1, "b": 9, "e": 1})
		s.send(endpointURL, "6", nil, assignment("b", 9))
		s.want("EDS v=6 n=n7 [a b]", "EDS n=n7")
		s.wantStats(map[string]string{"cluster.b.update_no_rebuild": "1", "cluster.b.version_text": "6", "cluster.b.update_rejected": "1"})
		if s.delta {
			s.wantStats(map[string]string{"cluster.a.update_empty": "1", "cluster.b.update_empty": "1", "cluster.a.version_text": "5"})
		}
	})
}

func TestResponsesThatBreakTheProtocol(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.ready(msgs(staticCluster("s")), tcpListener("l1", 19801, "s"))
		before := s.sink.last()
		cluster, garbage := pack(staticCluster("q")), &anypb.Any{TypeUrl: listenerURL, Value: []byte{0xff}}
		for i, a := range []*anypb.Any{cluster, garbage} {
			nonce := fmt.Sprint("x", i)
			if s.delta {
				s.SendDelta(s.T, &discoveryv3.DeltaDiscoveryResponse{TypeUrl: listenerURL, Nonce: nonce, Resources: []*discoveryv3.Resource{{Name: "q", Resource: a}}})
			} else {
				s.Send(s.T, &discoveryv3.DiscoveryResponse{TypeUrl: listenerURL, Nonce: nonce, VersionInfo: "2", Resources: []*anypb.Any{a}})
			}
			if r := s.Next(s.T); !r.IsNACK(listenerURL) || r.Nonce != nonce {
				s.Fatalf("request %s, want the NACK of %s", r, nonce)
			}
		}
		// Nobody asked for this type: no answer, as Envoy.
		if s.delta {
			s.SendDelta(s.T, &discoveryv3.DeltaDiscoveryResponse{TypeUrl: "type.googleapis.com/foo.Bar", Nonce: "x"})
		} else {
			s.Send(s.T, &discoveryv3.DiscoveryResponse{TypeUrl: "type.googleapis.com/foo.Bar", Nonce: "x"})
		}
		s.Quiet(s.T, quiet)
		if s.sink.last() != before {
			s.Fatal("a part of a malformed response was taken")
		}
	})
}

// In state of the world a heartbeat takes its listener away, as in Envoy 1.40: the
// resource is not in the response.
func TestHeartbeatOfListener(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.ready(msgs(staticCluster("s")), tcpListener("l1", 19801, "s"))
		before := s.sink.last()
		beat := &discoveryv3.Resource{Name: "l1", Version: "1", Ttl: durationpb.New(5e9)}
		if s.delta {
			s.SendDelta(s.T, &discoveryv3.DeltaDiscoveryResponse{TypeUrl: listenerURL, Nonce: "h", Resources: []*discoveryv3.Resource{beat}})
		} else {
			s.Send(s.T, &discoveryv3.DiscoveryResponse{TypeUrl: listenerURL, VersionInfo: "1", Nonce: "h", Resources: []*anypb.Any{pack(beat)}})
		}
		s.want("LDS v=1 n=h []", "LDS n=h")
		if s.delta && s.sink.last() != before {
			s.Fatal("a heartbeat changed the snapshot")
		}
		if !s.delta && len(s.sink.last().Listeners) != 0 {
			s.Fatal("the listener stayed")
		}
	})
}

func TestRestartedControlPlaneIsToldWhatIsInForce(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.ready(msgs(staticCluster("s")), tcpListener("l1", 19801, "s"))
		s.send(clusterURL, "2", nil, staticCluster("s"), edsCluster("c", 0))
		s.want("EDS v= n= [c]", "EDS n= +[c]") // the ACK of n3 is withheld when the server dies
		before := s.sink.last()
		s.Script.Restart(s.T)
		// CDS is not asked for while a cluster warms.
		s.want("LDS v=1 n= [] node", "LDS n= have[l1=1] node", "EDS v= n= [c]", "EDS n= +[c]")
		if s.sink.last() != before {
			s.Fatal("the loss of the control plane changed the snapshot")
		}
		s.send(endpointURL, "1", nil, assignment("c", 1))
		s.want("CDS v=2 n= []", "CDS n= have[c=2 s=2]", "EDS v=1 n=n4 [c]", "EDS n=n4")
		s.wantStats(map[string]string{"cluster_manager.cds.update_failure": s.stat("listener_manager.lds.update_failure"), "control_plane.connected_state": "1"})
	})
}

func TestUnbuiltAndUnknownFieldsAreCounted(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.ready(msgs(staticCluster("s")), tcpListener("l1", 19801, "s"))
		l := tcpListener("l2", 19802, "s")
		l.EnableMptcp = true
		a := pack(l)
		a.Value = append(a.Value, 0xf8, 0x3f, 0x01) // field 1023, which no proto has
		if s.delta {
			s.SendDelta(s.T, &discoveryv3.DeltaDiscoveryResponse{TypeUrl: listenerURL, Nonce: "x", Resources: []*discoveryv3.Resource{{Name: "l2", Resource: a}}})
		} else {
			s.Send(s.T, &discoveryv3.DiscoveryResponse{TypeUrl: listenerURL, Nonce: "x", Resources: []*anypb.Any{a}})
		}
		if r := s.Next(s.T); !r.IsACK(listenerURL, "x") {
			s.Fatalf("request %s, want an ACK", r)
		}
		if s.stat("server.dynamic_unknown_fields") != "1" || s.stat("server.unbuilt_fields") == "0" {
			s.Errorf("unknown %s, unbuilt %s", s.stat("server.dynamic_unknown_fields"), s.stat("server.unbuilt_fields"))
		}
	})
}

func TestWhatHasNoEffectIsSaidOnce(t *testing.T) {
	var log strings.Builder
	f := newFigures(stats.New(), slog.New(slog.NewTextHandler(&log, nil)))
	f.noted(resource.Notes{Unbuilt: []string{"metadata", "filter_chains[0].metadata"}}, true)
	f.noted(resource.Notes{Unbuilt: []string{"filter_chains[7].metadata", "outlier_detection"}}, true)
	for want, n := range map[string]int{"field=metadata": 1, "field=filter_chains[].metadata": 1, "level=WARN": 1, "said once": 3} {
		if got := strings.Count(log.String(), want); got != n {
			t.Errorf("%q is there %d times, want %d, in\n%s", want, got, n, &log)
		}
	}
}

func TestGenerationsGrowByOne(t *testing.T) {
	variants(t, settings{}, func(s *story) {
		s.ready(msgs(staticCluster("s")), tcpListener("l1", 19801, "s"))
		for i := range 20 {
			v := fmt.Sprint(i + 2)
			s.send(clusterURL, v, nil, staticCluster("s"), staticCluster("c"+v))
			if r := s.Next(s.T); !r.IsACK(clusterURL, fmt.Sprint("n", s.nonce)) {
				s.Fatalf("request %s, want an ACK", r)
			}
		}
		var last *api.Snapshot
		for i, snap := range s.sink.snapshots() {
			if snap.Generation != uint64(i+1) || snap == last {
				s.Fatalf("snapshot %d has generation %d", i+1, snap.Generation)
			}
			last = snap
		}
		if last.Clusters.Get("c21") == nil {
			s.Fatal("the last update is not in force")
		}
	})
}
