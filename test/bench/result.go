package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"
)

// Result is what a call of the benchmark has measured; bench/results.json.
type Result struct {
	Plan     plan
	Versions map[string]string
	CPU      string
	Started  time.Time
	Took     time.Duration // ns
	// Key names what was measured: with another one nothing is resumed.
	Key     string
	LeftOut []string `json:",omitempty"` // proxies that are not installed
	Cells   []Measured
	// Field is the comparison of ways to forward, see fieldTable.
	Field []Run `json:",omitempty"`
}

// Measured is a cell with all of its runs.
type Measured struct {
	Cell Cell
	Runs []Run
	// Void says why the runs do not count.
	Void []string `json:",omitempty"`
	// Unchecked is what direct bulk makes per second when no byte is compared.
	Unchecked float64 `json:",omitempty"`
}

// metric picks one figure of a run.
type metric func(Run) float64

func perSecond(r Run) float64 { return r.PerSecond }
func p50(r Run) float64       { return r.P50 }
func p99(r Run) float64       { return r.P99 }
func p999(r Run) float64      { return r.P999 }

// proxies are those that were measured, in the order of kinds, direct first.
func (m *Measured) proxies() []string {
	var names []string
	for _, n := range order() {
		if slices.ContainsFunc(m.Runs, func(r Run) bool { return r.Proxy == n }) {
			names = append(names, n)
		}
	}
	for _, r := range m.Runs {
		if !slices.Contains(names, r.Proxy) {
			names = append(names, r.Proxy) // of -before
		}
	}
	return names
}

func order() []string {
	names := []string{direct}
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}

func labelOf(name string) string {
	for _, k := range kinds() {
		if k.name == name {
			return k.label
		}
	}
	return name
}

func isPeer(name string) bool {
	for _, k := range kinds() {
		if k.name == name {
			return !k.sluice
		}
	}
	return false
}

// all are a proxy's values, sorted; runs that failed have none.
func (m *Measured) all(name string, f metric) []float64 {
	var v []float64
	for _, r := range m.Runs {
		if r.Proxy == name && r.Error == "" {
			v = append(v, f(r))
		}
	}
	slices.Sort(v)
	return v
}

// median of a proxy's values; 0 if there is none.
func (m *Measured) median(name string, f metric) float64 { return median(m.all(name, f)) }

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// paired is the median over the rounds of what combine makes of a's and b's
// values in the same round: what disturbed a round disturbed both.
func (m *Measured) paired(a, b string, f metric, combine func(a, b float64) float64) (float64, bool) {
	var v []float64
	for _, ra := range m.Runs {
		if ra.Proxy != a || ra.Error != "" {
			continue
		}
		for _, rb := range m.Runs {
			if rb.Proxy == b && rb.Round == ra.Round && rb.Error == "" {
				v = append(v, combine(f(ra), f(rb)))
			}
		}
	}
	return median(v), len(v) > 0
}

func quotient(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func difference(a, b float64) float64 { return a - b }

// ratio of a to b.
func (m *Measured) ratio(a, b string, f metric) (float64, bool) { return m.paired(a, b, f, quotient) }

// best is the peer with the highest median, or the lowest.
func (m *Measured) best(f metric, lowest bool) string {
	best := ""
	for _, n := range m.proxies() {
		if !isPeer(n) || len(m.all(n, f)) == 0 {
			continue
		}
		v, b := m.median(n, f), m.median(best, f)
		if best == "" || !lowest && v > b || lowest && v < b {
			best = n
		}
	}
	return best
}

// aboveDirect is the CPU of the whole machine per operation, less direct's.
func (m *Measured) aboveDirect(name string) (float64, bool) {
	return m.paired(name, direct, func(r Run) float64 { return r.MachineCPU }, difference)
}

// others is the share of the busy CPU time that was not the load's own in direct
// runs, where nothing else should run: what it is more than a few per cent, some
// other program took from the figures.
func (m *Measured) others() float64 {
	return m.median(direct, func(r Run) float64 { return max(0, 1-quotient(r.LoadCPU, r.MachineCPU)) })
}

// noise is the median of others over all cells.
func (r *Result) noise() float64 {
	var v []float64
	for i := range r.Cells {
		v = append(v, r.Cells[i].others())
	}
	return median(v)
}

// quiet is the most noise with which figures mean something.
const quiet = 0.1

// errorsOf are what went wrong with a proxy.
func (m *Measured) errorsOf(name string) (e []string) {
	for _, r := range m.Runs {
		if r.Proxy == name && r.Error != "" {
			e = append(e, r.Error)
		}
	}
	return e
}

// save writes the result, whole or not at all.
func (r *Result) save(path string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

// loadResult reads one; nil if there is none.
func loadResult(path string) (*Result, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read result: %w", err)
	}
	r := new(Result)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("read result %s: %w", path, err)
	}
	return r, nil
}
