package balance

import (
	"maps"
	"math"
	"slices"

	"github.com/sluice-proxy/sluice/api"
)

// subsets are a cluster's hosts by the metadata that they have in common
// (subset_lb.cc).
type subsets struct {
	config *api.Subsets
	set    *Set
	byID   map[string]*subset
	// selectors are those that have a say in what is done when nothing is found,
	// by their keys.
	selectors map[string]*api.Selector
	// any and common are all hosts, and those of the default subset; nil unless
	// somebody falls back to them.
	any, common *group
}

// subset is one. single is the one host of a single_host_per_subset.
type subset struct {
	hosts  []Host
	group  *group
	single Host
}

func newSubsets(s *Set, hosts []Host, before *Set) *subsets {
	c := s.config.Balancing.Subsets
	u := &subsets{config: c, set: s, byID: map[string]*subset{}, selectors: map[string]*api.Selector{}}
	needAny, needCommon := c.Fallback == api.FallbackAny || c.PanicModeAny, c.Fallback == api.FallbackDefault
	for i := range c.Selectors {
		sel := &c.Selectors[i]
		if u.overshadowed(i) {
			continue
		}
		u.selectors[join(sel.Keys)] = sel
		needAny = needAny || sel.Fallback == api.FallbackAny
		needCommon = needCommon || sel.Fallback == api.FallbackDefault
	}
	if needAny {
		u.any = u.group("*", hosts, before)
	}
	if needCommon {
		u.common = u.group("default", u.matching(hosts), before)
	}
	duplicates := uint64(0)
	for _, h := range hosts {
		for i := range c.Selectors {
			duplicates += u.add(h, &c.Selectors[i])
		}
	}
	for id, one := range u.byID {
		if one.single == nil {
			one.group = u.group(id, one.hosts, before)
		}
	}
	s.config.Stats.scope.Gauge("lb_subsets_single_host_per_subset_duplicate").Set(duplicates)
	u.countAgainst(before)
	return u
}

// overshadowed says that an earlier selector begins with all keys of selector i:
// Envoy then never looks at the fallback of the latter.
func (u *subsets) overshadowed(i int) bool {
	keys := u.config.Selectors[i].Keys
	for j := range i {
		if earlier := u.config.Selectors[j].Keys; len(earlier) >= len(keys) && slices.Equal(earlier[:len(keys)], keys) {
			return true
		}
	}
	return false
}

// add puts h into the subsets that sel makes of it, and tells how many had their
// one host already.
func (u *subsets) add(h Host, sel *api.Selector) (duplicates uint64) {
	for _, pairs := range u.combinations(h, sel.Keys) {
		id := subsetID(pairs)
		one := u.byID[id]
		if one == nil {
			one = &subset{}
			u.byID[id] = one
		}
		one.hosts = append(one.hosts, h)
		if !sel.SingleHost {
			continue
		}
		switch {
		case one.single == nil || h.Priority() < one.single.Priority():
			one.single = h
		case h.Priority() == one.single.Priority():
			duplicates++
		}
	}
	return duplicates
}

// combinations are the values that h has for keys; none if it lacks one. A list
// stands for each of its values where list_as_any says so.
func (u *subsets) combinations(h Host, keys []string) [][]pair {
	fields := h.Metadata()[lbFilter]
	var out [][]pair
	for _, k := range keys {
		v, ok := fields[k]
		if !ok {
			return nil
		}
		values := []any{v}
		if l, ok := v.([]any); ok && u.config.ListAsAny {
			values = l
		}
		var next [][]pair
		for _, v := range values {
			if out == nil {
				next = append(next, []pair{{k, v, text(v)}})
			}
			for _, have := range out {
				next = append(next, append(slices.Clone(have), pair{k, v, text(v)}))
			}
		}
		out = next
	}
	return out
}

// matching are the hosts of the default subset.
func (u *subsets) matching(hosts []Host) (out []Host) {
	for _, h := range hosts {
		fields, fits := h.Metadata()[lbFilter], true
		for k, want := range u.config.Default {
			have, ok := fields[k]
			same := ok && text(have) == text(want)
			if l, list := have.([]any); list && u.config.ListAsAny {
				same = slices.ContainsFunc(l, func(one any) bool { return text(one) == text(want) })
			}
			fits = fits && same
		}
		if fits {
			out = append(out, h)
		}
	}
	return out
}

