package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
)

type testHost struct {
	name     string
	weight   uint32
	active   atomic.Uint32
	health   api.Health
	priority uint32
	place    api.Place
	since    int64
	metadata map[string]any
}

func (h *testHost) Weight() uint32         { return h.weight }
func (h *testHost) Active() uint64         { return uint64(h.active.Load()) }
func (h *testHost) Flags() api.HealthFlags { return h.health.Flags() }
func (h *testHost) Priority() uint32       { return h.priority }
func (h *testHost) Place() api.Place       { return h.place }
func (h *testHost) Address() string        { return h.name }
func (h *testHost) Hostname() string       { return "host-" + h.name }
func (h *testHost) Metadata() api.Metadata { return api.Metadata{"envoy.lb": h.metadata} }
func (h *testHost) HealthySince() int64    { return h.since }

// config is a policy's with Envoy's defaults.
func config(p api.LBPolicy, rng func() uint64) Config {
	return Config{
		Balancing: &api.Balancing{Policy: p, ChoiceCount: 2, ActiveRequestBias: 1, MinRingSize: 1024, MaxRingSize: 1 << 23, TableSize: 65537,
			Zone: api.ZoneAware{Enabled: 100, MinClusterSize: 6}},
		PanicThreshold: 50, Rand: rng, Stats: NewStats(stats.New().Scope("cluster", "c")),
	}
}

// one is a worker with a Set.
type one struct {
	*Picker
	set *Set
}

func with(c Config, hs []*testHost) *one { return &one{NewPicker(), New(c, list(hs), nil)} }

func (o *one) update(c Config, hs []*testHost) { o.set = New(c, list(hs), o.set) }

func (o *one) pick() (*testHost, bool) { return o.ask(&Asked{}) }

func (o *one) ask(a *Asked) (*testHost, bool) {
	h, ok := o.set.Pick(o.Picker, a)
	if !ok {
		return nil, false
	}
	return h.(*testHost), true
}

func list(hs []*testHost) (out []Host) {
	for _, h := range hs {
		out = append(out, h)
	}
	return out
}

// hosts reads "name" or "name*weight".
func hosts(specs ...string) []*testHost {
	var hs []*testHost
	for _, s := range specs {
		h := &testHost{name: s, weight: 1}
		if name, w, ok := strings.Cut(s, "*"); ok {
			h.name = name
			fmt.Sscan(w, &h.weight)
		}
		hs = append(hs, h)
	}
	return hs
}

func seeded() func() uint64 {
	r := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	return func() uint64 { mu.Lock(); defer mu.Unlock(); return r.Uint64() }
}

func zero() uint64 { return 0 }

func picks(t *testing.T, o *one, n int) string {
	t.Helper()
	var out strings.Builder
	for range n {
		h, ok := o.pick()
		if !ok {
			t.Fatalf("no host after %q", out.String())
		}
		out.WriteString(h.name)
	}
	return out.String()
}

