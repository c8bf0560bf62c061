package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/test/bench/load"
)

// Cell is one thing that is measured, with every proxy in turn.
type Cell struct {
	Setting     Setting
	Kind        load.Kind
	Size        int `json:",omitempty"` // of a message
	Connections int
}

// String is unique.
func (c Cell) String() string { return c.Setting.String() + ": " + c.Title() }

// Title is unique within a setting.
func (c Cell) Title() string {
	n := fmt.Sprintf("%d connections", c.Connections)
	if c.Connections == 1 {
		n = "1 connection"
	}
	switch c.Kind {
	case load.Requests:
		return fmt.Sprintf("request/response, %s, %s", size(c.Size), n)
	case load.Bulk:
		return fmt.Sprintf("bulk, one way, %s", n)
	case load.Duplex:
		return fmt.Sprintf("bulk, both ways, %s", n)
	}
	return fmt.Sprintf("connect, request of %s, close; %d at a time", size(c.Size), c.Connections)
}

func (c Cell) bulk() bool { return c.Kind == load.Bulk || c.Kind == load.Duplex }

// threads of the client. One thread offers more than any proxy takes, and takes
// less from it than two; but streams that are to fill two CPUs need two.
func (c Cell) threads() int {
	if c.bulk() && c.Connections > 1 {
		return c.Setting.CPUs
	}
	return 1
}

func size(n int) string {
	if n >= 1<<10 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// plan is how much is measured.
type plan struct {
	Name   string
	Rounds int
	Warm   time.Duration
	Window time.Duration // of what is timed
	Count  time.Duration // of what is counted, apart, for counting costs time
	Cells  []Cell        `json:"-"`
}

var settings = []Setting{{loopback, 2}, {namespaces, 2}, {loopback, 1}, {namespaces, 1}}

// requests are the cells of request/response in one setting.
func requests(s Setting, sizes, connections []int) (cells []Cell) {
	for _, n := range connections {
		for _, size := range sizes {
			cells = append(cells, Cell{s, load.Requests, size, n})
		}
	}
	return cells
}

func bulk(s Setting) []Cell {
	return []Cell{{s, load.Bulk, 0, 1}, {s, load.Bulk, 0, 4}, {s, load.Duplex, 0, 1}, {s, load.Duplex, 0, 4}}
}

func connections(s Setting) Cell { return Cell{s, load.Connections, 64, 16} }

var (
	allSizes       = []int{64, 1 << 10, 16 << 10, 64 << 10}
	allConnections = []int{1, 16, 64, 512}
)

func every(s Setting) []Cell {
	return slices.Concat(requests(s, allSizes, allConnections), bulk(s), []Cell{connections(s)})
}

// fullPlan is every cell in every setting.
func fullPlan() plan {
	p := plan{Name: "FULL", Rounds: 5, Warm: 250 * time.Millisecond, Window: time.Second, Count: 200 * time.Millisecond}
	for _, s := range settings {
		p.Cells = append(p.Cells, every(s)...)
	}
	return p
}

// defaultPlan fits into an hour: every cell on loopback and two CPUs, and of the
// other settings those that tell most.
func defaultPlan() plan {
	p := fullPlan()
	p.Name, p.Cells = "default", every(settings[0])
	for _, s := range settings[1:] {
		p.Cells = append(p.Cells, Cell{s, load.Requests, 64, 1}, Cell{s, load.Requests, 1 << 10, 16}, Cell{s, load.Bulk, 0, 1}, connections(s))
	}
	s := settings[1]
	p.Cells = append(p.Cells, Cell{s, load.Requests, 1 << 10, 64}, Cell{s, load.Bulk, 0, 4})
	return p
}

// quickPlan takes five minutes or six.
func quickPlan() plan {
	p := plan{Name: "QUICK", Rounds: 3, Warm: 100 * time.Millisecond, Window: 500 * time.Millisecond, Count: 100 * time.Millisecond}
	a, b, c := settings[0], settings[1], settings[2]
	p.Cells = []Cell{
		{a, load.Requests, 64, 1}, {a, load.Requests, 1 << 10, 16}, {a, load.Requests, 1 << 10, 64}, {a, load.Requests, 16 << 10, 16},
		{a, load.Bulk, 0, 1}, {a, load.Bulk, 0, 4}, connections(a),
		{b, load.Requests, 1 << 10, 16}, {b, load.Bulk, 0, 1},
		{c, load.Requests, 64, 1}, {c, load.Requests, 1 << 10, 16},
	}
	return p
}

// duration is how long the plan takes, about: opening and closing included.
func (p plan) duration(proxies int) time.Duration {
	each := p.Warm + p.Window + p.Count + 250*time.Millisecond
	return time.Duration(len(p.Cells)*p.Rounds*(proxies+1)) * each
}
