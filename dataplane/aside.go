package dataplane

import (
	"context"
	"fmt"
	"net"

	"github.com/sluice-proxy/sluice/dataplane/grpcservice"
)

// Dial connects to a host of a cluster in force, for Sluice itself.
func (p *Plane) Dial(ctx context.Context, cluster string) (net.Conn, error) {
	c := p.cluster(cluster)
	if c == nil {
		return nil, fmt.Errorf("connect to cluster %s: it is not in force", cluster)
	}
	return grpcservice.Dial(ctx, c)
}
