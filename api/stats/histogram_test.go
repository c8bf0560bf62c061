package stats

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func record(vs ...float64) *Histogram {
	h := new(Histogram)
	for _, v := range vs {
		h.Record(v)
	}
	return h
}

// The figures of the first two cases were read off Envoy 1.40's
// /stats?histogram_buckets=detailed.
func TestQuantilesAreEnvoys(t *testing.T) {
	tests := []struct {
		name   string
		values []float64
		want   map[float64]float64
	}{
		{"five short connections", []float64{2, 1, 2, 4, 2}, map[float64]float64{0: 1.05, .25: 2.025, .5: 2.05, .75: 2.075, .9: 4.05, 1: 4.05}},
		{"zeros", []float64{0, 0, 0}, map[float64]float64{0: 0, .5: 0, 1: 0}},
		{"one value", []float64{30}, map[float64]float64{0: 30.5, .5: 30.5, 1: 30.5}},
		{"under a bin's float error", []float64{2.3}, map[float64]float64{.5: 2.35}},
		{"too small is zero", []float64{1e-9}, map[float64]float64{1: 0}},
		{"too large is the last bin", []float64{1e300}, map[float64]float64{1: 9.95e11}},
		{"never negative", []float64{-5, math.NaN()}, map[float64]float64{0: 0, 1: 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := record(tt.values...).snapshot()
			for q, want := range tt.want {
				if got := s.Quantile(q); math.Abs(got-want) > 1e-9*max(1, want) {
					t.Errorf("Quantile(%v) = %v, want %v (bins %v)", q, got, want, s.Bins)
				}
			}
		})
	}
	if !math.IsNaN(new(Histogram).snapshot().Quantile(.5)) {
		t.Error("an empty histogram has a quantile")
	}
}

func TestEveryValueLiesInItsBin(t *testing.T) {
	for v := 1e-4; v < 1e12; v *= 1.037 {
		b := record(v).snapshot().Bins
		if len(b) != 1 || v < b[0].Low*(1-1e-9) || v > (b[0].Low+b[0].Width)*(1+1e-9) {
			t.Fatalf("%v fell into %v", v, b)
		}
	}
}

func TestCountsAreExactAtTheBounds(t *testing.T) {
	s := record(0.5, 0.51, 1, 105, 3600000, 3600001).snapshot()
	want := map[float64]uint64{0.5: 1, 1: 2, 250: 1, 3600000: 1}
	for i, bound := range Buckets() {
		if s.Counts[i] != want[bound] {
			t.Errorf("le %v: %d, want %d", bound, s.Counts[i], want[bound])
		}
	}
	if over := s.Counts[len(s.Counts)-1]; over != 1 {
		t.Errorf("over every bound: %d, want 1", over)
	}
	if s.Count != 6 || s.Sum != 0.5+0.51+1+105+3600000+3600001 {
		t.Errorf("count %d, sum %v", s.Count, s.Sum)
	}
}

// As circllhist has it, a bin counts under a bound that it lies under whole: 30 is in
// the bin from 30 to 31.
func TestOtherBoundsCountByBins(t *testing.T) {
	store := New()
	h := store.Scope("a").Histogram("h")
	store.Scope("a").Histogram("other").Record(1)
	store.SetBuckets(func(name string) []float64 {
		if name != "a.h" {
			return nil
		}
		return []float64{0.3, 10, 30, 31, 100}
	})
	for _, v := range []float64{0, 0.2, 0.3, 9, 30, 30.5, 31, 99, 100, 5000} {
		h.Record(v)
	}
	store.EndInterval()
	h.Record(50)
	st, _ := store.Lookup("a.h")
	want := []uint64{2, 2, 0, 2, 3, 2}
	if d := cmp.Diff(want, st.Hist.Counts); d != "" {
		t.Error(d)
	}
	want[4]--
	if d := cmp.Diff(want, st.Hist.Interval.Counts); d != "" {
		t.Errorf("of the interval: %s", d)
	}
	if st.Hist.Count != 11 || st.Hist.Sum != 0.5+9+30+30.5+31+99+100+5000+50 {
		t.Errorf("count %d, sum %v", st.Hist.Count, st.Hist.Sum)
	}
	if st, _ := store.Lookup("a.other"); len(st.Hist.Bounds) != len(Buckets()) {
		t.Errorf("the other has bounds %v", st.Hist.Bounds)
	}
}

func TestIntervalIsWhatCameInBetweenTwoFlushes(t *testing.T) {
	store := New()
	h := store.Scope("a").Histogram("h")
	interval := func() []Bin {
		st, _ := store.Lookup("a.h")
		if st.Hist.Interval == nil {
			return nil
		}
		return st.Hist.Interval.Bins
	}
	steps := []struct {
		name   string
		values []float64
		flush  bool
		want   []Bin
	}{
		{"before the first flush", []float64{5}, false, nil},
		{"first flush", nil, true, []Bin{{5, .1, 1}}},
		{"the interval stands until the next", []float64{5, 70}, false, []Bin{{5, .1, 1}}},
		{"second flush", nil, true, []Bin{{5, .1, 1}, {70, 1, 1}}},
		{"nothing came in", nil, true, nil},
	}
	for _, st := range steps {
		for _, v := range st.values {
			h.Record(v)
		}
		if st.flush {
			store.EndInterval()
		}
		if d := cmp.Diff(st.want, interval(), cmpopts.EquateApprox(0, 1e-9)); d != "" {
			t.Errorf("%s: %s", st.name, d)
		}
	}
}
