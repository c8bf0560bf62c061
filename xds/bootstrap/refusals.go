package bootstrap

import (
	"errors"
	"fmt"
	"slices"

	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	fixedheapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
)

// refusals are what Envoy refuses, in its words, of what is accepted here without
// effect: a file that Envoy would not start with must not seem good.
func (c *Config) refusals() error {
	if c.Proto.GetStatsFlushInterval() != nil && c.Proto.GetStatsFlushOnAdmin() {
		return errors.New("stats_flush_on_admin: Only one of stats_flush_interval or stats_flush_on_admin should be set!")
	}
	if err := overload(c.Proto.GetOverloadManager()); err != nil {
		return fmt.Errorf("overload_manager: %w", err)
	}
	return c.extensions()
}

// overloadActions are Envoy's well-known ones (overload_manager.h).
var overloadActions = []string{
	"envoy.overload_actions.stop_accepting_requests", "envoy.overload_actions.disable_http_keepalive",
	"envoy.overload_actions.stop_accepting_connections", "envoy.overload_actions.reject_incoming_connections",
	shrinkHeap, reduceTimeouts, resetStreams,
}

// Those that have, or may have, a configuration of their own.
const (
	shrinkHeap     = "envoy.overload_actions.shrink_heap"
	reduceTimeouts = "envoy.overload_actions.reduce_timeouts"
	resetStreams   = "envoy.overload_actions.reset_high_memory_stream"
)

func overload(m *overloadv3.OverloadManager) error {
	monitors := map[string]bool{}
	for _, r := range m.GetResourceMonitors() {
		if err := monitor(r); err != nil {
			return err
		}
		if monitors[r.GetName()] {
			return fmt.Errorf("Duplicate resource monitor %s", r.GetName())
		}
		monitors[r.GetName()] = true
		heap := &fixedheapv3.FixedHeapConfig{}
		if r.GetTypedConfig().UnmarshalTo(heap) == nil && heap.GetMaxHeapSizeBytes() == 0 {
			return errors.New("fixed_heap: max heap size must be greater than 0")
		}
	}
	actions := map[string]bool{}
	for _, a := range m.GetActions() {
		name := a.GetName()
		switch {
		case !slices.Contains(overloadActions, name):
			return fmt.Errorf("Unknown Overload Manager Action %s", name)
		case actions[name]:
			return fmt.Errorf("Duplicate overload action %s", name)
		case name == resetStreams && m.GetBufferFactoryConfig() == nil:
			return fmt.Errorf("Overload action \"%s\" requires buffer_factory_config.", name)
		case name == reduceTimeouts && a.GetTypedConfig() == nil:
			return fmt.Errorf("Overload action \"%s\" requires typed_config", name)
		case a.GetTypedConfig() != nil && name != reduceTimeouts && name != shrinkHeap:
			return fmt.Errorf("Overload action name \"%s\" conflicts with its typed config", name)
		}
		actions[name] = true
		triggers := map[string]bool{}
		for _, t := range a.GetTriggers() {
			switch s := t.GetScaled(); {
			case !monitors[t.GetName()]:
				return fmt.Errorf("Unknown trigger resource %s for overload action %s", t.GetName(), name)
			case triggers[t.GetName()]:
				return fmt.Errorf("Duplicate trigger resource for overload action %s", name)
			case s != nil && s.GetScalingThreshold() >= s.GetSaturationThreshold():
				return errors.New("scaling_threshold must be less than saturation_threshold")
			}
			triggers[t.GetName()] = true
		}
	}
	points := map[string]bool{}
	for _, l := range m.GetLoadshedPoints() {
		if points[l.GetName()] {
			return fmt.Errorf("Duplicate loadshed point %s", l.GetName())
		}
		points[l.GetName()] = true
		for _, t := range l.GetTriggers() {
			if !monitors[t.GetName()] {
				return fmt.Errorf("Unknown trigger resource %s for loadshed point %s", t.GetName(), l.GetName())
			}
		}
	}
	return nil
}
