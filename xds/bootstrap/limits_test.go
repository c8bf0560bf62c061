package bootstrap

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLimits(t *testing.T) {
	const monitor = `overload_manager: {resource_monitors: [{name: envoy.resource_monitors.global_downstream_max_connections, typed_config: {"@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig, max_active_downstream_connections: 5}}]}`
	layer := func(s string) string { return `layered_runtime: {layers: [` + s + `]}` }
	for _, tt := range []struct {
		what, in string
		want     Limits
	}{
		{"none", `node: {id: a}`, Limits{}},
		{"the overload manager's", monitor, Limits{Connections: 5}},
		{"the runtime's, dotted", layer(`{name: a, static_layer: {overload.global_downstream_max_connections: 7}}`), Limits{Connections: 7}},
		{"the runtime's, nested, as text", layer(`{name: a, static_layer: {overload: {global_downstream_max_connections: "7"}}}`), Limits{Connections: 7}},
		{"later layers override", layer(`{name: a, static_layer: {overload.global_downstream_max_connections: 7}}, {name: b, static_layer: {overload.global_downstream_max_connections: 8}}`), Limits{Connections: 8}},
		{"the overload manager's is first", monitor + "\n" + layer(`{name: a, static_layer: {overload.global_downstream_max_connections: 7}}`), Limits{Connections: 5}},
		{"of a listener, with dots in its name", layer(`{name: a, static_layer: {envoy: {resource_limits: {listener: {l.1: {connection_limit: 3}}}}}}`), Limits{ByListener: map[string]uint64{"l.1": 3}}},
		{"no number", layer(`{name: a, static_layer: {overload.global_downstream_max_connections: many, x: 1.5}}`), Limits{}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			c, err := Load(Options{YAML: tt.in})
			if err != nil {
				t.Fatal(err)
			}
			if tt.want.ByListener == nil {
				tt.want.ByListener = map[string]uint64{}
			}
			if d := cmp.Diff(tt.want, c.Limits()); d != "" {
				t.Error(d)
			}
		})
	}
}
