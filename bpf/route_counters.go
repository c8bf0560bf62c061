package bpf

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// outcomeNames are the ends of the hooks' calls as metrics and docs call them.
var outcomeNames = [...]string{
	routeOutcomeCONNECT_CAPTURED:  "connect.captured",
	routeOutcomeCONNECT_NOT_TCP:   "connect.not_tcp",
	routeOutcomeCONNECT_SELF:      "connect.self",
	routeOutcomeCONNECT_NETNS:     "connect.other_netns",
	routeOutcomeCONNECT_DEVICE:    "connect.bound_to_device",
	routeOutcomeCONNECT_NO_TABLE:  "connect.no_table",
	routeOutcomeCONNECT_EXCLUDED:  "connect.excluded",
	routeOutcomeCONNECT_PASSED:    "connect.passed",
	routeOutcomeCONNECT_NO_ROUTE:  "connect.no_route",
	routeOutcomeCONNECT_NO_TARGET: "connect.no_target",
	routeOutcomeCONNECT_MIXED:     "connect.mixed_generations",
	routeOutcomeCONNECT_GONE:      "connect.passed_listener_gone",
	routeOutcomeCONNECT_REFUSED:   "connect.refused_listener_gone",
	routeOutcomeCONNECT_NO_MEMORY: "connect.no_memory",

	routeOutcomeCONNECT_NO_MEMORY_REFUSED: "connect.refused_no_memory",

	routeOutcomePEER_ANSWERED:   "getpeername.answered",
	routeOutcomePEER_OTHER:      "getpeername.not_captured",
	routeOutcomeFLOW_NOTED:      "syn.noted",
	routeOutcomeFLOW_OTHER:      "syn.not_captured",
	routeOutcomeFLOW_FULL:       "syn.no_memory",
	routeOutcomeORIGIN_ANSWERED: "getsockopt.answered",
	routeOutcomeORIGIN_OTHER:    "getsockopt.not_captured",
	routeOutcomeORIGIN_FAMILY:   "getsockopt.other_family",
	routeOutcomeORIGIN_SHORT:    "getsockopt.short_buffer",
}

// Counters reads how often the hooks' calls ended in each way, summed over the
// CPUs.
func (c *Capture) Counters() (map[string]uint64, error) {
	return readOutcomes(c.objects.Outcomes, outcomeNames[:])
}

func readOutcomes(counters *ebpf.Map, names []string) (map[string]uint64, error) {
	out := make(map[string]uint64, len(names))
	for i, name := range names {
		var perCPU []uint64
		if err := counters.Lookup(uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("read counter %s: %w", name, err)
		}
		for _, n := range perCPU {
			out[name] += n
		}
	}
	return out, nil
}

// Flows counts the captured connections that nobody has asked about yet. It
// walks the map.
func (c *Capture) Flows() int {
	var (
		n     int
		key   routeFlow
		value routeOrigin
	)
	for it := c.objects.Flows.Iterate(); it.Next(&key, &value); {
		n++
	}
	return n
}
