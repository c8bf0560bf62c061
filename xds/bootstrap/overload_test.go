package bootstrap

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/api"
)

const (
	monitorPath  = `typed_config: {"@type": type.googleapis.com/envoy.extensions.resource_monitors.`
	overloadPath = `typed_config: {"@type": type.googleapis.com/envoy.config.overload.v3.`
	aFile        = `{name: r, ` + monitorPath + `injected_resource.v3.InjectedResourceConfig, filename: /f}}`
)

func TestOverload(t *testing.T) {
	file := api.ResourceMonitor{Name: "r", Injected: &api.InjectedResource{Path: "/f"}}
	for _, tt := range []struct {
		what, in string
		want     api.Overload
		unbuilt  []string
	}{
		{what: "one monitor", in: `{resource_monitors: [` + aFile + `]}`, want: api.Overload{Refresh: time.Second, Monitors: []api.ResourceMonitor{file}}},
		{what: "monitors", in: `{refresh_interval: 0.25s, resource_monitors: [` + aFile +
			`, {name: h, ` + monitorPath + `fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 5}}` +
			`, {name: k, ` + monitorPath + `fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes_runtime: {default_value: 6, runtime_key: key}}}` +
			`, {name: c, ` + monitorPath + `cgroup_memory.v3.CgroupMemoryConfig, max_memory_bytes: 7}}` +
			`, {name: p, ` + monitorPath + `cpu_utilization.v3.CpuUtilizationConfig, mode: CONTAINER}}` +
			`, {name: envoy.resource_monitors.global_downstream_max_connections, ` + monitorPath + `downstream_connections.v3.DownstreamConnectionsConfig, max_active_downstream_connections: 8}}]}`,
			want: api.Overload{Refresh: 250 * time.Millisecond, Monitors: []api.ResourceMonitor{file, {Name: "h", Heap: &api.HeapMonitor{Max: 5}},
				{Name: "k", Heap: &api.HeapMonitor{Max: 6, RuntimeKey: "key"}}, {Name: "c", Cgroup: &api.CgroupMemoryMonitor{Max: 7}}, {Name: "p", CPU: &api.CPUMonitor{Container: true}},
				{Name: connectionLimit, Connections: &api.ConnectionsMonitor{Max: 8}}}}},
		{what: "actions", in: `{resource_monitors: [` + aFile + `], actions: [` +
			`{name: envoy.overload_actions.stop_accepting_connections, triggers: [{name: r, threshold: {value: 0.5}}]}, ` +
			`{name: envoy.overload_actions.reject_incoming_connections, triggers: [{name: r, scaled: {scaling_threshold: 0.5, saturation_threshold: 0.75}}]}, ` +
			`{name: envoy.overload_actions.disable_http_keepalive, triggers: [{name: r, threshold: {}}]}, ` +
			`{name: envoy.overload_actions.shrink_heap, triggers: [{name: r, threshold: {}}]}]}`,
			want: api.Overload{Refresh: time.Second, Monitors: []api.ResourceMonitor{file}, Actions: []api.OverloadAction{
				{Name: api.StopAcceptingConnections, Triggers: []api.Trigger{{Resource: "r", Threshold: .5}}},
				{Name: api.RejectIncomingConnections, Triggers: []api.Trigger{{Resource: "r", Scaled: true, Threshold: .5, Saturation: .75}}},
				{Name: disableKeepalive, Triggers: []api.Trigger{{Resource: "r"}}},
				{Name: api.ShrinkHeap, Triggers: []api.Trigger{{Resource: "r"}}, Shrink: &api.HeapShrinking{Every: 10 * time.Second, MaxUnfreed: 100 << 20}}}},
			unbuilt: []string{"overload_manager.actions[2] (envoy.overload_actions.disable_http_keepalive)"}},
		{what: "their own configurations", in: `{resource_monitors: [` + aFile + `], actions: [` +
			`{name: envoy.overload_actions.reduce_timeouts, triggers: [{name: r, threshold: {}}], ` + overloadPath + `ScaleTimersOverloadActionConfig, timer_scale_factors: [{timer: HTTP_DOWNSTREAM_STREAM_IDLE, min_timeout: 9s}, {timer: TRANSPORT_SOCKET_CONNECT, min_scale: {value: 10}}]}}, ` +
			`{name: envoy.overload_actions.shrink_heap, triggers: [{name: r, threshold: {}}], ` + overloadPath + `ShrinkHeapConfig, timer_interval: 2s, max_unfreed_memory_bytes: 3}}]}`,
			want: api.Overload{Refresh: time.Second, Monitors: []api.ResourceMonitor{file}, Actions: []api.OverloadAction{
				{Name: api.ReduceTimeouts, Triggers: []api.Trigger{{Resource: "r"}}, ConnectTimeout: &api.TimerMinimum{Time: -1, Share: .1}},
				{Name: api.ShrinkHeap, Triggers: []api.Trigger{{Resource: "r"}}, Shrink: &api.HeapShrinking{Every: 2 * time.Second, MaxUnfreed: 3}}}}},
		{what: "points", in: `{resource_monitors: [` + aFile + `], loadshed_points: [` +
			`{name: envoy.load_shed_points.tcp_listener_accept, triggers: [{name: r, threshold: {value: 0.5}}]}, {name: p, triggers: [{name: r, threshold: {}}]}]}`,
			want: api.Overload{Refresh: time.Second, Monitors: []api.ResourceMonitor{file}, Points: []api.LoadShedPoint{
				{Name: api.ShedAccept, Triggers: []api.Trigger{{Resource: "r", Threshold: .5}}}, {Name: "p", Triggers: []api.Trigger{{Resource: "r"}}}}},
			unbuilt: []string{"overload_manager.loadshed_points[1] (p)"}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			c, err := Load(Options{YAML: "overload_manager: " + tt.in})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(&tt.want, c.Overload); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(tt.unbuilt, c.Unbuilt); d != "" {
				t.Error(d)
			}
		})
	}
	if c, err := Load(Options{YAML: `node: {id: a}`}); err != nil || c.Overload != nil {
		t.Errorf("of nothing: %v, %v", c, err)
	}
}
