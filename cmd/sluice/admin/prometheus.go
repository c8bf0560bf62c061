package admin

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-proxy/sluice/api/stats"
)

// statsPrometheus writes Envoy's exposition itself: expfmt leaves out the empty
// braces that Envoy's lines have and writes large bounds as 1.8e+06. The tests
// read the output back with expfmt.
func (s *Server) statsPrometheus(a *answer, q query) {
	mode := q.value("histogram_buckets")
	switch mode {
	case "", "none", "cumulative", "summary":
	case "detailed", "disjoint":
		a.fail(http.StatusBadRequest, "unsupported prometheus histogram bucket mode")
		return
	default:
		a.fail(http.StatusBadRequest, "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n")
		return
	}
	all, ok := s.selected(a, q)
	if !ok {
		return
	}
	// Counters, gauges, histograms, texts, each grouped by metric.
	rank := [...]int{stats.KindCounter: 0, stats.KindGauge: 1, stats.KindHistogram: 2, stats.KindText: 3}
	slices.SortStableFunc(all, func(x, y stats.Stat) int {
		if d := rank[x.Kind] - rank[y.Kind]; d != 0 {
			return d
		}
		return strings.Compare(x.TagName, y.TagName)
	})
	last := ""
	for _, x := range all {
		if x.Kind == stats.KindText && !q.has("text_readouts") {
			continue
		}
		m := metric{name: "envoy_" + sanitized(x.TagName), labels: labels(x.Tags)}
		if m.name != last {
			fmt.Fprintf(a, "# TYPE %s %s\n", m.name, typeName(x.Kind, mode))
			last = m.name
		}
		m.write(a, x, mode)
	}
}

type metric struct{ name, labels string }

func (m metric) write(a *answer, x stats.Stat, mode string) {
	switch x.Kind {
	case stats.KindText:
		m.line(a, "", label("text_value", x.Text), "0")
	case stats.KindHistogram:
		if mode == "summary" {
			m.summary(a, x.Hist)
			return
		}
		m.histogram(a, x.Hist)
	default:
		m.line(a, "", "", strconv.FormatUint(x.Value, 10))
	}
}

func (m metric) histogram(a *answer, h *stats.HistogramSnapshot) {
	_, counts := bucketCounts(h, true)
	for i, b := range h.Bounds {
		m.line(a, "_bucket", label("le", decimal(b)), strconv.FormatUint(counts[i], 10))
	}
	m.line(a, "_bucket", label("le", "+Inf"), strconv.FormatUint(h.Count, 10))
	m.line(a, "_sum", "", decimal(h.Sum))
	m.line(a, "_count", "", strconv.FormatUint(h.Count, 10))
}

func (m metric) summary(a *answer, h *stats.HistogramSnapshot) {
	for _, q := range quantiles {
		v := h.Quantile(q)
		value := "NaN"
		if f := finite(v); f != nil {
			value = decimal(*f)
		}
		m.line(a, "", label("quantile", decimal(q)), value)
	}
	m.line(a, "_sum", "", decimal(h.Sum))
	m.line(a, "_count", "", strconv.FormatUint(h.Count, 10))
}

func (m metric) line(a *answer, suffix, extra, value string) {
	sep := ""
	if m.labels != "" && extra != "" {
		sep = ","
	}
	fmt.Fprintf(a, "%s%s{%s%s%s} %s\n", m.name, suffix, m.labels, sep, extra, value)
}

func typeName(k stats.Kind, mode string) string {
	switch {
	case k == stats.KindCounter:
		return "counter"
	case k == stats.KindHistogram && mode == "summary":
		return "summary"
	case k == stats.KindHistogram:
		return "histogram"
	}
	return "gauge"
}

// labels are in the reverse order of the name, as Envoy has them.
func labels(tags []stats.Tag) string {
	parts := make([]string, 0, len(tags))
	for _, t := range slices.Backward(tags) {
		parts = append(parts, label(sanitized(t.Name), t.Value))
	}
	return strings.Join(parts, ",")
}

var labelEscaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func label(name, value string) string {
	return name + `="` + labelEscaper.Replace(strings.ToValidUTF8(value, "\uFFFD")) + `"`
}

func sanitized(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_':
			return r
		}
		return '_'
	}, name)
}

// decimal never uses an exponent.
func decimal(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
