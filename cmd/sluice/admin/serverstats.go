package admin

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/api/stats"
)

// serverStats are Envoy's `server.*` (server.h, ALL_SERVER_STATS) for what is
// here. They are brought up to date when somebody reads.
type serverStats struct {
	uptime, live, state, totalConnections       *stats.Gauge
	memoryAllocated, memoryHeap, memoryPhysical *stats.Gauge
	certExpiry, workersStarted                  *stats.Gauge
	initTime                                    *stats.Histogram
	runtime                                     *runtimeStats
}

func newServerStats(o Options) *serverStats {
	sc := o.Stats.Scope("server")
	ss := &serverStats{
		uptime:           sc.Gauge("uptime"),
		live:             sc.Gauge("live"),
		state:            sc.Gauge("state"),
		totalConnections: sc.Gauge("total_connections"),
		memoryAllocated:  sc.Gauge("memory_allocated"),
		memoryHeap:       sc.Gauge("memory_heap_size"),
		memoryPhysical:   sc.Gauge("memory_physical_size"),
		certExpiry:       sc.Gauge("days_until_first_cert_expiring"),
		workersStarted:   o.Stats.Scope("listener_manager").Gauge("workers_started"),
		initTime:         sc.Histogram("initialization_time_ms"),
		runtime:          newRuntimeStats(o.Runtime, o.Stats),
	}
	sc.Gauge("concurrency").Set(uint64(o.Concurrency))
	sc.Gauge("parent_connections").Set(0)
	sc.Gauge("hot_restart_epoch").Set(0)
	sc.Gauge("hot_restart_generation").Set(1)
	sc.Gauge("version").Set(versionNumber(o.Version))
	if v := o.Bootstrap.GetStatsServerVersionOverride(); v != nil {
		sc.Gauge("version").Set(v.GetValue())
	}
	sc.Counter("static_unknown_fields")
	sc.Counter("dynamic_unknown_fields")
	// Nothing here asserts, drops a flush or is notified; the rest is Envoy's own
	// library of TLS.
	for _, name := range []string{"debug_assertion_failures", "envoy_bug_failures", "envoy_notifications", "dropped_stat_flushes", "wip_protos"} {
		sc.Counter(name)
	}
	o.Stats.Scope("server", "compilation_settings").Gauge("fips_mode").Set(0)
	return ss
}

// versionNumber is the number that the first six digits of the revision are
// (Envoy's server_stats version_).
func versionNumber(version string) uint64 {
	n, _ := strconv.ParseUint(version[:min(6, len(version))], 16, 64)
	return n
}

// Initialized records how long the start took. Call it once.
func (s *Server) Initialized(d time.Duration) {
	s.server.initTime.RecordTime(d)
}

// scrape brings every figure up to date and returns all stats.
func (s *Server) scrape() []stats.Stat {
	s.o.Plane.Flush()
	ss, st, mem := s.server, s.state(), memoryNow()
	ss.uptime.Set(uint64(time.Since(s.o.Started) / time.Second))
	ss.live.Set(boolGauge(st != Draining))
	ss.state.Set(uint64(st))
	ss.memoryAllocated.Set(mem.Allocated)
	ss.memoryHeap.Set(mem.HeapSize)
	ss.memoryPhysical.Set(mem.TotalPhysicalBytes)
	ss.certExpiry.Set(s.firstExpiry())
	ss.runtime.refresh()
	ss.workersStarted.Set(boolGauge(st == Live || st == Draining))

	all := s.o.Stats.All()
	var active uint64
	for _, x := range all {
		if x.TagName == "listener.downstream_cx_active" {
			active += x.Value
		}
	}
	ss.totalConnections.Set(active)
	i, ok := slices.BinarySearchFunc(all, "server.total_connections", func(x stats.Stat, name string) int {
		return strings.Compare(x.Name, name)
	})
	if ok {
		all[i].Value, all[i].Used = active, true
	}
	return s.view.of(all)
}

func boolGauge(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
