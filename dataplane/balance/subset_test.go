package balance

import (
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/api"
)

func labelled(name string, kv ...string) *testHost {
	h := &testHost{name: name, weight: 1, metadata: map[string]any{}}
	for i := 0; i < len(kv); i += 2 {
		h.metadata[kv[i]] = kv[i+1]
	}
	return h
}

func by(fallback api.Fallback, keys ...string) api.Selector {
	return api.Selector{Keys: keys, Fallback: fallback}
}

func match(kv ...string) *Asked {
	values := map[string]any{}
	for i := 0; i < len(kv); i += 2 {
		values[kv[i]] = kv[i+1]
	}
	return &Asked{Match: NewCriteria(values, false)}
}

// got are the hosts that 60 picks come to, each once and sorted.
func got(o *one, a *Asked) string {
	seen := map[string]bool{}
	for range 60 {
		if h, ok := o.ask(a); ok {
			seen[h.name] = true
		}
	}
	out := ""
	for c := 'a'; c <= 'z'; c++ {
		if seen[string(c)] {
			out += string(c)
		}
	}
	return out
}

func TestSubsets(t *testing.T) {
	fleet := func() []*testHost {
		return []*testHost{labelled("a", "v", "1", "s", "prod"), labelled("b", "v", "1", "s", "dev"), labelled("c", "v", "2", "s", "prod"), labelled("d", "s", "prod"), labelled("e")}
	}
	unset := api.FallbackUnset
	for _, tt := range []struct {
		name  string
		s     api.Subsets
		asked *Asked
		want  string
	}{
		{"one key", api.Subsets{Selectors: []api.Selector{by(unset, "v")}}, match("v", "1"), "ab"},
		{"two keys", api.Subsets{Selectors: []api.Selector{by(unset, "s", "v")}}, match("v", "1", "s", "prod"), "a"},
		{"keys that no selector has", api.Subsets{Selectors: []api.Selector{by(unset, "s", "v")}}, match("v", "1"), ""},
		{"no such value", api.Subsets{Selectors: []api.Selector{by(unset, "v")}}, match("v", "3"), ""},
		{"another type of value", api.Subsets{Selectors: []api.Selector{by(unset, "v")}}, &Asked{Match: NewCriteria(map[string]any{"v": 1.0}, false)}, ""},
		{"nothing asked, nothing to fall back to", api.Subsets{Selectors: []api.Selector{by(unset, "v")}}, &Asked{}, ""},
		{"fall back to any", api.Subsets{Fallback: api.FallbackAny, Selectors: []api.Selector{by(unset, "v")}}, match("v", "3"), "abcde"},
		{"fall back to the default", api.Subsets{Fallback: api.FallbackDefault, Default: map[string]any{"s": "prod"}, Selectors: []api.Selector{by(unset, "v")}}, &Asked{}, "acd"},
		{"an empty default is any", api.Subsets{Fallback: api.FallbackDefault, Selectors: []api.Selector{by(unset, "v")}}, &Asked{}, "abcde"},
		{"a default that nobody is, then panic", api.Subsets{Fallback: api.FallbackDefault, Default: map[string]any{"s": "x"}, PanicModeAny: true, Selectors: []api.Selector{by(unset, "v")}}, &Asked{}, "abcde"},
		{"a selector's own fallback", api.Subsets{Fallback: api.FallbackAny, Selectors: []api.Selector{by(api.FallbackNone, "v")}}, match("v", "3"), ""},
		{"a selector's fallback to any", api.Subsets{Selectors: []api.Selector{by(api.FallbackAny, "v")}}, match("v", "3"), "abcde"},
		{"a selector's fallback to the default", api.Subsets{Default: map[string]any{"s": "dev"}, Selectors: []api.Selector{by(api.FallbackDefault, "v")}}, match("v", "3"), "b"},
		{"fewer keys", api.Subsets{Selectors: []api.Selector{{Keys: []string{"s", "v"}, Fallback: api.FallbackKeys, KeysSubset: []string{"s"}}, by(unset, "s")}}, match("v", "3", "s", "dev"), "b"},
		{"redundant keys", api.Subsets{AllowRedundantKeys: true, Selectors: []api.Selector{by(unset, "v")}}, match("v", "1", "x", "y"), "ab"},
		{"a list of fallbacks", api.Subsets{FallbackList: true, Selectors: []api.Selector{by(unset, "v")}}, &Asked{Match: NewCriteria(map[string]any{"fallback_list": []any{map[string]any{"v": "3"}, map[string]any{"v": "2"}}}, false)}, "c"},
		{"a list without the policy is a key", api.Subsets{Selectors: []api.Selector{by(unset, "v")}}, &Asked{Match: NewCriteria(map[string]any{"fallback_list": []any{map[string]any{"v": "2"}}}, false)}, ""},
		{"one host of each", api.Subsets{Selectors: []api.Selector{{Keys: []string{"v"}, Fallback: unset, SingleHost: true}}}, match("v", "1"), "a"},
		{"an earlier, longer selector hides a fallback, as in Envoy", api.Subsets{Selectors: []api.Selector{by(unset, "s", "v"), by(api.FallbackAny, "s")}}, match("s", "x"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, p := range []api.LBPolicy{api.RoundRobin, api.Maglev} {
				c := config(p, seeded())
				c.Balancing.Subsets = &tt.s
				if h := got(with(c, fleet()), tt.asked); h != tt.want {
					t.Errorf("%v: %q, want %q", p, h, tt.want)
				}
			}
		})
	}
}