// group balances over some of the hosts, in the way that the cluster does.
func (u *subsets) group(name string, hosts []Host, before *Set) *group {
	var was *group
	if before != nil && before.subsets != nil {
		was = before.subsets.named(name)
	}
	levels := sort(hosts, &u.set.config)
	return newGroup(u.set, "subset "+name, levels, u.weights(levels), was, before)
}

func (u *subsets) named(name string) *group {
	switch one := u.byID[name]; {
	case name == "*":
		return u.any
	case name == "default":
		return u.common
	case one != nil:
		return one.group
	}
	return nil
}

// weights are those of the localities, in a subset.
func (u *subsets) weights(levels []level) map[Spot]uint32 {
	all := u.set.config.Weights
	switch {
	case !u.config.LocalityWeightAware:
		return nil
	case !u.config.ScaleLocalityWeight:
		return all
	}
	out := map[Spot]uint32{}
	for i := range levels {
		for j := range levels[i].localities {
			loc := &levels[i].localities[j]
			spot := Spot{levels[i].priority, loc.place}
			for k := range u.set.whole.levels[i].localities {
				if whole := &u.set.whole.levels[i].localities[k]; whole.place == loc.place {
					out[spot] = uint32(math.Round(float64(float32(uint64(all[spot])*uint64(len(loc.all)))) / float64(len(whole.all))))
				}
			}
		}
	}
	return out
}

// countAgainst counts which subsets are new, and which are gone.
func (u *subsets) countAgainst(before *Set) {
	st := u.set.config.Stats
	var old map[string]*subset
	if before != nil && before.subsets != nil {
		old = before.subsets.byID
	}
	for id := range u.byID {
		if old[id] == nil {
			st.SubsetsCreated.Add(u.set.config.Threads)
			st.SubsetsActive.Add(int64(u.set.config.Threads))
		}
	}
	for id := range old {
		if u.byID[id] == nil {
			u.countGone(1)
		}
	}
}

func (u *subsets) countGone(n int) {
	c := &u.set.config
	c.Stats.SubsetsRemoved.Add(uint64(n) * c.Threads)
	c.Stats.SubsetsActive.Add(-int64(n) * int64(c.Threads))
}

func (u *subsets) close() { u.countGone(len(u.byID)) }

// report puts the figures of the tables into the gauges; they are those of the
// last one made, as in Envoy.
func (u *subsets) report() {
	for _, g := range []*group{u.any, u.common} {
		if g != nil {
			g.report()
		}
	}
	for _, id := range slices.Sorted(maps.Keys(u.byID)) {
		if g := u.byID[id].group; g != nil {
			g.report()
		}
	}
}

// pick picks from the subset that the connection asks for, or falls back.
func (u *subsets) pick(p *Picker, a *Asked) Host {
	m := a.Match
	if !u.config.FallbackList || m == nil || m.rest == nil {
		return u.try(p, a, m)
	}
	if len(m.list) == 0 {
		return u.try(p, a, m.rest)
	}
	for _, one := range m.list {
		if h := u.try(p, a, one); h != nil {
			return h
		}
	}
	return nil
}

func (u *subsets) try(p *Picker, a *Asked, m *criteria) Host {
	st := u.set.config.Stats
	if u.config.AllowRedundantKeys && m != nil {
		m = u.reduced(p, m)
	}
	if m != nil {
		if one := u.byID[m.id]; one != nil {
			st.SubsetsSelected.Inc()
			if one.single != nil {
				return one.single
			}
			return one.group.pick(p, a)
		}
		if sel := u.selectors[m.keys]; sel != nil {
			switch sel.Fallback {
			case api.FallbackAny:
				return u.any.pick(p, a)
			case api.FallbackDefault:
				return u.common.pick(p, a)
			case api.FallbackKeys:
				return u.try(p, a, p.cut(m, sel.KeysSubset))
			case api.FallbackNone:
				return nil
			}
		}
	}
	back := u.any
	switch u.config.Fallback {
	case api.FallbackNone:
		return nil
	case api.FallbackDefault:
		back = u.common
	}
	if h := back.pick(p, a); h != nil {
		st.SubsetsFallback.Inc()
		return h
	}
	if u.config.PanicModeAny {
		if h := u.any.pick(p, a); h != nil {
			st.SubsetsFallbackPanic.Inc()
			return h
		}
	}
	return nil
}

// reduced are the criteria cut down to the first selector that they hold.
func (u *subsets) reduced(p *Picker, m *criteria) *criteria {
	for i := range u.config.Selectors {
		sel := &u.config.Selectors[i]
		if less := p.cut(m, sel.Keys); len(less.pairs) == len(sel.Keys) {
			return less
		}
	}
	return m
}
