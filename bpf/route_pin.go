package bpf

import (
	"fmt"
	"os"
	"syscall"

	"github.com/cilium/ebpf"
)

// The hooks by the names of their pins.
const (
	hookGetsockopt   = "getsockopt"
	hookSockops      = "sockops"
	hookGetpeername4 = "getpeername4"
	hookGetpeername6 = "getpeername6"
	hookConnect4     = "connect4"
	hookConnect6     = "connect6"
)

var captureHooks = []string{hookGetsockopt, hookSockops, hookGetpeername4, hookGetpeername6, hookConnect4, hookConnect6}

// pinned are the maps that outlive the process.
func (c *Capture) pinned() map[string]*ebpf.Map {
	m := &c.objects.routeMaps
	return map[string]*ebpf.Map{
		routeMapAccepted: m.Accepted, routeMapFlows: m.Flows, routeMapLife: m.Life, routeMapOrigins: m.Origins,
		routeMapOutcomes: m.Outcomes, routeMapSetting: m.Setting, routeMapTables: m.Tables,
	}
}

// loadCapture opens what the process before pinned.
func (p *pinDirectory) loadCapture() (*pinnedObjects, error) {
	spec, err := loadRoute()
	if err != nil {
		return nil, fmt.Errorf("read route object: %w", err)
	}
	return p.load(spec.Maps, captureHooks, func(maps map[string]*ebpf.Map) error {
		var s routeSettings
		if err := maps[routeMapSetting].Lookup(uint32(0), &s); err != nil {
			return fmt.Errorf("read settings: %w", err)
		}
		if s.Layout != pinLayout {
			return fmt.Errorf("layout %d, not %d", s.Layout, pinLayout)
		}
		return nil
	})
}

// cgroupID is the number that links have of a cgroup; 0 is none's.
func cgroupID(dir string) uint64 {
	info, err := os.Stat(dir)
	if err != nil {
		return 0
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
