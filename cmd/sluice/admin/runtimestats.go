package admin

import (
	"github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/api/stats"
)

// runtimeStats are Envoy's `runtime.*` (runtime_impl.h, ALL_RUNTIME_STATS).
type runtimeStats struct {
	runtime                                        *runtime.Runtime
	keys, layers, overrides                        *stats.Gauge
	loads, failed, withDirectory, withoutDirectory *stats.Counter
}

// loadsAtStart is how often Envoy has loaded its layers when it is ready.
const loadsAtStart = 2

func newRuntimeStats(r *runtime.Runtime, store *stats.Store) *runtimeStats {
	sc := store.Scope("runtime")
	rs := &runtimeStats{runtime: r,
		keys: sc.Gauge("num_keys"), layers: sc.Gauge("num_layers"), overrides: sc.Gauge("admin_overrides_active"),
		loads: sc.Counter("load_success"), failed: sc.Counter("load_error"),
		withDirectory: sc.Counter("override_dir_exists"), withoutDirectory: sc.Counter("override_dir_not_exists"),
	}
	sc.Counter("deprecated_feature_use")
	sc.Gauge("deprecated_feature_seen_since_process_start")
	for range loadsAtStart {
		rs.loaded()
	}
	if r != nil {
		r.OnChange(rs.loaded)
	}
	return rs
}

func (rs *runtimeStats) loaded() {
	read, broken := rs.runtime.Disks()
	if broken {
		rs.failed.Inc()
	} else {
		rs.loads.Inc()
	}
	if read {
		rs.withDirectory.Inc()
	} else {
		rs.withoutDirectory.Inc()
	}
}

// refresh sets the gauges to what is so now.
func (rs *runtimeStats) refresh() {
	rs.keys.Set(uint64(len(rs.runtime.Values())))
	rs.layers.Set(uint64(len(rs.runtime.Layers())))
	rs.overrides.Set(boolGauge(rs.runtime.Overridden()))
}
