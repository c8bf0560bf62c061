package tcpproxy

import (
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// demandStats are those of on_demand.
type demandStats struct{ attempt, missing, success, timeout *stats.Counter }

func newDemandStats(sc *stats.Scope) *demandStats {
	return &demandStats{attempt: sc.Counter("on_demand_cluster_attempt"), missing: sc.Counter("on_demand_cluster_missing"),
		success: sc.Counter("on_demand_cluster_success"), timeout: sc.Counter("on_demand_cluster_timeout")}
}

// absent is a cluster that is not there: the connection waits for it, or ends. What
// the client does meanwhile is seen later, as with a connect.
func (s *Session) absent() {
	f := s.factory
	if f.demand == nil {
		s.noRoute()
		return
	}
	f.stats.demand.attempt.Inc()
	s.opening.undemand = f.demand(api.Demand{Cluster: s.opening.route, OnDemand: f.config.OnDemand}, s.conn.Core.Worker, s.discovered)
}

func (s *Session) discovered(d api.DemandOutcome) {
	s.opening.undemand = nil
	n := s.factory.stats.demand
	switch d {
	case api.Available:
		n.success.Inc()
		s.connect()
		return
	case api.Missing:
		n.missing.Inc()
	default:
		n.timeout.Inc()
	}
	s.noRoute()
}

func (s *Session) noRoute() {
	s.factory.stats.noRoute.Inc()
	s.conn.Info.Flags.Set(stream.NoClusterFound)
	s.refuse(noRoute)
}

// giveUpDemand stops the wait for a cluster.
func (s *Session) giveUpDemand() {
	if o := s.opening; o != nil && o.undemand != nil {
		o.undemand()
		o.undemand = nil
	}
}
