package bootstrap

import (
	"strings"

	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"

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
	for _, m := range c.Proto.GetOverloadManager().GetResourceMonitors() {
		limit := &connectionsv3.DownstreamConnectionsConfig{}
		if m.GetTypedConfig().UnmarshalTo(limit) == nil {
			out.Connections = uint64(max(0, limit.GetMaxActiveDownstreamConnections()))
		}
	}
	return out
}
