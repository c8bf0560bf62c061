package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
)

// HalfSwap puts the routes, but not the targets, of the next generation into the
// table that is in force: what a swap in place would look like half-way.
func (Plant) HalfSwap(t *testing.T, c *Capture, table *RouteTable) {
	t.Helper()
	var live *ebpf.Map
	if err := c.objects.Tables.Lookup(uint32(0), &live); err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	next := *table
	next.Generation++
	next.Targets = nil
	var f filler
	f.encode(&next)
	if err := put(live, f.keys, f.values); err != nil {
		t.Fatal(err)
	}
}
