package main

import (
	"fmt"
	"io"
	"path/filepath"
)

// line tells of a cell what can be told on a line for each proxy.
func (m *Measured) line(w io.Writer) {
	best := m.best(perSecond, false)
	for _, n := range m.proxies() {
		for _, e := range m.errorsOf(n) {
			fmt.Fprintf(w, "  %-19s failed: %s\n", labelOf(n), e)
		}
		v := m.all(n, perSecond)
		if len(v) == 0 {
			continue
		}
		toDirect, _ := m.ratio(n, direct, perSecond)
		toBest, _ := m.ratio(n, best, perSecond)
		unit, in := 1.0, "us"
		if m.Cell.bulk() {
			unit, in = 1<<20, "us/MiB"
		}
		fmt.Fprintf(w, "  %-19s %8s (%s to %s)  %.2f of direct  %.2f of best peer  p50 %.0f p99 %.0f us  calls %.2f waits %.2f CPU %.1f %s\n",
			labelOf(n), m.rate(median(v)), m.rate(v[0]), m.rate(v[len(v)-1]), toDirect, toBest, m.median(n, p50)/1e3, m.median(n, p99)/1e3,
			m.median(n, func(r Run) float64 { return r.SystemCalls })*unit, m.median(n, func(r Run) float64 { return r.Voluntary })*unit, m.median(n, func(r Run) float64 { return r.ProxyCPU })*unit/1e3, in)
	}
}

// summary ends a call: the cells, the goals, and where the rest is.
func (r *Result) summary(w io.Writer, out string) {
	fmt.Fprintf(w, "\ncells that were run: %d of %d\n", len(r.Cells), len(r.Plan.Cells))
	count := map[string]int{}
	void := 0
	for i := range r.Cells {
		m := &r.Cells[i]
		fmt.Fprintf(w, "  %s\n", m.Cell)
		if len(m.Void) > 0 {
			void++
		}
		for _, g := range goals() {
			if !g.cells(m.Cell) {
				continue
			}
			shown, verdict := g.verdict(m)
			count[verdict]++
			if verdict != "met" {
				fmt.Fprintf(w, "    %s: %s %s: %s\n", verdict, g.what, g.want, shown)
			}
		}
	}
	fmt.Fprintf(w, "goals: %d met, %d short, %d void; void cells: %d\n", count["met"], count["short"], count["void"], void)
	if n := r.noise(); n > quiet {
		fmt.Fprintf(w, "the machine was not quiet: other programs took %.0f %% of the CPU time that was used in direct runs\n", 100*n)
	}
	if len(r.Cells) > 0 {
		fmt.Fprintf(w, "see %s\n", filepath.Join(out, "results.md"))
	}
}
