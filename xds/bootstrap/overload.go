package bootstrap

import (
	"errors"
	"fmt"
	"slices"
	"time"

	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	cgroupv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/cgroup_memory/v3"
	cpuv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/cpu_utilization/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	fixedheapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	injectedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/injected_resource/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// overloadActions are Envoy's well-known ones (overload_manager.h).
var overloadActions = []string{
	api.StopAcceptingConnections, api.RejectIncomingConnections, api.ShrinkHeap, api.ReduceTimeouts,
	stopRequests, disableKeepalive, resetStreams,
}

// Those without an effect here: they are about requests.
const (
	stopRequests     = "envoy.overload_actions.stop_accepting_requests"
	disableKeepalive = "envoy.overload_actions.disable_http_keepalive"
	resetStreams     = "envoy.overload_actions.reset_high_memory_stream"
)

// connectionLimit is the one resource monitor that Envoy knows by its name.
const connectionLimit = "envoy.resource_monitors.global_downstream_max_connections"

// overload reads overload_manager, in the order in which Envoy finds what is wrong.
func (c *Config) overload() error {
	m := c.Proto.GetOverloadManager()
	if m == nil {
		return nil
	}
	o := &api.Overload{Refresh: api.DefaultOverloadRefresh}
	if d := m.GetRefreshInterval(); d != nil {
		o.Refresh = d.AsDuration()
	}
	monitors := map[string]bool{}
	for _, p := range m.GetResourceMonitors() {
		r, err := c.monitor(p)
		if err != nil {
			return err
		}
		if monitors[r.Name] {
			return fmt.Errorf("Duplicate resource monitor %s", resource.Short(r.Name))
		}
		monitors[r.Name] = true
		o.Monitors = append(o.Monitors, r)
	}
	seen := map[string]bool{}
	for i, p := range m.GetActions() {
		a, err := c.overloadAction(p, m, seen, monitors)
		if err != nil {
			return err
		}
		o.Actions = append(o.Actions, a)
		switch p.GetName() {
		case stopRequests, disableKeepalive, resetStreams:
			c.Unbuilt = append(c.Unbuilt, fmt.Sprintf("overload_manager.actions[%d] (%s)", i, p.GetName()))
		}
	}
	points := map[string]bool{}
	for i, p := range m.GetLoadshedPoints() {
		name := resource.Short(p.GetName())
		for _, t := range p.GetTriggers() {
			if !monitors[t.GetName()] || t.GetName() == connectionLimit {
				return fmt.Errorf("Unknown trigger resource %s for loadshed point %s", resource.Short(t.GetName()), name)
			}
		}
		ts, err := overloadTriggers(p.GetTriggers(), "LoadShedPoint", name)
		if err != nil {
			return err
		}
		if points[p.GetName()] {
			return fmt.Errorf("Duplicate loadshed point %s", name)
		}
		points[p.GetName()] = true
		o.Points = append(o.Points, api.LoadShedPoint{Name: p.GetName(), Triggers: ts})
		switch p.GetName() {
		case api.ShedAccept, api.ShedData, api.ShedPool:
		default:
			c.Unbuilt = append(c.Unbuilt, fmt.Sprintf("overload_manager.loadshed_points[%d] (%s)", i, name))
		}
	}
	c.Overload = o
	return nil
}

// monitor reads a resource monitor.
func (c *Config) monitor(p *overloadv3.ResourceMonitor) (r api.ResourceMonitor, err error) {
	types := monitorTypes
	if p.GetName() == connectionLimit {
		types = limitTypes
	}
	if err := implemented(types, p); err != nil {
		return r, err
	}
	m, err := resource.Unpack(p.GetTypedConfig())
	if err != nil {
		return r, err
	}
	if err := resource.Constraint(m); err != nil {
		return r, err
	}
	r.Name = p.GetName()
	switch m := m.(type) {
	case *fixedheapv3.FixedHeapConfig:
		r.Heap = &api.HeapMonitor{Max: m.GetMaxHeapSizeBytes()}
		if v := m.GetMaxHeapSizeBytesRuntime(); v != nil {
			if r.Heap.Max > 0 {
				return r, errors.New("fixed_heap: exactly one of max_heap_size_bytes or max_heap_size_bytes_runtime must be set")
			}
			r.Heap.Max, r.Heap.RuntimeKey = v.GetDefaultValue(), v.GetRuntimeKey()
		}
		if r.Heap.RuntimeKey == "" && r.Heap.Max == 0 || c.Runtime.Number(r.Heap.RuntimeKey, r.Heap.Max) == 0 {
			return r, errors.New("fixed_heap: max heap size must be greater than 0")
		}
	case *cgroupv3.CgroupMemoryConfig:
		r.Cgroup = &api.CgroupMemoryMonitor{Max: m.GetMaxMemoryBytes()}
	case *cpuv3.CpuUtilizationConfig:
		r.CPU = &api.CPUMonitor{Container: m.GetMode() == cpuv3.CpuUtilizationConfig_CONTAINER}
	case *injectedv3.InjectedResourceConfig:
		r.Injected = &api.InjectedResource{Path: m.GetFilename()}
	case *connectionsv3.DownstreamConnectionsConfig:
		r.Connections = &api.ConnectionsMonitor{Max: uint64(m.GetMaxActiveDownstreamConnections())}
	default:
		return r, fmt.Errorf("resource monitor %s is not built", resource.Short(p.GetName()))
	}
	return r, nil
}

func (c *Config) overloadAction(p *overloadv3.OverloadAction, m *overloadv3.OverloadManager, seen, monitors map[string]bool) (a api.OverloadAction, err error) {
	a.Name = p.GetName()
	if !slices.Contains(overloadActions, a.Name) {
		return a, fmt.Errorf("Unknown Overload Manager Action %s", resource.Short(a.Name))
	}
	if a.Triggers, err = overloadTriggers(p.GetTriggers(), "overload action", a.Name); err != nil {
		return a, err
	}
	if seen[a.Name] {
		return a, fmt.Errorf("Duplicate overload action %s", a.Name)
	}
	seen[a.Name] = true
	switch {
	case a.Name == api.ReduceTimeouts:
		if a.ConnectTimeout, err = scaledTimers(p); err != nil {
			return a, err
		}
	case a.Name == resetStreams && m.GetBufferFactoryConfig() == nil:
		return a, fmt.Errorf("Overload action \"%s\" requires buffer_factory_config.", a.Name)
	case a.Name == api.ShrinkHeap:
		if a.Shrink, err = heapShrinking(p); err != nil {
			return a, err
		}
	case p.GetTypedConfig() != nil:
		return a, fmt.Errorf("Overload action \"%s\" has an unexpected value for the typed_config field", a.Name)
	}
	for _, t := range p.GetTriggers() {
		if !monitors[t.GetName()] && t.GetName() != connectionLimit {
			return a, fmt.Errorf("Unknown trigger resource %s for overload action %s", resource.Short(t.GetName()), a.Name)
		}
	}
	return a, nil
}

func overloadTriggers(ps []*overloadv3.Trigger, what, name string) (out []api.Trigger, err error) {
	seen := map[string]bool{}
	for _, p := range ps {
		t := api.Trigger{Resource: p.GetName(), Threshold: p.GetThreshold().GetValue()}
		if s := p.GetScaled(); s != nil {
			t.Scaled, t.Threshold, t.Saturation = true, s.GetScalingThreshold(), s.GetSaturationThreshold()
			if t.Threshold >= t.Saturation {
				return nil, errors.New("scaling_threshold must be less than saturation_threshold")
			}
		}
		if seen[t.Resource] {
			return nil, fmt.Errorf("Duplicate trigger resource for %s %s", what, name)
		}
		seen[t.Resource] = true
		out = append(out, t)
	}
	return out, nil
}

// typed reads an action's own configuration into into; false: it is of another type.
func typed(p *overloadv3.OverloadAction, into proto.Message) (bool, error) {
	if p.GetTypedConfig().UnmarshalTo(into) != nil {
		return false, nil
	}
	return true, resource.Constraint(into)
}

// scaledTimers reads what reduce_timeouts may shorten. The timers of HTTP have no
// effect.
func scaledTimers(p *overloadv3.OverloadAction) (connect *api.TimerMinimum, err error) {
	if p.GetTypedConfig() == nil {
		return nil, fmt.Errorf("Overload action \"%s\" requires typed_config", p.GetName())
	}
	m := &overloadv3.ScaleTimersOverloadActionConfig{}
	ok, err := typed(p, m)
	if !ok {
		return nil, fmt.Errorf("typed_config resolves to %s instead of %s", resource.Short(resource.InnerType(p.GetTypedConfig())), m.ProtoReflect().Descriptor().FullName())
	}
	if err != nil {
		return nil, err
	}
	seen := map[overloadv3.ScaleTimersOverloadActionConfig_TimerType]bool{}
	for _, s := range m.GetTimerScaleFactors() {
		if seen[s.GetTimer()] {
			return nil, fmt.Errorf("Found duplicate entry for timer type %s", s.GetTimer())
		}
		seen[s.GetTimer()] = true
		if s.GetTimer() != overloadv3.ScaleTimersOverloadActionConfig_TRANSPORT_SOCKET_CONNECT {
			continue
		}
		connect = &api.TimerMinimum{Time: -1, Share: min(max(s.GetMinScale().GetValue()/100, 0), 1)}
		if d := s.GetMinTimeout(); d != nil {
			connect.Time = d.AsDuration().Truncate(time.Millisecond)
		}
	}
	return connect, nil
}

func heapShrinking(p *overloadv3.OverloadAction) (*api.HeapShrinking, error) {
	s := &api.HeapShrinking{Every: api.DefaultShrinkInterval, MaxUnfreed: api.DefaultMaxUnfreed}
	if p.GetTypedConfig() == nil {
		return s, nil
	}
	m := &overloadv3.ShrinkHeapConfig{}
	ok, err := typed(p, m)
	if !ok {
		return nil, fmt.Errorf("Overload action name \"%s\" conflicts with its typed config", p.GetName())
	}
	if err != nil {
		return nil, err
	}
	if d := m.GetTimerInterval(); d != nil {
		s.Every = d.AsDuration()
	}
	if n := m.GetMaxUnfreedMemoryBytes().GetValue(); n > 0 {
		s.MaxUnfreed = n
	}
	return s, nil
}
