package main

import (
	"fmt"
	"html"
	"strings"

	"github.com/sluice-proxy/sluice/test/bench/load"
)

// A picture is a row of panels, one for each cell, with a bar for each proxy:
// the medians, and a line for the spread.
const (
	panelWidth, barHeight, barGap     = 420, 17, 6
	labelWidth, valueWidth, headSpace = 130, 80, 44
)

// picture draws the cells, and is empty if there is none.
func (r *Result) picture(title string, of func(Cell) bool) string {
	var panels []*Measured
	rows := 0
	for i := range r.Cells {
		if m := &r.Cells[i]; of(m.Cell) {
			panels = append(panels, m)
			rows = max(rows, len(m.proxies()))
		}
	}
	if len(panels) == 0 {
		return ""
	}
	width, height := panelWidth*len(panels)+20, headSpace+rows*(barHeight+barGap)+40
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="10" y="18" font-size="14" font-weight="bold">%s</text>`+"\n", html.EscapeString(title))
	for i, m := range panels {
		m.panel(&b, 10+i*panelWidth)
	}
	fmt.Fprintf(&b, `<text x="10" y="%d" fill="#666666" font-size="11">%s; medians of %d interleaved rounds, the line is their spread; Linux %s</text>`+"\n</svg>\n",
		height-10, html.EscapeString(r.CPU), r.Plan.Rounds, html.EscapeString(r.Versions["kernel"]))
	return b.String()
}

func (m *Measured) panel(b *strings.Builder, x int) {
	title := m.Cell.Title()
	if len(m.Void) > 0 {
		title += " (void)"
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" font-size="11" fill="#333333">%s</text>`+"\n", x, headSpace-8, html.EscapeString(title))
	var top float64
	for _, n := range m.proxies() {
		if v := m.all(n, perSecond); len(v) > 0 {
			top = max(top, v[len(v)-1])
		}
	}
	room := float64(panelWidth - labelWidth - valueWidth)
	for i, n := range m.proxies() {
		y := headSpace + i*(barHeight+barGap)
		fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", x+labelWidth-6, y+13, html.EscapeString(labelOf(n)))
		v := m.all(n, perSecond)
		if len(v) == 0 {
			fmt.Fprintf(b, `<text x="%d" y="%d" fill="#aa0000">failed</text>`+"\n", x+labelWidth, y+13)
			continue
		}
		colour := "#8fa3b5"
		switch {
		case n == direct:
			colour = "#d5dbe0"
		case !isPeer(n):
			colour = "#d9822b"
		}
		at := func(v float64) float64 { return float64(x+labelWidth) + room*v/top }
		mid := median(v)
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", x+labelWidth, y, room*mid/top, barHeight, colour)
		fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#333333"/>`+"\n", at(v[0]), at(v[len(v)-1]), y+barHeight/2, y+barHeight/2)
		unit := ""
		if m.Cell.bulk() {
			unit = " Gbit/s"
		}
		fmt.Fprintf(b, `<text x="%.1f" y="%d">%s%s</text>`+"\n", at(v[len(v)-1])+4, y+13, m.rate(mid), unit)
	}
}

// pictures are for the README, by file name.
func (r *Result) pictures() map[string]string {
	two := Setting{loopback, 2}
	return map[string]string{
		"requests.svg": r.picture("Request/response on loopback, two CPUs: operations per second", func(c Cell) bool {
			return c.Setting == two && c.Kind == load.Requests && (c.Size == 64 && c.Connections == 1 || c.Size == 1<<10 && (c.Connections == 16 || c.Connections == 64))
		}),
		"bulk.svg":        r.picture("Bulk on loopback, two CPUs", func(c Cell) bool { return c.Setting == two && c.Kind == load.Bulk }),
		"connections.svg": r.picture("Connections per second on loopback, two CPUs", func(c Cell) bool { return c.Setting == two && c.Kind == load.Connections }),
	}
}
