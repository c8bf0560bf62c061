package health

import (
	"math"
	"time"

	"github.com/sluice-proxy/sluice/api/runtime"
)

// interval is how long it is to the next check, after one that went well or not
// (HealthCheckerImplBase::interval). A cluster that never had a connection is
// looked at less often.
func (s *session) interval(well bool, c change) time.Duration {
	o := s.check.config
	var base time.Duration
	used := s.k.traffic != nil && s.k.traffic()
	switch {
	case !used && well && c != pending:
		base = o.NoTrafficHealthyInterval
	case !used:
		base = o.NoTrafficInterval
	case well && c == pending:
		base = o.HealthyEdgeInterval
	case well:
		base = o.Interval
	case c == pending:
		base = o.UnhealthyEdgeInterval
	default:
		base = o.UnhealthyInterval
	}
	return s.jittered(base, o.IntervalJitter)
}

// jittered works in milliseconds, as Envoy does, and is never zero.
func (s *session) jittered(base, jitter time.Duration) time.Duration {
	ms := uint64(base / time.Millisecond)
	if percent := uint64(s.check.config.IntervalJitterPercent) * ms / 100; percent > 0 {
		ms += s.k.o.Rand() % percent
	}
	if j := uint64(jitter / time.Millisecond); j > 0 {
		ms += s.k.o.Rand() % j
	}
	ms = min(ms, s.k.o.Runtime.Number("health_check.max_interval", math.MaxInt64))
	ms = max(1, ms, s.k.o.Runtime.Number("health_check.min_interval", 0))
	return time.Duration(min(ms, math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
}

// verifyCluster is whether the service's name is looked at.
func (s *session) verifyCluster() bool {
	return runtime.Chance(s.k.o.Runtime.Number("health_check.verify_cluster", 100), s.k.o.Rand)
}
