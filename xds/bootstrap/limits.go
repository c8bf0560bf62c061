package bootstrap

import (
	"math"
	"strconv"
	"strings"

	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	"google.golang.org/protobuf/types/known/structpb"
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
// which counts before the runtime's key for the same, and of the static layers
// of the runtime, of which later ones override earlier ones.
func (c *Config) Limits() Limits {
	out := Limits{ByListener: map[string]uint64{}}
	for _, layer := range c.Proto.GetLayeredRuntime().GetLayers() {
		each("", layer.GetStaticLayer(), func(key string, n uint64) {
			name, isListener := strings.CutPrefix(key, listenerLimitPrefix)
			name, hasSuffix := strings.CutSuffix(name, listenerLimitSuffix)
			switch {
			case key == globalLimitKey:
				out.Connections = n
			case isListener && hasSuffix:
				out.ByListener[name] = n
			}
		})
	}
	for _, m := range c.Proto.GetOverloadManager().GetResourceMonitors() {
		limit := &connectionsv3.DownstreamConnectionsConfig{}
		if m.GetTypedConfig().UnmarshalTo(limit) == nil {
			out.Connections = uint64(max(0, limit.GetMaxActiveDownstreamConnections()))
		}
	}
	return out
}

// each calls f for every whole number in a layer: keys may be written with dots
// or nested.
func each(prefix string, s *structpb.Struct, f func(key string, n uint64)) {
	for k, v := range s.GetFields() {
		key := prefix + k
		switch v := v.GetKind().(type) {
		case *structpb.Value_StructValue:
			each(key+".", v.StructValue, f)
		case *structpb.Value_NumberValue:
			if v.NumberValue >= 0 && v.NumberValue == math.Trunc(v.NumberValue) && v.NumberValue < 1<<53 {
				f(key, uint64(v.NumberValue))
			}
		case *structpb.Value_StringValue:
			if n, err := strconv.ParseUint(v.StringValue, 10, 64); err == nil {
				f(key, n)
			}
		}
	}
}
