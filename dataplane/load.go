package dataplane

import (
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// ClusterNames are those of the clusters in force, in no order.
func (p *Plane) ClusterNames() []string {
	var out []string
	p.eachCluster(func(u *upstream.Cluster) { out = append(out, u.Config().Name) })
	return out
}

// TakeLoad is what a cluster's hosts were given since it was called last; false, if
// the cluster is not in force. It is for one goroutine.
func (p *Plane) TakeLoad(cluster string) (api.ClusterLoad, bool) {
	u := p.cluster(cluster)
	if u == nil {
		return api.ClusterLoad{}, false
	}
	return u.TakeLoad(), true
}
