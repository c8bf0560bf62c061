package balance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/runtime"
)

// spread makes hosts in zones by a word: `aab` are two in zone a and one in b; a
// capital is a sick one. A host's name is its zone.
func spread(word string) (out []*testHost) {
	for i, r := range word {
		zone := strings.ToLower(string(r))
		h := &testHost{name: zone, weight: 1, place: api.Place{Zone: zone}}
		if zone != string(r) {
			h.health = api.HealthUnhealthy
		}
		_ = i
		out = append(out, h)
	}
	return out
}

func shareOf(t *testing.T, o *one, n int) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for range n {
		h, ok := o.pick()
		if !ok {
			out["none"]++
			continue
		}
		out[h.name]++
	}
	for k := range out {
		out[k] /= float64(n)
	}
	return out
}

func near(got, want map[string]float64) bool {
	for k := range got {
		if d := got[k] - want[k]; d > .03 || d < -.03 {
			return false
		}
	}
	return len(got) == len(want)
}

func TestZoneAwareRouting(t *testing.T) {
	for _, tt := range []struct {
		name, local, hosts string
		set                func(*api.ZoneAware)
		want               map[string]float64
		counted            string
	}{
		{"as many near hosts as near proxies: all stay", "ab", "aaabbb", nil, map[string]float64{"a": 1}, "direct"},
		{"fewer near hosts: the rest goes where there is room", "aab", "aabbbb", nil, map[string]float64{"a": .5, "b": .5}, "sampled and cross"},
		{"no near host", "ab", "bbbccc", nil, map[string]float64{"c": 1}, "cross"},
		{"a small cluster", "ab", "aab", nil, map[string]float64{"a": .67, "b": .33}, "too small"},
		{"a smaller one will do", "ab", "ab", func(z *api.ZoneAware) { z.MinClusterSize = 2 }, map[string]float64{"a": 1}, "direct"},
		{"half of it", "ab", "aaabbb", func(z *api.ZoneAware) { z.Enabled = 50 }, map[string]float64{"a": .75, "b": .25}, "direct"},
		{"all proxies in one zone", "aa", "aaabbb", nil, map[string]float64{"a": .5, "b": .5}, ""},
		{"this proxy is not among them", "bc", "aaabbb", nil, map[string]float64{"a": .5, "b": .5}, "not ok"},
		{"most proxies are sick", "abBBB", "aaabbb", nil, map[string]float64{"a": .5, "b": .5}, "not ok"},
		{"most proxies are sick, and that fails", "abBBB", "aaabbb", func(z *api.ZoneAware) { z.FailOnPanic = true }, map[string]float64{"none": 1}, "not ok"},
		{"the near zone is forced", "aaab", "abbbbb", func(z *api.ZoneAware) { z.ForceLocal = 1 }, map[string]float64{"a": 1}, "directnot ok"},
		{"the near zone is too small to be forced", "aaab", "abbbbb", func(z *api.ZoneAware) { z.ForceLocal = 2 }, map[string]float64{"a": .22, "b": .78}, "sampled and crossnot ok"},
		{"no local cluster", "", "aaabbb", nil, map[string]float64{"a": .5, "b": .5}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := config(api.RoundRobin, seeded())
			c.Home = api.Place{Zone: "a"}
			var local *Set
			if tt.local != "" {
				l := config(api.RoundRobin, seeded())
				l.Home = c.Home
				local = New(l, list(spread(tt.local)), nil)
			}
			c.Local = func() *Set { return local }
			if tt.set != nil {
				tt.set(&c.Balancing.Zone)
			}
			if got := shareOf(t, with(c, spread(tt.hosts)), 6000); !near(got, tt.want) {
				t.Errorf("%v, want %v", got, tt.want)
			}
			st, counted := c.Stats, ""
			for _, one := range []struct {
				n    uint64
				name string
			}{{st.AllDirectly.Value(), "direct"}, {st.Sampled.Value(), "sampled and "}, {st.CrossZone.Value(), "cross"}, {st.TooSmall.Value(), "too small"}, {st.LocalClusterNotOK.Value(), "not ok"}} {
				if one.n > 0 {
					counted += one.name
				}
			}
			if counted != tt.counted {
				t.Errorf("counted %q, want %q", counted, tt.counted)
			}
		})
	}
}

