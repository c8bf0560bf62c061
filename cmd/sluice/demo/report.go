package demo

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// statScope is where the proxy counts its paths' bytes.
const statScope = "splice."

// result is what the story found out.
type result struct {
	took        time.Duration
	cost        cost
	swaps       int
	effect      []time.Duration // from push to effect, one per swap
	alone       time.Duration   // without a control plane
	aloneServed int64
	nack        string
	connections []connection // the long-lived ones, at the end
	bytes       paths        // of all connections
}

// shown is how many failures are told in full.
const shown = 5

// report prints the table; the error is set when anything failed.
func (r *run) report() error {
	failures, s := r.tally.failed(), &r.result
	w := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	fmt.Fprintln(w)
	row("connections", "%d long-lived (%d pings and their pongs, each byte compared), %d short", r.tally.long.Load(), r.tally.messages.Load(), r.tally.short.Load())
	row("failures", "%d", len(failures))
	row("bytes by path", "%v", s.bytes)
	var long paths
	for _, c := range s.connections {
		long.add(c.Request.paths)
		long.add(c.Response.paths)
	}
	row("  of the long-lived", "%v", long)
	row("bytes as the clients count them", "%d", r.tally.bytes.Load())
	row("system calls of the proxy per message", "%s", s.cost.per(s.cost.calls))
	row("wake-ups of the proxy per message", "%s", s.cost.per(s.cost.wakeups))
	row("swaps of the endpoint", "%d", s.swaps)
	row("from push to effect", "%s", quantiles(s.effect))
	if s.alone > 0 {
		row("control plane killed", "once; %v without it, %d connections opened meanwhile", s.alone.Round(time.Millisecond), s.aloneServed)
	}
	if s.nack != "" {
		row("bad listener", "refused by name, the good one served on")
	}
	row("time", "%.1f s", s.took.Seconds())
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	if len(failures) == 0 {
		return nil
	}
	fmt.Fprintln(r.out, "\nfailures:")
	for _, f := range failures[:min(shown, len(failures))] {
		fmt.Fprintf(r.out, "  %s\n", strings.TrimSpace(f))
	}
	if more := len(failures) - shown; more > 0 {
		fmt.Fprintf(r.out, "  and %d more\n", more)
	}
	return fmt.Errorf("demo: failures: %d", len(failures))
}

// per is a count per message, n/a when it was not measured.
func (c cost) per(n uint64) string {
	switch {
	case c.why != "":
		return "n/a (" + c.why + ")"
	case c.messages == 0:
		return "n/a (no message was counted)"
	}
	return fmt.Sprintf("%.4f (%d for %d messages that the kernel handed on)", float64(n)/float64(c.messages), n, c.messages)
}

// quantiles of times, in milliseconds.
func quantiles(of []time.Duration) string {
	if len(of) == 0 {
		return "n/a"
	}
	of = slices.Sorted(slices.Values(of))
	at := func(part float64) float64 {
		return float64(of[min(int(part*float64(len(of))), len(of)-1)]) / float64(time.Millisecond)
	}
	return fmt.Sprintf("p50 %.1f ms, p99 %.1f ms, max %.1f ms", at(0.5), at(0.99), at(1))
}
