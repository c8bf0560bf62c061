package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// markdown is bench/results.md.
func (r *Result) markdown() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	p("# What Sluice and its peers make\n\n")
	p("Written by `make bench`; how it is measured, and what it means: [docs/performance.md](../docs/performance.md).\n\n")
	p("%s, %s. Linux %s. ", r.Started.UTC().Format("2006-01-02 15:04 UTC"), r.CPU, r.Versions["kernel"])
	p("Sluice %s; %s; %s; %s; %s.\n", r.Versions["sluice"], r.Versions["haproxy"], r.Versions["nginx"], r.Versions["envoy"], r.Versions["go"])
	p("Plan %s: %d of %d cells done in %v, %d interleaved rounds of %v each.", r.Plan.Name, len(r.Cells), len(r.Plan.Cells), r.Took.Round(time.Second), r.Plan.Rounds, r.Plan.Window)
	for _, l := range r.LeftOut {
		p(" %s was not installed and is left out.", l)
	}
	p("\n\nIn direct runs, other programs took %.0f %% of the CPU time that was used.", 100*r.noise())
	if r.noise() > quiet {
		p(" **The machine was not quiet: the figures are to be taken with care.**")
	}
	p("\n\n## Goals\n\n")
	r.goalsTable(&b)
	for _, s := range settings {
		first := true
		for i := range r.Cells {
			if m := &r.Cells[i]; m.Cell.Setting == s {
				if first {
					p("\n## %s%s\n", strings.ToUpper(s.String()[:1]), s.String()[1:])
					first = false
				}
				m.table(&b)
			}
		}
	}
	r.fieldTable(&b)
	return b.String()
}

func (r *Result) goalsTable(b *strings.Builder) {
	fmt.Fprintf(b, "For `--splice=auto`, by the medians of the rounds' ratios.\n\n| what | goal | cell | measured | |\n|---|---|---|---|---|\n")
	for _, g := range goals() {
		any := false
		for i := range r.Cells {
			m := &r.Cells[i]
			if !g.cells(m.Cell) {
				continue
			}
			any = true
			shown, verdict := g.verdict(m)
			fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", g.what, g.want, m.Cell.Title(), shown, verdict)
		}
		if !any {
			fmt.Fprintf(b, "| %s | %s | | | not in this plan |\n", g.what, g.want)
		}
	}
}

// table is one cell.
func (m *Measured) table(b *strings.Builder) {
	fmt.Fprintf(b, "\n### %s\n\n", m.Cell.Title())
	for _, v := range m.Void {
		fmt.Fprintf(b, "**Void:** %s.\n\n", v)
	}
	var head []string
	unit, perCPU, perCall := "op/s", "us/op", "message"
	switch {
	case m.Cell.bulk():
		unit, perCPU, perCall = "Gbit/s", "s/GiB", "MiB"
	case m.Cell.Kind == "crc":
		unit, perCPU, perCall = "connections/s", "us/connection", "connection"
	}
	head = append(head, "", unit+" (spread)", "to direct", "to best peer")
	if !m.Cell.bulk() {
		head = append(head, "p50 us", "p99 us", "p99.9 us")
	}
	head = append(head, "CPU of proxy "+perCPU, "machine above direct "+perCPU, "system calls/"+perCall, "waits + preemptions/"+perCall, "RSS / PSS MiB")
	fmt.Fprintf(b, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	best := m.best(perSecond, false)
	for _, n := range m.proxies() {
		if len(m.all(n, perSecond)) > 0 {
			fmt.Fprintf(b, "| %s |\n", strings.Join(m.row(n, best), " | "))
		}
		for _, e := range m.errorsOf(n) {
			fmt.Fprintf(b, "| %s | failed: %s |\n", labelOf(n), strings.ReplaceAll(e, "|", "/"))
		}
	}
	if d := m.median(direct, perSecond); m.Unchecked > 0 && d > 0 {
		fmt.Fprintf(b, "\nDirect without comparing the bytes: %s; the comparison is part of every figure above.\n", m.rate(m.Unchecked))
	}
	cpu := func(r Run) float64 { return r.LoadCPU }
	fmt.Fprintf(b, "\nThe load itself, client and server, uses %s of CPU with direct.\n", m.cost(m.median(direct, cpu))+" "+perCPU)
}

// rate shows operations per second.
func (m *Measured) rate(v float64) string {
	switch {
	case m.Cell.bulk():
		return fmt.Sprintf("%.1f", v*8/1e9)
	case v < 10e3:
		return fmt.Sprintf("%.2f k", v/1e3)
	}
	return fmt.Sprintf("%.1f k", v/1e3)
}

// cost shows ns per operation.
func (m *Measured) cost(ns float64) string {
	if m.Cell.bulk() {
		return fmt.Sprintf("%.2f", ns*(1<<30)/1e9)
	}
	return fmt.Sprintf("%.1f", ns/1e3)
}

// perCall turns a count per operation into one per message, MiB or connection.
func (m *Measured) perCall(n float64) string {
	switch m.Cell.Kind {
	case "rr":
		n /= 2
	case "bulk", "duplex":
		n *= 1 << 20
	}
	if n >= 0.1 || n == 0 {
		return fmt.Sprintf("%.1f", n)
	}
	return fmt.Sprintf("%.4f", n)
}

func (m *Measured) row(name, best string) []string {
	v := m.all(name, perSecond)
	row := []string{labelOf(name), fmt.Sprintf("%s (%s to %s)", m.rate(median(v)), m.rate(v[0]), m.rate(v[len(v)-1]))}
	for _, to := range []string{direct, best} {
		got, ok := m.ratio(name, to, perSecond)
		if ok && to != "" {
			row = append(row, fmt.Sprintf("%.2f", got))
		} else {
			row = append(row, "")
		}
	}
	if !m.Cell.bulk() {
		for _, f := range []metric{p50, p99, p999} {
			row = append(row, fmt.Sprintf("%.0f", m.median(name, f)/1e3))
		}
	}
	if name == direct {
		return append(row, "", "", "", "", "")
	}
	get := func(f metric) float64 { return m.median(name, f) }
	above, _ := m.aboveDirect(name)
	return append(row,
		m.cost(get(func(r Run) float64 { return r.ProxyCPU })),
		m.cost(above),
		m.perCall(get(func(r Run) float64 { return r.SystemCalls })),
		m.perCall(get(func(r Run) float64 { return r.Voluntary }))+" + "+m.perCall(get(func(r Run) float64 { return r.Involuntary })),
		fmt.Sprintf("%.0f / %.0f", get(func(r Run) float64 { return r.RSS })/(1<<20), get(func(r Run) float64 { return r.PSS })/(1<<20)))
}

func writeText(path, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
