package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluice-proxy/sluice/api"
)

type testHost struct {
	name     string
	weight   uint32
	active   atomic.Uint32
	health   api.Health
	priority uint32
}

func (h *testHost) Weight() uint32         { return h.weight }
func (h *testHost) Active() uint32         { return h.active.Load() }
func (h *testHost) Flags() api.HealthFlags { return h.health.Flags() }
func (h *testHost) Priority() uint32       { return h.priority }

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

func picks(t *testing.T, b Balancer[*testHost], s *Set[*testHost], n int) string {
	t.Helper()
	var out strings.Builder
	for range n {
		h, ok := b.Pick(s)
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
			b := New[*testHost](api.RoundRobin, 0, zero)
			if got := picks(t, b, NewSet(tt.hosts, 140, 50), len(tt.want)); got != tt.want {
				t.Errorf("order %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRoundRobinStartsWhereTheRandomNumberSays(t *testing.T) {
	b := New[*testHost](api.RoundRobin, 0, func() uint64 { return 1 })
	if got := picks(t, b, NewSet(hosts("a", "b", "c"), 140, 50), 3); got != "bca" {
		t.Errorf("order %q, want bca", got)
	}
	b = New[*testHost](api.RoundRobin, 0, func() uint64 { return 1 })
	if got := picks(t, b, NewSet(hosts("a*2", "b*1"), 140, 50), 3); got != "baa" {
		t.Errorf("weighted order %q, want baa", got)
	}
}

func TestRoundRobinKeepsItsPlaceAcrossSets(t *testing.T) {
	for _, specs := range [][]string{{"a", "b", "c", "d"}, {"a*3", "b*1", "c*2", "d*2"}} {
		hs := hosts(specs...)
		steady := New[*testHost](api.RoundRobin, 0, zero)
		one := NewSet(hs, 140, 50)
		want := picks(t, steady, one, 40)

		pushed := New[*testHost](api.RoundRobin, 0, zero)
		var got strings.Builder
		for range 40 {
			// A push per connection must not send all of them to the first host.
			got.WriteString(picks(t, pushed, NewSet(hs, 140, 50), 1))
		}
		if got.String() != want {
			t.Errorf("%v: order with a push per pick %q, want %q", specs, got.String(), want)
		}
	}
}

func TestRoundRobinSurvivesTwoSetsInUseAtOnce(t *testing.T) {
	hs := hosts("a*3", "b*1")
	before, after := NewSet(hs, 140, 50), NewSet(append(hs, hosts("c*4")...), 140, 50)
	b := New[*testHost](api.RoundRobin, 0, zero)
	var old, next strings.Builder
	for range 80 {
		old.WriteString(picks(t, b, before, 1))
		next.WriteString(picks(t, b, after, 1))
	}
	if n := strings.Count(old.String(), "a"); n != 60 {
		t.Errorf("old set gave a %d of 80, want 60", n)
	}
	if n := strings.Count(next.String(), "c"); n < 39 || n > 41 {
		t.Errorf("new set gave c %d of 80, want about 40", n)
	}
}

func TestAChangedWeightHoldsAtOnce(t *testing.T) {
	hs := hosts("a*1", "b*1000")
	b := New[*testHost](api.RoundRobin, 0, zero)
	picks(t, b, NewSet(hs, 140, 50), 10)
	hs[0].weight, hs[1].weight = 1000, 1
	got := picks(t, b, NewSet(hs, 140, 50), 1001)
	if n := strings.Count(got, "a"); n < 999 {
		t.Errorf("a got %d of 1001, want at least 999", n)
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
			s, b := NewSet(tt.hosts, 140, 50), New[*testHost](tt.policy, 2, seeded())
			got := map[string]int{}
			for range n {
				h, ok := b.Pick(s)
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
		b := New[*testHost](api.LeastRequest, 2, seeded())
		got := picks(t, b, NewSet(hs, 140, 50), 10000)
		// a is taken only if both draws hit it.
		if n := strings.Count(got, "a"); n < 2300 || n > 2700 {
			t.Errorf("busy host got %d of 10000, want about 2500", n)
		}
	})
	t.Run("more draws avoid the busy one better", func(t *testing.T) {
		hs := hosts("a", "b")
		hs[0].active.Store(5)
		b := New[*testHost](api.LeastRequest, 10, seeded())
		got := picks(t, b, NewSet(hs, 140, 50), 10000)
		if n := strings.Count(got, "a"); n > 50 {
			t.Errorf("busy host got %d of 10000, want about 10", n)
		}
	})
	t.Run("open connections lower a weight", func(t *testing.T) {
		hs := hosts("a*2", "b*1")
		hs[0].active.Store(3) // 2/4 against 1/1
		b := New[*testHost](api.LeastRequest, 2, zero)
		got := picks(t, b, NewSet(hs, 140, 50), 3000)
		if n := strings.Count(got, "a"); n < 990 || n > 1010 {
			t.Errorf("busy heavy host got %d of 3000, want 1000", n)
		}
	})
	t.Run("connections held open even out", func(t *testing.T) {
		hs := hosts("a", "b", "c", "d")
		s, b := NewSet(hs, 140, 50), New[*testHost](api.LeastRequest, 2, seeded())
		for range 4000 {
			h, _ := b.Pick(s)
			h.active.Add(1)
		}
		for _, h := range hs {
			if n := h.Active(); n < 990 || n > 1010 {
				t.Errorf("%s holds %d of 4000", h.name, n)
			}
		}
	})
}

func TestPickWithoutHost(t *testing.T) {
	sick := hosts("a", "b")
	sick[0].health, sick[1].health = api.HealthUnhealthy, api.HealthDraining
	for _, p := range []api.LBPolicy{api.RoundRobin, api.LeastRequest, api.Random} {
		b := New[*testHost](p, 2, seeded())
		if h, ok := b.Pick(NewSet[*testHost](nil, 140, 50)); ok || h != nil {
			t.Errorf("%v: picked %v from an empty set", p, h)
		}
		if h, ok := b.Pick(NewSet(sick, 140, 0)); ok || h != nil {
			t.Errorf("%v: picked %v with no healthy host and panic off", p, h)
		}
		if _, ok := b.Pick(NewSet(sick, 140, 50)); !ok {
			t.Errorf("%v: picked none with panic on", p)
		}
	}
}

func TestConcurrentPicksLoseNoTurn(t *testing.T) {
	for _, specs := range [][]string{{"a", "b"}, {"a*3", "b*1"}} {
		hs := hosts(specs...)
		s, b := NewSet(hs, 140, 50), New[*testHost](api.RoundRobin, 0, rand.Uint64)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 2000 {
					if h, ok := b.Pick(s); ok {
						h.active.Add(1)
					}
				}
			})
		}
		wg.Wait()
		share := float64(hs[0].weight) / float64(hs[0].weight+hs[1].weight)
		if d := math.Abs(float64(hs[0].Active()) - 8000*share); d > 2 {
			t.Errorf("%v: a got %d of 8000, want %.0f", specs, hs[0].Active(), 8000*share)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{2, 1000} {
		for _, weighted := range []bool{false, true} {
			for _, p := range []api.LBPolicy{api.RoundRobin, api.LeastRequest, api.Random} {
				b.Run(fmt.Sprintf("%v/hosts=%d/weighted=%t", p, n, weighted), func(b *testing.B) {
					hs := make([]*testHost, n)
					for i := range hs {
						hs[i] = &testHost{weight: 1}
						if weighted {
							hs[i].weight = uint32(i%7 + 1)
						}
					}
					s, bal := NewSet(hs, 140, 50), New[*testHost](p, 2, rand.Uint64)
					b.ReportAllocs()
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							bal.Pick(s)
						}
					})
				})
			}
		}
	}
}

func BenchmarkNewSet(b *testing.B) {
	hs := make([]*testHost, 1000)
	for i := range hs {
		hs[i] = &testHost{weight: uint32(i%7 + 1), priority: uint32(i % 2)}
	}
	b.ReportAllocs()
	for b.Loop() {
		NewSet(hs, 140, 50)
	}
}
