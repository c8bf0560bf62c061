package stats

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestScopeBuildsFullAndTagExtractedName(t *testing.T) {
	tests := []struct {
		name          string
		path          []any
		full, tagName string
		tags          []Tag
		cuts          [][2]int
	}{
		{"root", nil, "x", "x", nil, nil},
		{"empty segment is the root", []any{""}, "x", "x", nil, nil},
		{"plain", []any{"server"}, "server.x", "server.x", nil, nil},
		{"tag in the middle", []any{"cluster", Tag{"envoy.cluster_name", "a.b"}, "default"},
			"cluster.a.b.default.x", "cluster.default.x", []Tag{{"envoy.cluster_name", "a.b"}}, [][2]int{{8, 12}}},
		{"infix keeps its prefix glued to the name",
			[]any{"listener", Tag{"envoy.listener_address", "[__1]_80"}, Infix{"worker_", Tag{"envoy.worker_id", "0"}}},
			"listener.[__1]_80.worker_0.x", "listener.worker_x",
			[]Tag{{"envoy.listener_address", "[__1]_80"}, {"envoy.worker_id", "0"}}, [][2]int{{9, 18}, {25, 27}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := New()
			s.Scope(tt.path...).Counter("x").Inc()
			want := []Stat{{Name: tt.full, TagName: tt.tagName, Tags: tt.tags, Cuts: tt.cuts, Kind: KindCounter, Used: true, Value: 1}}
			if d := cmp.Diff(want, s.All()); d != "" {
				t.Error(d)
			}
			got, ok := s.Lookup(tt.full)
			if !ok || got.Value != 1 {
				t.Errorf("Lookup(%q) = %+v, %v", tt.full, got, ok)
			}
			if _, ok := s.Lookup(tt.full + "y"); ok {
				t.Errorf("Lookup(%q) found something", tt.full+"y")
			}
		})
	}
}

func TestScopeRefusesWhatItCannotName(t *testing.T) {
	mustPanic := func(name string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", name)
			}
		}()
		f()
	}
	s := New()
	mustPanic("path element of another type", func() { s.Scope(7) })
	sc := s.Scope("a")
	sc.Counter("x")
	mustPanic("one name, two kinds", func() { sc.Gauge("x") })
}

func TestUsedIsWhatWasEverTouched(t *testing.T) {
	s := New()
	sc := s.Scope("s")
	steps := []struct {
		name string
		do   func()
		want []string
	}{
		{"nothing touched", func() { sc.Counter("c"); sc.Gauge("g"); sc.Text("t"); sc.Histogram("h") }, nil},
		{"adding nothing touches nothing", func() { sc.Counter("c").Add(0) }, nil},
		{"gauge set to zero", func() { sc.Gauge("g").Set(0) }, []string{"s.g"}},
		{"counter", func() { sc.Counter("c").Inc() }, []string{"s.c", "s.g"}},
		{"counter stays used after a reset", s.ResetCounters, []string{"s.c", "s.g"}},
		{"histogram and text", func() { sc.Histogram("h").Record(0); sc.Text("t").Set("v") }, []string{"s.c", "s.g", "s.h", "s.t"}},
	}
	for _, st := range steps {
		st.do()
		var got []string
		for _, x := range s.All() {
			if x.Used {
				got = append(got, x.Name)
			}
		}
		if d := cmp.Diff(st.want, got); d != "" {
			t.Errorf("%s: %s", st.name, d)
		}
	}
	if c, _ := s.Lookup("s.c"); c.Value != 0 {
		t.Errorf("counter after reset = %d", c.Value)
	}
}

func TestGaugeGoesDown(t *testing.T) {
	g := New().Scope("s").Gauge("g")
	g.Inc()
	g.Add(4)
	g.Dec()
	if g.Value() != 4 {
		t.Errorf("gauge = %d, want 4", g.Value())
	}
}

