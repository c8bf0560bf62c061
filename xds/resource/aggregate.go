package resource

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	aggregatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
)

const (
	kindAggregate = "envoy.clusters.aggregate"
	typeAggregate = "envoy.extensions.clusters.aggregate.v3.ClusterConfig"
)

func aggregatePolicies() policies {
	return policies{
		typeAggregate: policy{}.
			fields(built, "clusters"),
	}
}

func aggregated(t *clusterv3.Cluster_CustomClusterType) bool {
	return innerURL(t.GetTypedConfig()) == typeAggregate
}

// aggregate reads a cluster that has the hosts of others. Whether these are there
// is seen by each connection, as in Envoy.
func (w *walker) aggregate(_ string, c *api.Cluster, _ *clusterv3.Cluster, m proto.Message) {
	c.Discovery = api.Aggregate
	c.Assignment = &api.Assignment{OverprovisioningFactor: api.DefaultOverprovisioningFactor}
	c.Members = m.(*aggregatev3.ClusterConfig).GetClusters()
}
