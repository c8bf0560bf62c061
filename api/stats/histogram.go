package stats

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// buckets are the upper bounds that Envoy's Prometheus output has by default
// (histogram_impl.cc), in the histogram's unit, milliseconds for `_ms`.
var buckets = [...]float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000}

// Buckets returns the upper bounds, ascending; +Inf is implied.
func Buckets() []float64 { return append([]float64(nil), buckets[:]...) }

// Bins are log-linear like those of Envoy's circllhist: two significant
// digits, so 90 to a decade and an error of at most a tenth.
const (
	binsPerDecade = 90
	minExponent   = -4 // values under 1e-4 count as zero
	decades       = 16 // values from 1e12 on count in the last bin
)

type decade [binsPerDecade]atomic.Uint64

// Histogram counts values twice: exactly by Buckets, for Prometheus, and by
// finer bins for the quantiles. A decade's bins are allocated when the first
// value falls into it. Safe for concurrent use.
type Histogram struct {
	of   *Scope // nil in a Blank
	name string // in of

	counts  [len(buckets) + 1]atomic.Uint64
	sum     atomic.Uint64 // float64 bits
	zero    atomic.Uint64
	decades [decades]atomic.Pointer[decade]

	mu             sync.Mutex
	last, interval *HistogramSnapshot // guarded by mu; see endInterval
}

// Bin is a range [Low, Low+Width) and how many values fell into it.
type Bin struct {
	Low, Width float64
	Count      uint64
}

// HistogramSnapshot is a histogram as it stands.
type HistogramSnapshot struct {
	// Bounds are upper bounds, ascending; Counts[i] are the values <= Bounds[i] and
	// over the bound before, its last element counts those over every bound. Bounds of
	// the configuration (Store.SetBuckets) count by Bins, as Envoy's do: a bin belongs
	// under the bound that it lies under whole.
	Bounds []float64
	Counts []uint64
	Count  uint64
	Sum    float64
	// Bins are those that hold a value, ascending.
	Bins []Bin
	// Interval holds what came in during the last complete flush interval; nil
	// if there was none, or if nothing came in.
	Interval *HistogramSnapshot
}

// Record adds a value. Negative values and NaN count as 0, for a clock that
// went back must not spoil the sum.
func (h *Histogram) Record(v float64) {
	if !(v > 0) {
		v = 0
	}
	if h.of != nil {
		if f := h.of.store.observer.Load(); f != nil {
			x := h.of.read(h.name, nil)
			x.Kind, x.Used = KindHistogram, true
			(*f)(&x, v)
		}
	}
	i := 0
	for i < len(buckets) && v > buckets[i] {
		i++
	}
	h.counts[i].Add(1)
	h.bin(v).Add(1)
	for {
		old := h.sum.Load()
		if h.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// RecordTime adds a time in whole milliseconds, as Envoy's timers do.
func (h *Histogram) RecordTime(d time.Duration) { h.Record(float64(d.Milliseconds())) }

func (h *Histogram) bin(v float64) *atomic.Uint64 {
	low := math.Pow10(minExponent)
	if v < low {
		return &h.zero
	}
	d := 0
	for d < decades-1 && v >= low*10 {
		d, low = d+1, math.Pow10(minExponent+d+1)
	}
	p := h.decades[d].Load()
	if p == nil {
		h.decades[d].CompareAndSwap(nil, new(decade))
		p = h.decades[d].Load()
	}
	// The epsilon keeps 2.3 out of the bin of 2.2: 2.3/0.1 is a hair under 23.
	i := min(v/(low/10)+1e-9, 99)
	return &p[max(int(i)-10, 0)]
}

func (h *Histogram) snapshot() *HistogramSnapshot {
	s := h.load()
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Interval = h.interval
	return s
}

func (h *Histogram) load() *HistogramSnapshot {
	s := &HistogramSnapshot{Bounds: buckets[:], Counts: make([]uint64, len(h.counts))}
	for i := range h.counts {
		s.Counts[i] = h.counts[i].Load()
		s.Count += s.Counts[i]
	}
	s.Sum = math.Float64frombits(h.sum.Load())
	if n := h.zero.Load(); n != 0 {
		s.Bins = append(s.Bins, Bin{Count: n})
	}
	for d := range h.decades {
		p := h.decades[d].Load()
		if p == nil {
			continue
		}
		width := math.Pow10(minExponent + d - 1)
		for i := range p {
			if n := p[i].Load(); n != 0 {
				s.Bins = append(s.Bins, Bin{Low: float64(i+10) * width, Width: width, Count: n})
			}
		}
	}
	return s
}

// endInterval makes what came in since the last call the interval. It costs
// next to nothing if that was nothing.
func (h *Histogram) endInterval() {
	h.mu.Lock()
	defer h.mu.Unlock()
	var count, seen uint64
	for i := range h.counts {
		count += h.counts[i].Load()
	}
	if h.last != nil {
		seen = h.last.Count
	}
	if h.interval = nil; count == seen {
		return
	}
	now := h.load()
	h.interval, h.last = now.minus(h.last), now
}

func (s *HistogramSnapshot) minus(o *HistogramSnapshot) *HistogramSnapshot {
	if o == nil {
		return s
	}
	d := &HistogramSnapshot{Bounds: s.Bounds, Counts: make([]uint64, len(s.Counts)), Count: s.Count - o.Count, Sum: s.Sum - o.Sum}
	for i := range s.Counts {
		d.Counts[i] = s.Counts[i] - o.Counts[i]
	}
	j := 0
	for _, b := range s.Bins {
		if j < len(o.Bins) && o.Bins[j].Low == b.Low {
			b.Count -= o.Bins[j].Count
			j++
		}
		if b.Count != 0 {
			d.Bins = append(d.Bins, b)
		}
	}
	return d
}

// within is s with other bounds.
func (s *HistogramSnapshot) within(bounds []float64) *HistogramSnapshot {
	if s == nil {
		return nil
	}
	out := *s
	out.Bounds, out.Counts = bounds, make([]uint64, len(bounds)+1)
	out.Interval = s.Interval.within(bounds)
	i := 0
	for _, b := range s.Bins { // ascending
		upper := (b.Low + b.Width) * (1 - 1e-12) // 0.1+0.2 is over 0.3
		for i < len(bounds) && upper > bounds[i] {
			i++
		}
		out.Counts[i] += b.Count
	}
	return &out
}

// Quantile estimates the q-th quantile (0..1) as Envoy's circllhist does: the
// values of a bin are taken to lie evenly inside it. NaN when nothing was
// recorded, also for a nil snapshot.
func (s *HistogramSnapshot) Quantile(q float64) float64 {
	if s == nil || len(s.Bins) == 0 {
		return math.NaN()
	}
	var total uint64
	for _, b := range s.Bins {
		total += b.Count
	}
	rank := min(max(uint64(math.Ceil(q*float64(total))), 1), total)
	for _, b := range s.Bins {
		if rank <= b.Count {
			return b.Low + b.Width*float64(rank)/float64(b.Count+1)
		}
		rank -= b.Count
	}
	return math.NaN()
}