func TestRoundRobinOrder(t *testing.T) {
	tests := []struct {
		name  string
		hosts []*testHost
		want  string
	}{
		{"one host", hosts("a"), "aaaa"},
		{"equal weights go round", hosts("a", "b", "c"), "abcabc"},
		{"equal weights above one go round", hosts("a*7", "b*7"), "abab"},
		{"weight 0 counts as 1", hosts("a*0", "b*1"), "abab"},
		{"weighted hosts interleave instead of bunching", hosts("a*2", "b*1"), "abaaba"},
		{"four to one to one", hosts("a*4", "b*1", "c*1"), "aaabcaaaabca"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := with(config(api.RoundRobin, zero), tt.hosts)
			if got := picks(t, o, len(tt.want)); got != tt.want {
				t.Errorf("order %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRoundRobinStartsWhereTheRandomNumberSays(t *testing.T) {
	if got := picks(t, with(config(api.RoundRobin, func() uint64 { return 2 }), hosts("a", "b", "c")), 3); got != "bca" {
		t.Errorf("order %q, want bca", got)
	}
	if got := picks(t, with(config(api.RoundRobin, func() uint64 { return 1 }), hosts("a*2", "b*1")), 3); got != "baa" {
		t.Errorf("weighted order %q, want baa", got)
	}
}

// A schedule that starts in the middle is the one that gets there by picks.
func TestAScheduleStartsAsIfPicksHadBeenDone(t *testing.T) {
	weights := []float64{1, 3, 2, 7, 25, 75}
	w := func(i int) float64 { return weights[i] }
	for _, n := range []uint32{1, 23, 112, 113, 1000, 12345} {
		slow, quick := newSchedule(len(weights), w, 0), newSchedule(len(weights), w, n)
		for range n {
			slow.again(w(slow.next()))
		}
		var a, b [6]int
		for range 113 {
			i, j := slow.next(), quick.next()
			slow.again(w(i))
			quick.again(w(j))
			a[i]++
			b[j]++
		}
		for i := range a { // a tie may fall the other way
			if d := a[i] - b[i]; d < -1 || d > 1 {
				t.Errorf("after %d picks: shares %v, want %v", n, b, a)
			}
		}
	}
}

func TestRoundRobinKeepsItsPlaceAcrossSets(t *testing.T) {
	for _, specs := range [][]string{{"a", "b", "c", "d"}, {"a*3", "b*1", "c*2", "d*2"}} {
		hs, c := hosts(specs...), config(api.RoundRobin, zero)
		want := picks(t, with(c, hs), 40)
		pushed := with(c, hs)
		var got strings.Builder
		for range 40 {
			// A push per connection must not send all of them to the first host.
			got.WriteString(picks(t, pushed, 1))
			pushed.update(c, hs)
		}
		if got.String() != want {
			t.Errorf("%v: order with a push per pick %q, want %q", specs, got.String(), want)
		}
	}
}

func TestAChangedWeightHoldsAtOnce(t *testing.T) {
	hs, c := hosts("a*1", "b*1000"), config(api.RoundRobin, zero)
	o := with(c, hs)
	picks(t, o, 10)
	hs[0].weight, hs[1].weight = 1000, 1
	o.update(c, hs)
	if n := strings.Count(picks(t, o, 1001), "a"); n < 999 {
		t.Errorf("a got %d of 1001, want at least 999", n)
	}
}

func TestPickersForgetPoolsThatAreGone(t *testing.T) {
	c := config(api.RoundRobin, zero)
	o := with(c, hosts("a*2", "b"))
	picks(t, o, 3)
	low := hosts("a*2", "b")
	low[0].priority, low[1].priority = 1, 1
	o.update(c, low)
	picks(t, o, 3)
	o.update(c, hosts("a*2", "b"))
	picks(t, o, 3)
	if len(o.hosts) != 1 {
		t.Errorf("%d schedules of pools, want 1", len(o.hosts))
	}
}

func TestDistribution(t *testing.T) {
	tests := []struct {
		name   string
		policy api.LBPolicy
		hosts  []*testHost
		want   map[string]float64
		slack  float64
	}{
		{"round robin honours weights exactly", api.RoundRobin, hosts("a*1", "b*2", "c*7"), map[string]float64{"a": .1, "b": .2, "c": .7}, .001},
		{"random is even", api.Random, hosts("a", "b", "c", "d"), map[string]float64{"a": .25, "b": .25, "c": .25, "d": .25}, .02},
		{"random looks at no weight", api.Random, hosts("a*1", "b*9"), map[string]float64{"a": .5, "b": .5}, .02},
		{"least request is even among idle hosts", api.LeastRequest, hosts("a", "b"), map[string]float64{"a": .5, "b": .5}, .02},
		{"least request honours weights of idle hosts", api.LeastRequest, hosts("a*1", "b*3"), map[string]float64{"a": .25, "b": .75}, .01},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			const n = 20000
			o := with(config(tt.policy, seeded()), tt.hosts)
			got := map[string]int{}
			for range n {
				h, ok := o.pick()
				if !ok {
					t.Fatal("no host")
				}
				got[h.name]++
			}
			for name, share := range tt.want {
				if d := math.Abs(float64(got[name])/n - share); d > tt.slack {
					t.Errorf("%s got %.3f, want %.3f±%.3f", name, float64(got[name])/n, share, tt.slack)
				}
			}
		})
	}
}

func TestLeastRequestPrefersTheIdle(t *testing.T) {
	t.Run("of two equal hosts drawn the less busy is taken", func(t *testing.T) {
		hs := hosts("a", "b")
		hs[0].active.Store(5)
		got := picks(t, with(config(api.LeastRequest, seeded()), hs), 10000)
		// a is taken only if both draws hit it.
		if n := strings.Count(got, "a"); n < 2300 || n > 2700 {
			t.Errorf("busy host got %d of 10000, want about 2500", n)
		}
	})
	t.Run("more draws avoid the busy one better", func(t *testing.T) {
		hs := hosts("a", "b")
		hs[0].active.Store(5)
		c := config(api.LeastRequest, seeded())
		c.Balancing.ChoiceCount = 10
		got := picks(t, with(c, hs), 10000)
		if n := strings.Count(got, "a"); n > 50 {
			t.Errorf("busy host got %d of 10000, want about 10", n)
		}
	})
	t.Run("open connections lower a weight", func(t *testing.T) {
		hs := hosts("a*2", "b*1")
		hs[0].active.Store(3) // 2/4 against 1/1
		got := picks(t, with(config(api.LeastRequest, zero), hs), 3000)
		if n := strings.Count(got, "a"); n < 990 || n > 1010 {
			t.Errorf("busy heavy host got %d of 3000, want 1000", n)
		}
	})
	t.Run("connections held open even out", func(t *testing.T) {
		hs := hosts("a", "b", "c", "d")
		o := with(config(api.LeastRequest, seeded()), hs)
		for range 4000 {
			h, _ := o.pick()
			h.active.Add(1)
		}
		for _, h := range hs {
			if n := h.Active(); n < 990 || n > 1010 {
				t.Errorf("%s holds %d of 4000", h.name, n)
			}
		}
	})
}

func TestLeastRequestByItsSettings(t *testing.T) {
	t.Run("a full scan finds the idle one always", func(t *testing.T) {
		hs := hosts("a", "b", "c", "d")
		for _, h := range hs[:3] {
			h.active.Store(1)
		}
		c := config(api.LeastRequest, seeded())
		c.Balancing.FullScan = true
		if got := picks(t, with(c, hs), 50); strings.Count(got, "d") != 50 {
			t.Errorf("picked %s", got)
		}
		hs[0].active.Store(0)
		if n := strings.Count(picks(t, with(c, hs), 10000), "a"); n < 4700 || n > 5300 {
			t.Errorf("one of two idle ones got %d of 10000", n)
		}
	})
	for bias, want := range map[float64]int{0: 2000, 1: 1000, 2: 333} {
		hs := hosts("a*2", "b*1")
		hs[0].active.Store(3)
		c := config(api.LeastRequest, zero)
		c.Balancing.ActiveRequestBias = bias
		if n := strings.Count(picks(t, with(c, hs), 3000), "a"); n < want-10 || n > want+10 {
			t.Errorf("bias %v: the busy heavy host got %d of 3000, want %d", bias, n, want)
		}
	}
}

func TestSlowStart(t *testing.T) {
	for _, tt := range []struct {
		name       string
		policy     api.LBPolicy
		aggression float64
		up         time.Duration
		want       int // of 1000, what the new host gets
	}{
		{"half of the window is half the weight", api.RoundRobin, 1, 5 * time.Second, 333},
		{"aggression makes it more", api.RoundRobin, 2, 2500 * time.Millisecond, 333},
		{"at first it is the least share", api.RoundRobin, 1, 0, 91},
		{"after the window it is like the others", api.RoundRobin, 1, 11 * time.Second, 500},
		{"least request", api.LeastRequest, 1, 5 * time.Second, 333},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hs := hosts("a", "b")
			hs[1].since = int64(time.Hour)
			c := config(tt.policy, seeded())
			c.Balancing.SlowStart = api.SlowStart{Window: 10 * time.Second, Aggression: tt.aggression, MinWeight: 0.1}
			c.Now = func() int64 { return int64(time.Hour + tt.up) }
			if n := strings.Count(picks(t, with(c, hs), 1000), "b"); n < tt.want-25 || n > tt.want+25 {
				t.Errorf("b got %d of 1000, want about %d", n, tt.want)
			}
		})
	}
}

