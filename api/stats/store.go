// Package stats is the one store of counters, gauges and histograms. Both
// halves of Sluice count in it and the admin server reads it; it stands under
// api because xds and dataplane never see each other.
//
// A stat has two names, as in Envoy: the full one (`cluster.web.upstream_cx_total`)
// and the tag-extracted one (`cluster.upstream_cx_total` with tag
// envoy.cluster_name=web). Scopes build both, so nothing is parsed back.
package stats

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
)

// Store holds every stat of the process. The zero value is not usable; see New.
type Store struct {
	mu     sync.Mutex
	scopes map[string]*Scope

	observer atomic.Pointer[func(*Stat, float64)]
	buckets  atomic.Pointer[func(name string) []float64]
}

// SetBuckets has f say which upper bounds the histogram of a full name has, ascending;
// nil for the default ones.
func (s *Store) SetBuckets(f func(name string) []float64) { s.buckets.Store(&f) }

// Observe has f called with every value that a histogram records from now on, on
// the goroutine that records it, which must not wait.
func (s *Store) Observe(f func(h *Stat, v float64)) { s.observer.Store(&f) }

// New returns an empty store.
func New() *Store { return &Store{scopes: map[string]*Scope{}} }

// Scope is a prefix with its tags. Scopes of one prefix are one scope, counted
// by reference: the stats go when the last holder calls Release.
type Scope struct {
	store *Store
	// read-only after creation
	prefix, tagPrefix string // each empty or with a dot at its end, but for an Infix
	tags              []Tag
	cuts              [][2]int // of prefix, what tagPrefix lacks

	refs int // guarded by store.mu

	mu    sync.Mutex
	stats map[string]any // guarded by mu
	blank *Blank         // guarded by mu; may be nil
}

// Scope returns the scope of a prefix. Each element of path is either a plain
// segment or, written as Tag, a segment that is cut out into a tag:
//
//	store.Scope("cluster", stats.Tag{Name: "envoy.cluster_name", Value: "web"})
//
// One full name belongs to one scope: whoever counts `a.b.c` in scope `a.b`
// must not count it as `b.c` in scope `a` as well.
func (s *Store) Scope(path ...any) *Scope {
	var full, cut strings.Builder // both end in a dot, unless empty
	var tags []Tag
	var cuts [][2]int
	for _, p := range path {
		switch p := p.(type) {
		case string:
			if p = clean(p); p == "" {
				continue // the root
			}
			full.WriteString(p + ".")
			cut.WriteString(p + ".")
		case Tag:
			p.Value = clean(p.Value)
			cuts = append(cuts, [2]int{full.Len(), full.Len() + len(p.Value) + 1})
			full.WriteString(p.Value + ".")
			tags = append(tags, p)
		case Infix:
			from := full.Len() + len(p.Prefix)
			cuts = append(cuts, [2]int{from, from + len(p.Tag.Value) + 1})
			full.WriteString(p.Prefix + p.Tag.Value + ".")
			cut.WriteString(p.Prefix)
			tags = append(tags, p.Tag)
		default:
			panic("stats: a path element is a string, a Tag or an Infix")
		}
	}
	prefix := full.String()
	s.mu.Lock()
	defer s.mu.Unlock()
	sc := s.scopes[prefix]
	if sc == nil {
		sc = &Scope{store: s, prefix: prefix, tagPrefix: cut.String(), tags: tags, cuts: cuts, stats: map[string]any{}}
		s.scopes[prefix] = sc
	}
	sc.refs++
	return sc
}

// clean is a part of a name as Envoy has it (Utility::sanitizeStatsName).
func clean(part string) string {
	if strings.IndexByte(part, ':') >= 0 {
		part = colons.Replace(part)
	}
	return strings.TrimRight(part, ".")
}

var colons = strings.NewReplacer("://", "_", ":/", "_", ":", "_")

// Release gives the scope back; its stats are forgotten with the last holder.
func (sc *Scope) Release() {
	sc.store.mu.Lock()
	defer sc.store.mu.Unlock()
	if sc.refs--; sc.refs == 0 {
		delete(sc.store.scopes, sc.prefix)
	}
}

func get[T any](sc *Scope, name string, mk func() *T) *T {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if v, ok := sc.stats[name]; ok {
		t, ok := v.(*T)
		if !ok {
			panic(fmt.Sprintf("stats: %s%s is a %T, asked for as %T", sc.prefix, name, v, t))
		}
		return t
	}
	v := mk()
	sc.stats[name] = v
	return v
}

// Counter returns the scope's counter called name, made on first use.
func (sc *Scope) Counter(name string) *Counter {
	return get(sc, name, func() *Counter { return new(Counter) })
}

// Gauge returns the scope's gauge called name, made on first use.
func (sc *Scope) Gauge(name string) *Gauge {
	return get(sc, name, func() *Gauge { return new(Gauge) })
}

// Text returns the scope's text called name, made on first use.
func (sc *Scope) Text(name string) *Text {
	return get(sc, name, func() *Text { return new(Text) })
}

// Histogram returns the scope's histogram called name, made on first use.
func (sc *Scope) Histogram(name string) *Histogram {
	return get(sc, name, func() *Histogram { return &Histogram{of: sc, name: name} })
}
