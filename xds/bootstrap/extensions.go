package bootstrap

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// registered are the packages whose messages Envoy 1.40 has implementations for, by
// what they are used as.
var (
	sinkTypes = []string{
		"envoy.config.metrics.v3.StatsdSink", "envoy.config.metrics.v3.DogStatsdSink", "envoy.config.metrics.v3.HystrixSink",
		"envoy.config.metrics.v3.MetricsServiceConfig", "envoy.extensions.stat_sinks.",
	}
	bootstrapTypes = []string{"envoy.extensions.bootstrap.", "envoy.extensions.network.socket_interface.", "envoy.extensions.wasm.v3.WasmService"}
	monitorTypes   = []string{
		"envoy.extensions.resource_monitors.cgroup_memory.", "envoy.extensions.resource_monitors.cpu_utilization.",
		"envoy.extensions.resource_monitors.fixed_heap.", "envoy.extensions.resource_monitors.injected_resource.",
	}
	limitTypes    = []string{"envoy.extensions.resource_monitors.downstream_connections."}
	tracerTypes   = []string{"envoy.config.trace.v3.", "envoy.extensions.tracers."}
	logTypes      = []string{"envoy.extensions.access_loggers."}
	regexTypes    = []string{"envoy.extensions.regex_engines.v3.GoogleRE2"}
	watchdogTypes = []string{"envoy.extensions.watchdog.", "envoy.watchdog."}
	managerTypes  = []string{"envoy.config.listener.v3."}
)

// extension is what two protos say of an extension.
type extension interface {
	GetName() string
	GetTypedConfig() *anypb.Any
}

// implemented refuses what Envoy has no implementation for, in its words.
func implemented[E extension](types []string, all ...E) error {
	for _, e := range all {
		name := resource.InnerType(e.GetTypedConfig())
		known := false
		for _, t := range types {
			known = known || name == t || strings.HasSuffix(t, ".") && strings.HasPrefix(name, t)
		}
		if !known {
			return fmt.Errorf("Didn't find a registered implementation for '%s' with type URL: '%s'", resource.Short(e.GetName()), resource.Short(name))
		}
	}
	return nil
}

// extensions refuses what has no effect here, and would not start there.
func (c *Config) extensions() error {
	b := c.Proto
	for _, err := range []error{
		implemented(sinkTypes, b.GetStatsSinks()...),
		implemented(bootstrapTypes, b.GetBootstrapExtensions()...),
		implemented(logTypes, b.GetAdmin().GetAccessLog()...),
	} {
		if err != nil {
			return err
		}
	}
	type one struct {
		types []string
		extension
	}
	var all []one
	if e := b.GetDefaultRegexEngine(); e != nil {
		all = append(all, one{regexTypes, e})
	}
	if e := b.GetTracing().GetHttp(); e != nil {
		all = append(all, one{tracerTypes, e})
	}
	if e := b.GetXdsDelegateExtension(); e != nil {
		all = append(all, one{nil, e})
	}
	if e := b.GetXdsConfigTrackerExtension(); e != nil {
		all = append(all, one{nil, e})
	}
	if e := b.GetListenerManager(); e != nil {
		all = append(all, one{managerTypes, e})
	}
	for _, a := range b.GetFatalActions() {
		all = append(all, one{watchdogTypes, a.GetConfig()})
	}
	for _, a := range append(b.GetWatchdogs().GetMainThreadWatchdog().GetActions(), b.GetWatchdogs().GetWorkerWatchdog().GetActions()...) {
		all = append(all, one{watchdogTypes, a.GetConfig()})
	}
	for _, a := range all {
		if err := implemented(a.types, a.extension); err != nil {
			return err
		}
	}
	return nil
}
