package xds

import (
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	dfpclusterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/dynamic_forward_proxy/v3"
	snidfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_dynamic_forward_proxy/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// forwarding is a cluster whose DNS cache is called names, and takes so many.
func forwarding(name string, hosts uint32) *clusterv3.Cluster {
	return &clusterv3.Cluster{Name: name, LbPolicy: clusterv3.Cluster_CLUSTER_PROVIDED,
		ClusterDiscoveryType: &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{Name: "dfp",
			TypedConfig: pack(&dfpclusterv3.ClusterConfig{ClusterImplementationSpecifier: &dfpclusterv3.ClusterConfig_DnsCacheConfig{DnsCacheConfig: cacheOf(hosts)}})}}}
}

func cacheOf(hosts uint32) *dfpv3.DnsCacheConfig {
	return &dfpv3.DnsCacheConfig{Name: "names", MaxHosts: wrapperspb.UInt32(hosts)}
}

func TestCachesOfOneNameAreOne(t *testing.T) {
	const words = "config specified DNS cache 'names' with different settings"
	nack := func(s *story, url string) {
		s.Helper()
		if r := s.Next(s.T); !r.IsNACK(url) || !strings.Contains(r.Error.GetMessage(), words) {
			s.Fatalf("request %s, want a NACK that says %q", r, words)
		}
	}
	variants(t, settings{}, func(s *story) {
		s.ready(msgs(forwarding("a", 1)))
		s.send(clusterURL, "2", nil, forwarding("a", 1), forwarding("b", 2))
		nack(s, clusterURL)
		l := tcpListener("l", 19801, "a")
		l.FilterChains[0].Filters = append([]*listenerv3.Filter{{Name: "sni", ConfigType: &listenerv3.Filter_TypedConfig{
			TypedConfig: pack(&snidfpv3.FilterConfig{DnsCacheConfig: cacheOf(3)})}}}, l.FilterChains[0].Filters...)
		s.send(listenerURL, "2", nil, l)
		nack(s, listenerURL)
		if snap := s.sink.last(); snap.Clusters.Get("b") != nil || len(snap.Listeners) > 0 {
			s.Error("what was refused is in force")
		}
		// Nobody uses the cache any more: its name is free.
		s.send(clusterURL, "3", []string{"a"}, staticCluster("s"))
		s.want("CDS v=3 n=n5 []", "CDS n=n5")
		s.send(listenerURL, "3", nil, l)
		s.want("LDS v=3 n=n6 []", "LDS n=n6")
		s.send(clusterURL, "4", nil, staticCluster("s"), forwarding("a", 1))
		nack(s, clusterURL)
		s.send(clusterURL, "5", nil, staticCluster("s"), forwarding("a", 3))
		s.want("CDS v=5 n=n8 []", "CDS n=n8")
	})
}
