package stats

import "sync/atomic"

// Tag is a name and value that was cut out of a stat's name, for instance
// {"envoy.cluster_name", "web"}.
type Tag struct{ Name, Value string }

// Infix is a path element of which only the end is a tag: `worker_0` is
// Infix{"worker_", Tag{"envoy.worker_id", "0"}}, and leaves `worker_` in front
// of what follows in the tag-extracted name, as Envoy's extraction does.
type Infix struct {
	Prefix string
	Tag    Tag
}

// Kind tells what a Stat is.
type Kind uint8

// The kinds of stats.
const (
	KindCounter Kind = iota
	KindGauge
	KindHistogram
	KindText
)

// Stat is one named figure, as a reader of the store sees it.
type Stat struct {
	Name    string // full
	TagName string // with tags cut out
	Tags    []Tag
	// Cuts are the ranges of Name that TagName lacks, in order.
	Cuts [][2]int
	Kind Kind
	// Used says that it was ever touched (Envoy's usedonly).
	Used bool
	// Value of a counter or gauge.
	Value uint64
	Text  string
	Hist  *HistogramSnapshot
}

// Counter only grows, but for Store.ResetCounters. Safe for concurrent use.
type Counter struct {
	v     atomic.Uint64
	reset atomic.Bool // it counted before a reset, so it stays used
}

// Inc adds one.
func (c *Counter) Inc() { c.v.Add(1) }

// Add adds n.
func (c *Counter) Add(n uint64) {
	if n != 0 {
		c.v.Add(n)
	}
}

// Value is the present count.
func (c *Counter) Value() uint64 { return c.v.Load() }

// Gauge goes up and down. Safe for concurrent use.
type Gauge struct {
	v    atomic.Int64
	used atomic.Bool
}

// Add adds n, which may be negative.
func (g *Gauge) Add(n int64) {
	g.v.Add(n)
	if !g.used.Load() {
		g.used.Store(true)
	}
}

// Inc adds one.
func (g *Gauge) Inc() { g.Add(1) }

// Dec takes one away.
func (g *Gauge) Dec() { g.Add(-1) }

// Set replaces the value.
func (g *Gauge) Set(n uint64) {
	g.v.Store(int64(n))
	g.used.Store(true)
}

// Value is the present value.
func (g *Gauge) Value() uint64 { return uint64(g.v.Load()) }

// Text is a stat whose value is a string, such as version_text.
type Text struct{ v atomic.Pointer[string] }

// Set replaces the text.
func (t *Text) Set(s string) { t.v.Store(&s) }

// Value is the present text, "" before the first Set.
func (t *Text) Value() string {
	if p := t.v.Load(); p != nil {
		return *p
	}
	return ""
}
