package xds

import (
	"context"
	"sync"

	"github.com/sluice-proxy/sluice/api"
)

// Warmer is a Sink that checks the hosts of Snapshot.Warming, and tells when it
// has done so, from any goroutine. Without one no cluster waits for its active
// checks.
type Warmer interface {
	OnWarm(func(*api.Cluster))
}

// warmNews are the clusters that a Warmer has told of, for Run's goroutine.
type warmNews struct {
	mu   sync.Mutex
	told []*api.Cluster
	wake chan struct{} // holds one
}

func (n *warmNews) tell(v *api.Cluster) {
	n.mu.Lock()
	n.told = append(n.told, v)
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *warmNews) take() []*api.Cluster {
	n.mu.Lock()
	defer n.mu.Unlock()
	told := n.told
	n.told = nil
	return told
}

// checked puts clusters in force whose hosts have been checked.
func (c *Client) checked(ctx context.Context) {
	of := false
	for _, v := range c.warm.take() {
		c.mu.Lock()
		of = c.model.Checked(v) || of
		c.mu.Unlock()
	}
	if !of {
		return
	}
	c.wantEndpoints() // an older version may have let go of a name
	c.publish(ctx)
	c.warmed()
}
