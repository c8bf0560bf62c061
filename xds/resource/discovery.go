package resource

import (
	"errors"
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	dnsclusterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sluice-proxy/sluice/api"
)

// kinds are the cluster factories that need no configuration of their own, by
// Envoy's names.
var kinds = map[string]clusterv3.Cluster_DiscoveryType{
	"envoy.cluster.static":       clusterv3.Cluster_STATIC,
	"envoy.cluster.strict_dns":   clusterv3.Cluster_STRICT_DNS,
	"envoy.cluster.logical_dns":  clusterv3.Cluster_LOGICAL_DNS,
	"envoy.cluster.eds":          clusterv3.Cluster_EDS,
	"envoy.cluster.original_dst": clusterv3.Cluster_ORIGINAL_DST,
}

// dnsCluster may be named without a configuration.
const dnsCluster = "envoy.cluster.dns"

// clusterType tells whether a cluster_type is built. As in Envoy the type of its
// configuration counts before its name.
func clusterType(v protoreflect.Value) (decision, string) {
	t, _ := v.Message().Interface().(*clusterv3.Cluster_CustomClusterType)
	kind := innerURL(t.GetTypedConfig())
	if _, ok := extensions[protoreflect.FullName(kind)]; ok {
		return built, ""
	}
	if _, ok := kinds[t.GetName()]; ok || t.GetName() == dnsCluster && kind == "" {
		return built, ""
	}
	if kind != "" && unregistered("", t.GetTypedConfig()) != "" {
		return refused, fmt.Sprintf("Didn't find a registered cluster factory implementation for type: '%s'", short(kind))
	}
	if kind != "" {
		return refused, ""
	}
	return refused, fmt.Sprintf("Didn't find a registered cluster factory implementation for name: '%s'", short(t.GetName()))
}

// extensions read the clusters that have a configuration of their own.
var extensions = map[protoreflect.FullName]func(w *walker, path string, c *api.Cluster, p *clusterv3.Cluster, m proto.Message){
	(&dnsclusterv3.DnsCluster{}).ProtoReflect().Descriptor().FullName(): (*walker).dnsCluster,
	typeAggregate:    (*walker).aggregate,
	typeForwardProxy: (*walker).forwardProxy,
}

// discovery reads where the endpoints come from.
func (w *walker) discovery(c *api.Cluster, p *clusterv3.Cluster) {
	kind := p.GetType()
	if t := p.GetClusterType(); t != nil {
		m, name, _, err := open(t.GetTypedConfig())
		read, ok := extensions[protoreflect.FullName(name)]
		path := "cluster_type"
		switch {
		case err != nil:
			w.fail(path, err)
			return
		case ok:
			if err := constraint(path+".typed_config", m); err != nil {
				w.fail("", err)
				return
			}
			w.message(path+".typed_config", m.ProtoReflect())
			read(w, path+".typed_config", c, p, m)
			return
		}
		if name == "" && t.GetName() == dnsCluster {
			w.dnsCluster(path, c, p, &dnsclusterv3.DnsCluster{})
			return
		}
		if kind, ok = kinds[t.GetName()]; !ok {
			return // refused
		}
	}
	if kind != clusterv3.Cluster_EDS && p.GetEdsClusterConfig() != nil {
		w.fail("eds_cluster_config", errors.New("eds_cluster_config set in a non-EDS cluster"))
	}
	switch kind {
	case clusterv3.Cluster_STATIC:
		w.static(c, p)
	case clusterv3.Cluster_EDS:
		w.eds(c, p)
	case clusterv3.Cluster_STRICT_DNS, clusterv3.Cluster_LOGICAL_DNS:
		w.dns(c, p, kind == clusterv3.Cluster_LOGICAL_DNS)
	case clusterv3.Cluster_ORIGINAL_DST:
		w.originalDst(c, p)
	}
}
