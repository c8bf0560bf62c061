package balance

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/sluice-proxy/sluice/api"
)

// Whatever hosts and settings there are, a pick ends, and gives a host of the
// set; where all are healthy it gives one.
func TestPicksOfAnything(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for round := range 3000 {
		c := config(api.LBPolicy(r.IntN(5)), r.Uint64)
		b := c.Balancing
		b.LocalityWeighted, b.FullScan, b.Murmur, b.EqualWeights = r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(4) == 0
		b.MinRingSize, b.TableSize = uint64(r.IntN(40)+1), []uint64{2, 3, 13, 101}[r.IntN(4)]
		b.BalanceFactor = []uint32{0, 100, 150}[r.IntN(3)]
		b.SlowStart = api.SlowStart{Window: 10, Aggression: 1, MinWeight: .1}
		c.Now = func() int64 { return int64(r.IntN(20)) }
		c.PanicThreshold, c.WeightedHealth = float64(r.IntN(101)), r.IntN(2) == 0
		c.Weights = map[Spot]uint32{}
		sick := r.IntN(3) > 0
		var hs []*testHost
		for i := range r.IntN(9) {
			h := &testHost{name: fmt.Sprint(i), weight: uint32(r.IntN(5)), priority: uint32(r.IntN(3)), place: api.Place{Zone: string(rune('a' + r.IntN(3)))}, metadata: map[string]any{}}
			h.active.Store(uint32(r.IntN(4)))
			if sick {
				h.health = api.Health(r.IntN(6))
			}
			if r.IntN(2) == 0 {
				h.metadata["v"] = []any{"1", []any{"1", "2"}, []any{}, 3.0}[r.IntN(4)]
			}
			c.Weights[Spot{h.priority, h.place}] = uint32(r.IntN(3))
			hs = append(hs, h)
		}
		if r.IntN(3) == 0 {
			b.Subsets = &api.Subsets{Fallback: api.Fallback(r.IntN(3)), PanicModeAny: true, ListAsAny: r.IntN(2) == 0, AllowRedundantKeys: r.IntN(2) == 0, LocalityWeightAware: r.IntN(2) == 0, ScaleLocalityWeight: r.IntN(2) == 0,
				Selectors: []api.Selector{{Keys: []string{"v"}, Fallback: api.Fallback(r.IntN(3)), SingleHost: r.IntN(2) == 0}}}
		}
		if r.IntN(2) == 0 {
			local := New(config(api.RoundRobin, r.Uint64), list(spread([]string{"", "ab", "aab", "B"}[r.IntN(4)])), nil)
			c.Local, c.Home = func() *Set { return local }, api.Place{Zone: "a"}
		}
		o := with(c, hs)
		for range 8 {
			a := &Asked{Hash: r.Uint64(), Hashed: r.IntN(2) == 0}
			if r.IntN(2) == 0 {
				a.Match = NewCriteria(map[string]any{"v": "1"}, r.IntN(2) == 0)
			}
			h, ok := o.ask(a)
			if ok == (h == nil) {
				t.Fatalf("round %d: %v %t", round, h, ok)
			}
			if !ok && !sick && len(hs) > 0 && b.Subsets == nil && !(b.LocalityWeighted && b.Policy.Hashes()) {
				t.Fatalf("round %d: none of %d healthy hosts: %+v", round, len(hs), *b)
			}
			if r.IntN(3) == 0 && len(hs) > 0 {
				hs[r.IntN(len(hs))].weight = uint32(r.IntN(5))
				o.update(c, hs[r.IntN(2)%len(hs):])
			}
		}
	}
}