func TestPickWithoutHost(t *testing.T) {
	sick := hosts("a", "b")
	sick[0].health, sick[1].health = api.HealthUnhealthy, api.HealthDraining
	for _, p := range []api.LBPolicy{api.RoundRobin, api.LeastRequest, api.Random, api.RingHash, api.Maglev} {
		c := config(p, seeded())
		o := with(c, nil)
		if h, ok := o.pick(); ok || h != nil {
			t.Errorf("%v: picked %v from an empty set", p, h)
		}
		if n := c.Stats.HealthyPanic.Value(); n != 1 {
			t.Errorf("%v: an empty set panicked %d times, want 1", p, n)
		}
		c.PanicThreshold = 0
		if h, ok := with(c, sick).pick(); ok || h != nil {
			t.Errorf("%v: picked %v with no healthy host and panic off", p, h)
		}
		c.PanicThreshold = 50
		if _, ok := with(c, sick).pick(); !ok {
			t.Errorf("%v: picked none with panic on", p)
		}
	}
}

// Workers count on one seat, so that no turn is lost between them.
func TestConcurrentPicksLoseNoTurn(t *testing.T) {
	hs := hosts("a", "b")
	s := New(config(api.RoundRobin, rand.Uint64), list(hs), nil)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			p := NewPicker()
			for range 2000 {
				if h, ok := s.Pick(p, &Asked{}); ok {
					h.(*testHost).active.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := hs[0].Active(); n != 4000 {
		t.Errorf("a got %d of 8000, want 4000", n)
	}
}

func TestPicksAllocateNothing(t *testing.T) {
	for _, p := range []api.LBPolicy{api.RoundRobin, api.LeastRequest, api.Random, api.RingHash, api.Maglev} {
		for _, subsets := range []bool{false, true} {
			hs := hosts("a*1", "b*2", "c*3")
			c := config(p, rand.Uint64)
			c.Balancing.BalanceFactor = 100
			hs[0].active.Store(10)
			a := &Asked{Hashed: true}
			if subsets {
				for _, h := range hs {
					h.metadata = map[string]any{"v": "1"}
				}
				c.Balancing.Subsets = &api.Subsets{Selectors: []api.Selector{{Keys: []string{"v"}, Fallback: api.FallbackUnset}}, AllowRedundantKeys: true}
				a.Match = NewCriteria(map[string]any{"v": "1", "w": "2"}, false)
			}
			o := with(c, hs)
			o.ask(a)
			if n := testing.AllocsPerRun(200, func() { a.Hash += 77777777777; o.set.Pick(o.Picker, a) }); n != 0 {
				t.Errorf("%v, subsets %t: %v allocations a pick", p, subsets, n)
			}
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{2, 1000} {
		for _, weighted := range []bool{false, true} {
			for _, p := range []api.LBPolicy{api.RoundRobin, api.LeastRequest, api.Random, api.RingHash, api.Maglev} {
				b.Run(fmt.Sprintf("%v/hosts=%d/weighted=%t", p, n, weighted), func(b *testing.B) {
					s := New(config(p, rand.Uint64), many(n, weighted), nil)
					b.ReportAllocs()
					b.RunParallel(func(pb *testing.PB) {
						k, a := NewPicker(), &Asked{Hashed: true}
						for pb.Next() {
							a.Hash += 0x9E3779B97F4A7C15
							s.Pick(k, a)
						}
					})
				})
			}
		}
	}
}

func many(n int, weighted bool) []Host {
	var out []Host
	for i := range n {
		h := &testHost{name: fmt.Sprintf("10.0.%d.%d:80", i/256, i%256), weight: 1}
		if weighted {
			h.weight = uint32(i%7 + 1)
		}
		out = append(out, h)
	}
	return out
}

// What an update of one host among 10 000 costs.
func BenchmarkUpdate(b *testing.B) {
	for _, p := range []api.LBPolicy{api.RoundRobin, api.RingHash, api.Maglev} {
		for _, same := range []bool{true, false} {
			b.Run(fmt.Sprintf("%v/same=%t", p, same), func(b *testing.B) {
				hs, c := many(10000, true), config(p, rand.Uint64)
				s := New(c, hs, nil)
				b.ReportAllocs()
				for b.Loop() {
					if !same {
						hs[77].(*testHost).weight ^= 8
					}
					s = New(c, hs, s)
				}
			})
		}
	}
}
