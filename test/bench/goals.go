package main

import (
	"fmt"

	"github.com/sluice-proxy/sluice/test/bench/load"
)

// judged is the Sluice that the goals are for: what a user gets by default.
const judged = "sluice-auto"

// goal is what Sluice set out to reach in some cells.
type goal struct {
	what  string
	want  string
	cells func(Cell) bool
	// reach returns the figure to show, and whether it is good enough.
	reach func(m *Measured) (shown string, met bool)
}

func goals() []goal {
	two := Setting{loopback, 2}
	requests := func(s Setting, connections ...int) func(Cell) bool {
		return func(c Cell) bool {
			for _, n := range connections {
				if c.Kind == load.Requests && c.Setting == s && c.Connections == n && c.Size <= 1<<10 {
					return true
				}
			}
			return false
		}
	}
	all := func(c Cell) bool { return c.Kind == load.Requests && c.Setting == two }
	return []goal{
		{"request/response, 1 connection", ">= 1.3x the best peer", requests(two, 1), atLeast(perSecond, 1.3)},
		{"request/response, 1 connection", ">= 1.75x Envoy", requests(two, 1), atLeastOf("envoy", 1.75)},
		{"request/response, 16 and 64 connections", ">= 1.2x the best peer", requests(two, 16, 64), atLeast(perSecond, 1.2)},
		{"request/response, 16 and 64 connections", ">= 1.6x Envoy", requests(two, 16, 64), atLeastOf("envoy", 1.6)},
		{"everything on one CPU, 1 connection", ">= 1.4x the best peer", requests(Setting{loopback, 1}, 1), atLeast(perSecond, 1.4)},
		{"p50", "<= 0.8x the best peer", requests(two, 1, 16, 64), atMost(p50, 0.8)},
		{"p99", "<= 1.0x the best peer", requests(two, 1, 16, 64), atMost(p99, 1)},
		{"bulk", ">= 1.0x every peer", func(c Cell) bool { return c.Kind == load.Bulk && c.Setting == two }, atLeast(perSecond, 1)},
		{"connections", ">= 1.0x the best peer", func(c Cell) bool { return c.Kind == load.Connections && c.Setting == two }, atLeast(perSecond, 1)},
		{"system calls and wake-ups per message, spliced (always)", "< 0.001", all, idle},
		{"CPU per operation above direct", "below every peer's", all, leastCPU},
	}
}

func atLeast(f metric, want float64) func(*Measured) (string, bool) {
	return func(m *Measured) (string, bool) {
		best := m.best(f, false)
		got, ok := m.ratio(judged, best, f)
		return fmt.Sprintf("%.2fx %s", got, labelOf(best)), ok && got >= want
	}
}

func atLeastOf(peer string, want float64) func(*Measured) (string, bool) {
	return func(m *Measured) (string, bool) {
		got, ok := m.ratio(judged, peer, perSecond)
		return fmt.Sprintf("%.2fx", got), ok && got >= want
	}
}

func atMost(f metric, want float64) func(*Measured) (string, bool) {
	return func(m *Measured) (string, bool) {
		best := m.best(f, true)
		got, ok := m.ratio(judged, best, f)
		return fmt.Sprintf("%.2fx %s", got, labelOf(best)), ok && got <= want
	}
}

// idle: a request and its answer are two messages.
func idle(m *Measured) (string, bool) {
	const name = "sluice-always"
	calls := m.median(name, func(r Run) float64 { return r.SystemCalls }) / 2
	wakes := m.median(name, func(r Run) float64 { return r.Voluntary }) / 2
	return fmt.Sprintf("%.4f and %.4f", calls, wakes), len(m.all(name, perSecond)) > 0 && calls < 0.001 && wakes < 0.001
}

func leastCPU(m *Measured) (string, bool) {
	own, ok := m.aboveDirect(judged)
	if !ok {
		return "not measured", false
	}
	best, bestName := 0.0, ""
	for _, n := range m.proxies() {
		if v, ok := m.aboveDirect(n); ok && isPeer(n) && (bestName == "" || v < best) {
			best, bestName = v, n
		}
	}
	return fmt.Sprintf("%.1f us, %s %.1f us", own/1e3, labelOf(bestName), best/1e3), bestName != "" && own < best
}

// verdict of a goal on a cell.
func (g goal) verdict(m *Measured) (shown, verdict string) {
	if len(m.Void) > 0 {
		return "", "void"
	}
	shown, met := g.reach(m)
	if met {
		return shown, "met"
	}
	return shown, "short"
}
