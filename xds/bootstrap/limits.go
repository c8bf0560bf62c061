package bootstrap

import (
	"strings"

	"github.com/sluice-proxy/sluice/api/runtime"
)

// Limits bound the downstream connections; 0 is no bound.
type Limits struct {
	Connections uint64
	// ByListener are those of single listeners, by name.
	ByListener map[string]uint64
}

// The runtime keys of Envoy's limits (configuration/best_practices/edge, and
// listeners/runtime).
const (
	globalLimitKey      = "overload.global_downstream_max_connections"
	listenerLimitPrefix = "envoy.resource_limits.listener."
	listenerLimitSuffix = ".connection_limit"
)

// Limits are those of the overload manager's monitor of downstream connections,
// which counts before the runtime's key for the same, and of the runtime as it
// is now.
func (c *Config) Limits() Limits {
	out := Limits{ByListener: map[string]uint64{}}
	for key, value := range c.Runtime.Values() {
		n, ok := runtime.Uint(value)
		if !ok {
			continue
		}
		name, isListener := strings.CutPrefix(key, listenerLimitPrefix)
		name, hasSuffix := strings.CutSuffix(name, listenerLimitSuffix)
		switch {
		case key == globalLimitKey:
			out.Connections = n
		case isListener && hasSuffix:
			out.ByListener[name] = n
		}
	}
	if c.Overload == nil {
		return out
	}
	for _, m := range c.Overload.Monitors {
		if m.Connections != nil {
			out.Connections = m.Connections.Max
		}
	}
	return out
}