func TestAChangeOfTheLocalClusterIsSeen(t *testing.T) {
	c := config(api.RoundRobin, seeded())
	c.Home = api.Place{Zone: "a"}
	l := config(api.RoundRobin, seeded())
	l.Home = c.Home
	local := New(l, list(spread("ab")), nil)
	c.Local = func() *Set { return local }
	o := with(c, spread("aaabbb"))
	if got := shareOf(t, o, 600); got["a"] != 1 {
		t.Errorf("at first %v", got)
	}
	local = New(l, list(spread("aaab")), nil)
	if got := shareOf(t, o, 6000); !near(got, map[string]float64{"a": .67, "b": .33}) {
		t.Errorf("after a change %v", got)
	}
	// At first, with the local cluster, and with the changed one (see countZones).
	if n := c.Stats.Recalculate.Value(); n != 3 {
		t.Errorf("computed %d times, want 3", n)
	}
}

func TestPanicMayFail(t *testing.T) {
	c := config(api.RoundRobin, seeded())
	c.Balancing.Zone.FailOnPanic = true
	if h, ok := with(c, spread("aBC")).pick(); ok || c.Stats.HealthyPanic.Value() != 1 {
		t.Errorf("picked %v in panic", h)
	}
	if _, ok := with(c, spread("abC")).pick(); !ok {
		t.Error("picked none without panic")
	}
}

func TestRuntimeBeatsTheConfiguration(t *testing.T) {
	rt, err := runtime.New([]runtime.Layer{{Name: "static", Values: map[string]string{"upstream.healthy_panic_threshold": "0", "upstream.zone_routing.min_cluster_size": "2"}}})
	if err != nil {
		t.Fatal(err)
	}
	sick := hosts("a")
	sick[0].health = api.HealthUnhealthy
	c := config(api.RoundRobin, seeded())
	c.Runtime = rt
	if h, ok := with(c, sick).pick(); ok {
		t.Errorf("picked %v, though the runtime has panic off", h)
	}
	c = config(api.RoundRobin, seeded())
	c.Runtime, c.Home = rt, api.Place{Zone: "a"}
	l := config(api.RoundRobin, seeded())
	l.Home = c.Home
	local := New(l, list(spread("ab")), nil)
	c.Local = func() *Set { return local }
	if got := shareOf(t, with(c, spread("ab")), 200); got["a"] != 1 {
		t.Errorf("%v, though two hosts are enough", got)
	}
}

func TestLocalitiesByWeight(t *testing.T) {
	weights := func(w map[string]uint32) map[Spot]uint32 {
		out := map[Spot]uint32{}
		for zone, n := range w {
			out[Spot{0, api.Place{Zone: zone}}] = n
		}
		return out
	}
	for _, tt := range []struct {
		name, hosts string
		weights     map[string]uint32
		want        map[string]float64
	}{
		{"not by the number of hosts", "abbb", map[string]uint32{"a": 3, "b": 1}, map[string]float64{"a": .75, "b": .25}},
		{"without a weight a locality gets nothing", "ab", map[string]uint32{"a": 1}, map[string]float64{"a": 1}},
		{"without any it is by hosts", "abbb", nil, map[string]float64{"a": .25, "b": .75}},
		{"a locality that is half sick loses weight", "aAbb", map[string]uint32{"a": 1, "b": 1}, map[string]float64{"a": .41, "b": .59}},
		{"a quarter sick is made up for", "aaaAbb", map[string]uint32{"a": 1, "b": 1}, map[string]float64{"a": .5, "b": .5}},
	} {
		for _, p := range []api.LBPolicy{api.RoundRobin, api.LeastRequest, api.Random} {
			t.Run(fmt.Sprintf("%s/%v", tt.name, p), func(t *testing.T) {
				c := config(p, seeded())
				c.Balancing.LocalityWeighted, c.Weights = true, weights(tt.weights)
				if got := shareOf(t, with(c, spread(tt.hosts)), 6000); !near(got, tt.want) {
					t.Errorf("%v, want %v", got, tt.want)
				}
			})
		}
	}
}
