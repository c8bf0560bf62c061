package stats

import (
	"slices"
	"strings"
)

// All returns every stat, sorted by full name.
func (s *Store) All() []Stat {
	var out []Stat
	s.each(func(sc *Scope, name string, v any) {
		out = append(out, sc.read(name, v))
	})
	slices.SortFunc(out, func(a, b Stat) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Lookup finds one stat by its full name.
func (s *Store) Lookup(name string) (Stat, bool) {
	for end := len(name); end >= 0; end = strings.LastIndexByte(name[:max(end-1, 0)], '.') + 1 {
		s.mu.Lock()
		sc := s.scopes[name[:end]]
		s.mu.Unlock()
		if sc != nil {
			sc.mu.Lock()
			v, ok := sc.findLocked(name[end:])
			sc.mu.Unlock()
			if ok {
				return sc.read(name[end:], v), true
			}
		}
		if end == 0 {
			break
		}
	}
	return Stat{}, false
}

// ResetCounters sets every counter to zero (Envoy's /reset_counters). What is
// counted at the same moment may be lost.
func (s *Store) ResetCounters() {
	s.each(func(_ *Scope, _ string, v any) {
		if c, ok := v.(*Counter); ok && c.v.Load() != 0 {
			c.reset.Store(true)
			c.v.Store(0)
		}
	})
}

// EndInterval closes the histograms' interval: what they recorded since the
// last call is what HistogramSnapshot.Interval shows until the next. Envoy
// calls that flushing, and does it every 5 s.
func (s *Store) EndInterval() {
	s.each(func(_ *Scope, _ string, v any) {
		if h, ok := v.(*Histogram); ok {
			h.endInterval()
		}
	})
}

// each holds a scope's lock while it calls f for the scope's stats.
func (s *Store) each(f func(sc *Scope, name string, v any)) {
	s.mu.Lock()
	scopes := make([]*Scope, 0, len(s.scopes))
	for _, sc := range s.scopes {
		scopes = append(scopes, sc)
	}
	s.mu.Unlock()
	for _, sc := range scopes {
		sc.mu.Lock()
		sc.eachLocked(func(name string, v any) { f(sc, name, v) })
		sc.mu.Unlock()
	}
}

func (sc *Scope) read(name string, v any) Stat {
	st := Stat{Name: sc.prefix + name, TagName: sc.tagPrefix + name, Tags: sc.tags, Cuts: sc.cuts}
	if from, to, tag, ok := responseCode(name); ok {
		st.TagName = sc.tagPrefix + name[:from] + name[to:]
		st.Tags = append([]Tag{tag}, sc.tags...)
		st.Cuts = append(sc.cuts[:len(sc.cuts):len(sc.cuts)], [2]int{len(sc.prefix) + from, len(sc.prefix) + to})
	}
	switch v := v.(type) {
	case *Counter:
		st.Kind, st.Value = KindCounter, v.Value()
		st.Used = st.Value != 0 || v.reset.Load()
	case *Gauge:
		st.Kind, st.Value, st.Used = KindGauge, v.Value(), v.used.Load()
	case *Text:
		st.Kind, st.Text = KindText, v.Value()
		st.Used = st.Text != ""
	case *Histogram:
		st.Kind, st.Hist = KindHistogram, v.snapshot()
		if f := sc.store.buckets.Load(); f != nil {
			if bounds := (*f)(st.Name); bounds != nil {
				st.Hist = st.Hist.within(bounds)
			}
		}
		st.Used = st.Hist.Count != 0
	}
	return st
}