func TestAListOfValuesStandsForEach(t *testing.T) {
	hs := []*testHost{labelled("a"), labelled("b", "v", "1"), labelled("c")}
	hs[0].metadata["v"] = []any{"1", "2"}
	for asAny, want := range map[bool]string{true: "ab", false: "b"} {
		c := config(api.RoundRobin, seeded())
		c.Balancing.Subsets = &api.Subsets{ListAsAny: asAny, Selectors: []api.Selector{by(api.FallbackUnset, "v")}, Fallback: api.FallbackDefault, Default: map[string]any{"v": "1"}}
		if h := got(with(c, hs), match("v", "1")); h != want {
			t.Errorf("list as any %t: %q, want %q", asAny, h, want)
		}
		if h := got(with(c, hs), &Asked{}); h != want {
			t.Errorf("list as any %t: default %q, want %q", asAny, h, want)
		}
	}
}

func TestSubsetsAreCounted(t *testing.T) {
	c := config(api.RoundRobin, seeded())
	c.Balancing.Subsets = &api.Subsets{Fallback: api.FallbackAny, Selectors: []api.Selector{by(api.FallbackUnset, "v")}}
	st := c.Stats
	figures := func() [6]uint64 {
		return [6]uint64{st.SubsetsActive.Value(), st.SubsetsCreated.Value(), st.SubsetsRemoved.Value(), st.SubsetsSelected.Value(), st.SubsetsFallback.Value(), st.SubsetsFallbackPanic.Value()}
	}
	o := with(c, []*testHost{labelled("a", "v", "1"), labelled("b", "v", "2")})
	o.ask(match("v", "1"))
	o.ask(match("v", "3"))
	o.ask(&Asked{})
	if f := figures(); f != [6]uint64{2, 2, 0, 1, 2, 0} {
		t.Errorf("at first: %v", f)
	}
	o.update(c, []*testHost{labelled("b", "v", "2"), labelled("c", "v", "3")})
	if f := figures(); f != [6]uint64{2, 3, 1, 1, 2, 0} {
		t.Errorf("after an update: %v", f)
	}
	c.Balancing.Subsets = nil
	o.update(c, nil)
	if f := figures(); f != [6]uint64{0, 3, 3, 1, 2, 0} {
		t.Errorf("without subsets: %v", f)
	}
}

func TestSecondHostsOfSingleHostSubsetsAreCounted(t *testing.T) {
	c := config(api.RoundRobin, seeded())
	c.Balancing.Subsets = &api.Subsets{Selectors: []api.Selector{{Keys: []string{"v"}, Fallback: api.FallbackUnset, SingleHost: true}}}
	lower := labelled("c", "v", "1")
	lower.priority = 1
	with(c, []*testHost{labelled("a", "v", "1"), labelled("b", "v", "1"), lower})
	if n := c.Stats.scope.Gauge("lb_subsets_single_host_per_subset_duplicate").Value(); n != 1 {
		t.Errorf("%d duplicates, want 1: a subset has one host in each priority", n)
	}
}

func TestASubsetKeepsItsTurn(t *testing.T) {
	c := config(api.RoundRobin, zero)
	c.Balancing.Subsets = &api.Subsets{Selectors: []api.Selector{by(api.FallbackUnset, "v")}}
	hs := []*testHost{labelled("a", "v", "1"), labelled("b", "v", "1")}
	o := with(c, hs)
	var order strings.Builder
	for range 6 {
		h, _ := o.ask(match("v", "1"))
		order.WriteString(h.name)
		o.update(c, hs)
	}
	if order.String() != "ababab" {
		t.Errorf("with an update at every pick: %s", order.String())
	}
}

func TestHostsThatMetadataName(t *testing.T) {
	c := config(api.RoundRobin, zero)
	c.Balancing.Override = &api.OverrideHost{Sources: []api.MetadataKey{{Filter: "f", Path: []string{"k"}}}}
	hs := hosts("a", "b", "c")
	hs[1].health = api.HealthUnhealthy
	o := with(c, hs)
	a := &Asked{Metadata: map[string]map[string]any{"f": {"k": "x, b,c"}}}
	for _, want := range []string{"b", "c", "a"} { // then the balancer's
		if h, _ := o.ask(a); h.name != want {
			t.Errorf("picked %s, want %s", h.name, want)
		}
	}
}