func TestScopeGoesWithItsLastHolder(t *testing.T) {
	s := New()
	a, b := s.Scope("a"), s.Scope("a")
	a.Counter("x").Inc()
	if b.Counter("x").Value() != 1 {
		t.Error("two scopes of one prefix do not share")
	}
	a.Release()
	if _, ok := s.Lookup("a.x"); !ok {
		t.Error("gone while it has a holder")
	}
	b.Release()
	if got := s.All(); len(got) != 0 {
		t.Errorf("left over: %v", got)
	}
	if n := s.Scope("a").Counter("x").Value(); n != 0 {
		t.Errorf("a new scope remembers %d", n)
	}
}

func TestConcurrentUse(t *testing.T) {
	s := New()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				sc := s.Scope("a", Tag{"t", "v"})
				sc.Counter("c").Inc()
				sc.Histogram("h").Record(3)
				s.All()
				s.EndInterval()
			}
		})
	}
	wg.Wait()
	if c, _ := s.Lookup("a.v.c"); c.Value != 2000 {
		t.Errorf("counter = %d, want 2000", c.Value)
	}
	if h, _ := s.Lookup("a.v.h"); h.Hist.Count != 2000 || h.Hist.Sum != 6000 {
		t.Errorf("histogram = %d, sum %v, want 2000, 6000", h.Hist.Count, h.Hist.Sum)
	}
}

func BenchmarkCounterInc(b *testing.B) {
	c := New().Scope("a").Counter("c")
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.Inc()
		}
	})
}

func BenchmarkHistogramRecord(b *testing.B) {
	h := New().Scope("a").Histogram("h")
	for b.Loop() {
		h.Record(37)
	}
}

func BenchmarkAll1000Clusters(b *testing.B) {
	s := New()
	for i := range 1000 {
		sc := s.Scope("cluster", Tag{"envoy.cluster_name", string(rune('a'+i%26)) + string(rune('0'+i/26))})
		for _, n := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			sc.Counter(n).Inc()
		}
		sc.Histogram("l").Record(float64(i))
	}
	for b.Loop() {
		s.All()
	}
}

func TestAResponseCodeIsATag(t *testing.T) {
	st := New()
	sc := st.Scope("cluster", Tag{"envoy.cluster_name", "a"})
	for name, want := range map[string]struct {
		tagName string
		tag     Tag
	}{
		"upstream_rq_200":   {"cluster.upstream_rq", Tag{"envoy.response_code", "200"}},
		"upstream_rq_5xx":   {"cluster.upstream_rq_xx", Tag{"envoy.response_code_class", "5"}},
		"upstream_rq_total": {"cluster.upstream_rq_total", Tag{}},
		"upstream_rq_0rtt":  {"cluster.upstream_rq_0rtt", Tag{}},
		"x":                 {"cluster.x", Tag{}},
	} {
		sc.Counter(name)
		got, ok := st.Lookup("cluster.a." + name)
		tags := []Tag{{"envoy.cluster_name", "a"}}
		if want.tag != (Tag{}) {
			tags = append([]Tag{want.tag}, tags...)
		}
		if !ok || got.TagName != want.tagName || !slices.Equal(got.Tags, tags) {
			t.Errorf("%s: %s %v", name, got.TagName, got.Tags)
		}
		without, at := "", 0
		for _, c := range got.Cuts {
			without += got.Name[at:c[0]]
			at = c[1]
		}
		if without += got.Name[at:]; without != got.TagName {
			t.Errorf("%s without its cuts is %s", name, without)
		}
	}
}

func TestBlanksAreShownUntilTheyMove(t *testing.T) {
	s := New()
	b := NewBlank([]string{"a", "in.b"}, []string{"g"}, []string{"h"})
	one, two := s.Scope("one"), s.Scope("two")
	one.Show(b)
	two.Show(b)
	two.Counter("a").Inc()
	var got []string
	for _, st := range s.All() {
		got = append(got, fmt.Sprintf("%s %d %t", st.Name, st.Value, st.Used))
	}
	want := []string{"one.a 0 false", "one.g 0 false", "one.h 0 false", "one.in.b 0 false", "two.a 1 true", "two.g 0 false", "two.h 0 false", "two.in.b 0 false"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if st, ok := s.Lookup("one.in.b"); !ok || st.Value != 0 {
		t.Error("not found", st)
	}
}
