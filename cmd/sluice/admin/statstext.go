package admin

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-proxy/sluice/api/stats"
)

func writeStatsText(a *answer, all []stats.Stat, mode string) {
	for _, x := range all {
		switch x.Kind {
		case stats.KindText:
			// Envoy escapes a text, which may come from the control plane.
			fmt.Fprintf(a, "%s: \"%s\"\n", x.Name, html.EscapeString(x.Text))
		case stats.KindHistogram:
			writeHistogramText(a, x, mode)
		default:
			fmt.Fprintf(a, "%s: %d\n", x.Name, x.Value)
		}
	}
}

// writeHistogramText prints every figure as (interval,cumulative).
func writeHistogramText(a *answer, x stats.Stat, mode string) {
	h := x.Hist
	if h.Count == 0 {
		fmt.Fprintf(a, "%s: No recorded values\n", x.Name)
		return
	}
	switch mode {
	case "cumulative", "disjoint":
		fmt.Fprintf(a, "%s: %s\n", x.Name, bucketsText(h, mode == "cumulative"))
	case "detailed":
		fmt.Fprintf(a, "%s:\n  totals=%s\n  intervals=%s\n  summary=%s\n", x.Name, binsText(h), binsText(h.Interval), quantilesText(h))
	default:
		fmt.Fprintf(a, "%s: %s\n", x.Name, quantilesText(h))
	}
}

func quantilesText(h *stats.HistogramSnapshot) string {
	var b strings.Builder
	for i, q := range quantiles {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "P%s(%s,%s)", number(q*100), number(h.Interval.Quantile(q)), number(h.Quantile(q)))
	}
	return b.String()
}

func bucketsText(h *stats.HistogramSnapshot, cumulative bool) string {
	var b strings.Builder
	in, all := bucketCounts(h, cumulative)
	for i, bound := range h.Bounds {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "B%s(%d,%d)", number(bound), in[i], all[i])
	}
	return b.String()
}

// bucketCounts are the counts per bound, of the interval and of all time. The values
// over every bound come last.
func bucketCounts(h *stats.HistogramSnapshot, cumulative bool) (interval, all []uint64) {
	interval, all = make([]uint64, len(h.Counts)), slices.Clone(h.Counts)
	if h.Interval != nil {
		copy(interval, h.Interval.Counts)
	}
	if cumulative {
		for i := 1; i < len(all); i++ {
			interval[i] += interval[i-1]
			all[i] += all[i-1]
		}
	}
	return interval, all
}

func binsText(h *stats.HistogramSnapshot) string {
	if h == nil {
		return ""
	}
	parts := make([]string, len(h.Bins))
	for i, b := range h.Bins {
		parts[i] = fmt.Sprintf("%s,%s:%d", number(b.Low), number(b.Width), b.Count)
	}
	return strings.Join(parts, ", ")
}

// number prints as C++'s %g does, which Envoy uses: six digits, `nan`, `1.8e+06`
// but `600000`.
func number(v float64) string {
	if math.IsNaN(v) {
		return "nan"
	}
	s := strconv.FormatFloat(v, 'g', 6, 64)
	if v == math.Trunc(v) && math.Abs(v) < 1e6 {
		s = strconv.FormatFloat(v, 'f', 0, 64)
	}
	return s
}
