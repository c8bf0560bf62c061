package balance

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/api"
)

// set reads one word per priority: h healthy, u unknown, d degraded, x unhealthy,
// n draining, t timed out.
func set(t *testing.T, factor uint32, panicThreshold float64, levels ...string) *one {
	t.Helper()
	healths := map[rune]api.Health{'h': api.HealthHealthy, 'u': api.HealthUnknown, 'd': api.HealthDegraded,
		'x': api.HealthUnhealthy, 'n': api.HealthDraining, 't': api.HealthTimeout}
	var hs []*testHost
	for p, word := range levels {
		for i, r := range word {
			health, ok := healths[r]
			if !ok {
				t.Fatalf("no health %q", r)
			}
			hs = append(hs, &testHost{name: fmt.Sprintf("%d%c%d", p, r, i), weight: 1, health: health, priority: uint32(p)})
		}
	}
	c := config(api.RoundRobin, seeded())
	c.Overprovisioning, c.PanicThreshold = factor, panicThreshold
	return with(c, hs)
}

func loads(o *one) string {
	var out []string
	for _, l := range o.set.whole.levels {
		w := fmt.Sprintf("%d+%d", l.healthyLoad, l.degradedLoad)
		if l.panic {
			w += "!"
		}
		out = append(out, w)
	}
	return strings.Join(out, " ")
}

// The figures of the first cases are those of the tables in Envoy's docs,
// "Priority levels", "Panic threshold" and "Degraded endpoints".
func TestPriorityLoad(t *testing.T) {
	tests := []struct {
		name   string
		factor uint32
		panic  float64
		levels []string
		want   string // healthy+degraded load per level, ! if it panics
	}{
		{"all healthy", 140, 50, []string{"hhhh", "hhhh"}, "100+0 0+0"},
		{"72 percent healthy is enough", 140, 50, []string{strings.Repeat("h", 72) + strings.Repeat("x", 28), "h"}, "100+0 0+0"},
		{"71 percent healthy spills one percent", 140, 50, []string{strings.Repeat("h", 71) + strings.Repeat("x", 29), "h"}, "99+0 1+0"},
		{"half healthy spills 30 percent", 140, 50, []string{"hx", "hh"}, "70+0 30+0"},
		{"a quarter healthy", 140, 50, []string{"hxxx", "hhhh"}, "35+0 65+0"},
		{"none healthy in the first", 140, 50, []string{"xxxx", "hhhh"}, "0+0 100+0"},
		{"three levels of 20 percent: scaled to 100, rounding to the first, all panic and share by count", 140, 50, []string{"hxxxx", "hxxxx", "hxxxx"}, "34+0! 33+0! 33+0!"},
		{"three levels of 20 percent with panic off", 140, 0, []string{"hxxxx", "hxxxx", "hxxxx"}, "34+0 33+0 33+0"},
		{"25 percent healthy and no more: panics", 140, 50, []string{"hxxx"}, "100+0!"},
		{"25 percent against a threshold of 25", 140, 25, []string{"hxxx"}, "100+0"},
		{"threshold is rounded", 140, 25.5, []string{"hxxx"}, "100+0!"},
		{"nothing healthy, panic on: shares by count", 140, 50, []string{"xxx", "x"}, "75+0! 25+0!"},
		{"nothing healthy, panic off: no host", 140, 0, []string{"xxx", "x"}, "100+0 0+0"},
		{"one of two levels panics", 140, 50, []string{"hxxxx", "hx"}, "29+0! 71+0"},
		{"degraded takes what healthy cannot", 100, 50, []string{"hddd"}, "25+75"},
		{"healthy of a lower level goes before degraded of a higher", 100, 50, []string{"hd", "hd"}, "50+0 50+0"},
		{"degraded counts against panic", 140, 50, []string{"hdxx"}, "50+50"},
		{"unknown is healthy", 140, 50, []string{"uuuu", "h"}, "100+0 0+0"},
		{"draining and timed out are not healthy", 140, 50, []string{"hntx", "hhhh"}, "46+0 54+0"},
		{"a level without hosts gets nothing", 140, 50, []string{"", "h"}, "0+0 100+0"},
		{"factor 100 spills at once", 100, 50, []string{"hhhx", "h"}, "75+0 25+0"},
		{"factor unset is 140", 0, 50, []string{"hx", "hh"}, "70+0 30+0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := loads(set(t, tt.factor, tt.panic, tt.levels...)); got != tt.want {
				t.Errorf("loads %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCounts(t *testing.T) {
	s := set(t, 140, 50, "hhud", "xntd").set
	if s.Total() != 8 || s.Healthy() != 3 || s.Degraded() != 2 || s.Excluded() != 1 {
		t.Errorf("total %d healthy %d degraded %d excluded %d, want 8 3 2 1", s.Total(), s.Healthy(), s.Degraded(), s.Excluded())
	}
}

func TestHealthByWeight(t *testing.T) {
	hs := hosts("a*1", "b*9", "c")
	hs[0].health, hs[2].priority = api.HealthUnhealthy, 1
	for byWeight, want := range map[bool]string{false: "70+0 30+0", true: "100+0 0+0"} {
		c := config(api.RoundRobin, seeded())
		c.WeightedHealth = byWeight
		if got := loads(with(c, hs)); got != want {
			t.Errorf("by weight %t: %s, want %s", byWeight, got, want)
		}
	}
}

func TestPicksFollowTheLoad(t *testing.T) {
	tests := []struct {
		name   string
		panic  float64
		levels []string
		want   map[string]float64 // share by the first two letters of the name
	}{
		{"spill", 50, []string{"hx", "hh"}, map[string]float64{"0h": .7, "1h": .3}},
		{"degraded", 50, []string{"hddddd"}, map[string]float64{"0h": .23, "0d": .77}},
		{"panic uses every host", 50, []string{"hxx"}, map[string]float64{"0h": .333, "0x": .667}},
		{"panic off uses the healthy one", 0, []string{"hxx"}, map[string]float64{"0h": 1}},
	}
	for _, tt := range tests {
		for _, p := range []api.LBPolicy{api.RoundRobin, api.LeastRequest, api.Random} {
			t.Run(tt.name+"/"+p.String(), func(t *testing.T) {
				const n = 20000
				o := set(t, 140, tt.panic, tt.levels...)
				o.set.config.Balancing.Policy = p
				got := map[string]int{}
				for range n {
					h, ok := o.pick()
					if !ok {
						t.Fatal("no host")
					}
					got[h.name[:2]]++
				}
				for k, c := range got {
					if d := float64(c)/n - tt.want[k]; d > .02 || d < -.02 {
						t.Errorf("%s got %.3f, want %.3f", k, float64(c)/n, tt.want[k])
					}
				}
			})
		}
	}
}

func TestLoadsAlwaysAddUpTo100(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		levels := make([]string, r.IntN(5)+1)
		for i := range levels {
			for range r.IntN(8) {
				levels[i] += string("hudxnt"[r.IntN(6)])
			}
		}
		levels[len(levels)-1] += "x" // the set is not empty
		factor, threshold := uint32(r.IntN(400)+1), float64(r.IntN(101))
		s := set(t, factor, threshold, levels...)
		var sum uint32
		for _, l := range s.set.whole.levels {
			sum += l.healthyLoad + l.degradedLoad
		}
		if sum != 100 {
			t.Fatalf("loads %q of %q factor %d panic %v add up to %d", loads(s), levels, factor, threshold, sum)
		}
	}
}
