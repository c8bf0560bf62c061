package resource

import (
	"errors"
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/sluice-proxy/sluice/api"
)

const kindOriginalDst = "envoy.cluster.original_dst"

// originalDst reads a cluster whose hosts are the destinations of its connections.
func (w *walker) originalDst(c *api.Cluster, p *clusterv3.Cluster) {
	if p.GetLoadAssignment() != nil {
		w.fail("load_assignment", errors.New("ORIGINAL_DST clusters must have no load assignment configured"))
	}
	o := p.GetOriginalDstLbConfig()
	if o.GetHttpHeaderName() != "" && !o.GetUseHttpHeader() {
		w.fail("original_dst_lb_config", fmt.Errorf("ORIGINAL_DST cluster: invalid config http_header_name=%s and use_http_header is false. Set use_http_header to true if http_header_name is desired.", short(o.GetHttpHeaderName())))
	}
	c.Discovery = api.ToOriginalDst
	c.Assignment = &api.Assignment{OverprovisioningFactor: api.DefaultOverprovisioningFactor}
	c.ByDestination = &api.ByDestination{
		Cleanup: w.duration("cleanup_interval", p.GetCleanupInterval(), api.DefaultCleanupInterval),
		Port:    uint16(o.GetUpstreamPortOverride().GetValue()), // the proto bounds it
	}
	if k := o.GetMetadataKey(); k != nil {
		key := &api.MetadataKey{Filter: k.GetKey()}
		for _, s := range k.GetPath() {
			key.Path = append(key.Path, s.GetKey())
		}
		c.ByDestination.Metadata = key
	}
}

// providesBalancer names the type of a cluster that brings its own balancer; empty
// for one that does not.
func providesBalancer(p *clusterv3.Cluster) string {
	switch t := p.GetClusterType(); {
	case aggregated(t):
		return kindAggregate
	case innerURL(t.GetTypedConfig()) == typeForwardProxy:
		return kindForwardProxy
	case t.GetName() == kindOriginalDst:
		return kindOriginalDst
	case t == nil && p.GetType() == clusterv3.Cluster_ORIGINAL_DST:
		return "ORIGINAL_DST"
	}
	return ""
}

// provided checks that nothing but CLUSTER_PROVIDED is asked for.
func (w *walker) provided(p *clusterv3.Cluster, kind string) {
	switch {
	case p.GetLbPolicy() == clusterv3.Cluster_CLUSTER_PROVIDED && p.GetLbSubsetConfig() != nil:
		w.clusterProvided(p)
	case p.GetLbPolicy() == clusterv3.Cluster_CLUSTER_PROVIDED, typedProvided(p) && kind != "ORIGINAL_DST":
	case kind == kindAggregate, kind == kindForwardProxy:
		w.fail("lb_policy", fmt.Errorf("cluster manager: cluster provided LB not specified but cluster '%s' provided one. Check cluster documentation.", p.GetName()))
	default:
		w.fail("lb_policy", fmt.Errorf("cluster: LB policy %s is not valid for Cluster type %s. Only 'CLUSTER_PROVIDED' is allowed with cluster type 'ORIGINAL_DST'", p.GetLbPolicy(), kind))
	}
}

// typedProvided says whether load_balancing_policy leaves it to the cluster.
func typedProvided(p *clusterv3.Cluster) bool {
	all := p.GetLoadBalancingPolicy().GetPolicies()
	return len(all) > 0 && innerURL(all[0].GetTypedExtensionConfig().GetTypedConfig()) == "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided"
}
