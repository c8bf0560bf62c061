package health

import (
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
)

// checkStats are the figures of one check. Where a cluster has several, these
// stand under its name, and what they come to together under `health_check.`.
type checkStats struct {
	scopes []*stats.Scope

	attempt, success, failure, networkFailure, verifyCluster *stats.Counter
	healthy, degraded                                        *stats.Gauge
	// of the cluster, nil if it has one check
	allHealthy, allDegraded *stats.Gauge
}

func newCheckStats(store *stats.Store, c *api.Cluster, name string) *checkStats {
	tag := stats.Tag{Name: "envoy.cluster_name", Value: c.StatName()}
	sc := store.Scope("cluster", tag, "health_check")
	s := &checkStats{scopes: []*stats.Scope{sc}}
	if len(c.HealthChecks) > 1 {
		s.allHealthy, s.allDegraded = sc.Gauge("healthy"), sc.Gauge("degraded")
	}
	if name != "" {
		sc = store.Scope("cluster", tag, "health_check", "name", name)
		s.scopes = append(s.scopes, sc)
	}
	s.attempt, s.success, s.failure = sc.Counter("attempt"), sc.Counter("success"), sc.Counter("failure")
	s.networkFailure, s.verifyCluster = sc.Counter("network_failure"), sc.Counter("verify_cluster")
	s.healthy, s.degraded = sc.Gauge("healthy"), sc.Gauge("degraded")
	sc.Counter("passive_failure") // of HTTP responses; named as Envoy names it
	return s
}

func (s *checkStats) release() {
	for _, sc := range s.scopes {
		sc.Release()
	}
}

// moved keeps the gauges: own are the flags of the session, all those of its
// host.
func (s *checkStats) moved(ownWas, own, allWas, all api.HealthFlags) {
	step(s.healthy, ownWas&api.FailedActiveHC == 0, own&api.FailedActiveHC == 0)
	step(s.degraded, ownWas&api.DegradedActiveHC != 0, own&api.DegradedActiveHC != 0)
	step(s.allHealthy, allWas&api.FailedActiveHC == 0, all&api.FailedActiveHC == 0)
	step(s.allDegraded, allWas&api.DegradedActiveHC != 0, all&api.DegradedActiveHC != 0)
}

func step(g *stats.Gauge, was, is bool) {
	switch {
	case g == nil || was == is:
	case is:
		g.Inc()
	default:
		g.Dec()
	}
}
