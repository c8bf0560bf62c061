package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-proxy/sluice/test/bench/load"
)

// The part of the README that is written from results.json.
const (
	readmeBegin = "<!-- bench: written by make bench-readme -->"
	readmeEnd   = "<!-- /bench -->"
)

// readme is make bench-readme: the table and the pictures, from the last results.
func readme(readmePath, out string) error {
	r, err := loadResult(filepath.Join(out, "results.json"))
	if err != nil {
		return err
	}
	if r == nil {
		return fmt.Errorf("read results: there are none in %s; run make bench", out)
	}
	text, err := os.ReadFile(readmePath)
	if err != nil {
		return fmt.Errorf("read README: %w", err)
	}
	before, rest, ok := strings.Cut(string(text), readmeBegin)
	_, after, ok2 := strings.Cut(rest, readmeEnd)
	if !ok || !ok2 {
		return fmt.Errorf("write %s: it lacks the lines %q and %q", readmePath, readmeBegin, readmeEnd)
	}
	return writeText(readmePath, before+readmeBegin+"\n"+r.readmePart(filepath.ToSlash(out))+readmeEnd+after)
}

// readmeCells are the rows of the README's table.
func readmeCells(c Cell) bool {
	switch c.Setting {
	case Setting{loopback, 2}:
		return c.Kind == load.Requests && (c.Size == 64 && c.Connections == 1 || c.Size == 1<<10 && (c.Connections == 16 || c.Connections == 64)) ||
			c.Kind == load.Bulk || c.Kind == load.Connections
	case Setting{loopback, 1}:
		return c.Kind == load.Requests && c.Size == 64 && c.Connections == 1
	case Setting{namespaces, 2}:
		return c.Kind == load.Requests && c.Size == 1<<10 && c.Connections == 16 || c.Kind == load.Bulk && c.Connections == 1
	}
	return false
}

func (r *Result) readmePart(out string) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	p("%s, Linux %s, `make bench` of %s (plan %s, medians of %d interleaved rounds): requests and connections in thousands a second, bulk in Gbit/s; all cells, latencies, CPU, spread: [%s/results.md](%s/results.md).",
		r.CPU, r.Versions["kernel"], r.Started.UTC().Format("2006-01-02"), r.Plan.Name, r.Plan.Rounds, out, out)
	if n := r.noise(); n > quiet {
		p(" The machine was not quiet: other programs took %.0f %% of the CPU time in direct runs.", 100*n)
	}
	p("\n\n| |")
	names := order()
	for _, n := range names {
		p(" %s |", labelOf(n))
	}
	p(" Sluice auto to best peer |\n|---%s|---|\n", strings.Repeat("|---", len(names)))
	void := false
	for i := range r.Cells {
		m := &r.Cells[i]
		if !readmeCells(m.Cell) {
			continue
		}
		mark := ""
		if len(m.Void) > 0 {
			mark, void = " (void)", true
		}
		p("| %s%s%s |", map[bool]string{true: "", false: m.Cell.Setting.String() + ": "}[m.Cell.Setting == Setting{loopback, 2}], m.Cell.Title(), mark)
		for _, n := range names {
			if len(m.all(n, perSecond)) == 0 {
				p(" |")
				continue
			}
			p(" %s |", strings.TrimSuffix(m.rate(m.median(n, perSecond)), " k"))
		}
		best := m.best(perSecond, false)
		if got, ok := m.ratio(judged, best, perSecond); ok {
			p(" %.2f, %s |\n", got, labelOf(best))
		} else {
			p(" |\n")
		}
	}
	if void {
		p("\nVoid: a peer did worse than it is known to do; such a row decides nothing.\n")
	}
	for _, name := range []string{"requests.svg", "bulk.svg", "connections.svg"} {
		if r.pictures()[name] != "" {
			p("\n![%s](%s/%s)\n", strings.TrimSuffix(name, ".svg"), out, name)
		}
	}
	r.fieldTable(&b)
	return b.String()
}
