package torture

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/pair"
)

// Report is what a run has seen.
type Report struct {
	Seed        uint64
	Time        time.Duration
	Connections int
	Bytes       int64
	// Changes of path with at least one byte moved on both sides of each, by
	// "tcp4 relay to splice" and so on; Bare are those without.
	Changes, Bare map[string]int
	// Ends of pairs by outcome, connections by wire.
	Ends, Wires map[string]int
	// Drifts are the sockets whose account in the kernel was seen to be off, by
	// wire (docs/splice.md, the leak).
	Drifts   map[string]int
	Faults   []string          // what each middlebox did
	Pairs    map[string]uint64 // counters of the pairs
	Programs map[string]uint64 // counters of the verdict, or of the graft
	Failures []string
}

// Total adds up the changes with bytes on both sides.
func (r *Report) Total() (n int) {
	for _, c := range r.Changes {
		n += c
	}
	return n
}

func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d connections, %d MB in %v, %d changes of path with bytes on both sides\n",
		r.Seed, r.Connections, r.Bytes>>20, r.Time.Round(time.Second), r.Total())
	for _, k := range slices.Sorted(maps.Keys(r.Changes)) {
		fmt.Fprintf(&b, "  %-28s %8d (and %d without)\n", k, r.Changes[k], r.Bare[k])
	}
	fmt.Fprintf(&b, "  ends %v\n  wires %v\n  drifts %v\n  pairs %v\n", r.Ends, r.Wires, r.Drifts, r.Pairs)
	for _, f := range r.Faults {
		fmt.Fprintf(&b, "  %s\n", f)
	}
	counted := map[string]uint64{}
	for k, n := range r.Programs {
		if n != 0 {
			counted[k] = n
		}
	}
	fmt.Fprintf(&b, "  programs %v\n", counted)
	return b.String()
}

// tally counts while a run goes on.
type tally struct {
	mu                  sync.Mutex
	changes, bare       map[string]int
	ends, wires, drifts map[string]int
	connections         int
	bytes               int64
}

func kind(family string, from, to api.Path) string {
	return fmt.Sprintf("%s %v to %v", family, from, to)
}

func (t *tally) change(family string, from, to api.Path, both bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changes == nil {
		t.changes, t.bare = map[string]int{}, map[string]int{}
	}
	if k := kind(family, from, to); both {
		t.changes[k]++
	} else {
		t.bare[k]++
	}
}

func (t *tally) connection(wire string, o pair.Outcome, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ends == nil {
		t.ends, t.wires = map[string]int{}, map[string]int{}
	}
	t.ends[o.String()]++
	t.wires[wire]++
	t.connections++
	t.bytes += bytes
}

func (t *tally) drift(wire string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.drifts == nil {
		t.drifts = map[string]int{}
	}
	t.drifts[wire]++
}

func (t *tally) line() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, c := range t.changes {
		n += c
	}
	return fmt.Sprintf("%d connections, %d MB, %d changes", t.connections, t.bytes>>20, n)
}

func (t *tally) into(r *Report) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.Connections, r.Bytes = t.connections, t.bytes
	r.Changes, r.Bare, r.Ends, r.Wires, r.Drifts = t.changes, t.bare, t.ends, t.wires, t.drifts
}
