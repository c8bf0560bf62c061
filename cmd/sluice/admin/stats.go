package admin

import (
	"net/http"
	"regexp"
	"slices"

	"github.com/sluice-proxy/sluice/api/stats"
)

// quantiles are those that Envoy shows.
var quantiles = []float64{0, .25, .5, .75, .90, .95, .99, .995, .999, 1}

// histogramModes are the values of histogram_buckets; "" and "none" mean summary.
var histogramModes = []string{"", "none", "summary", "cumulative", "disjoint", "detailed"}

func (s *Server) stats(a *answer, q query) {
	switch format := q.value("format"); format {
	case "prometheus":
		s.statsPrometheus(a, q)
		return
	case "", "text", "json", "html", "active-html":
	default:
		a.fail(http.StatusBadRequest, "usage: /stats?format=(html|active-html|json|prometheus|text)\n\n")
		return
	}
	switch q.value("hidden") {
	case "", "include", "exclude":
	case "only": // none of ours is hidden
		q = append(q, [2]string{"filter", "^$"})
	default:
		a.fail(http.StatusBadRequest, "usage: /stats?hidden=(include|only|exclude)\n\n")
		return
	}
	mode := q.value("histogram_buckets")
	if !slices.Contains(histogramModes, mode) {
		a.fail(http.StatusBadRequest, "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n")
		return
	}
	s.flushOnAdmin()
	all, ok := s.selected(a, q)
	if !ok {
		return
	}
	// Envoy's order: texts, then counters and gauges together, then histograms.
	rank := [...]int{stats.KindText: 0, stats.KindCounter: 1, stats.KindGauge: 1, stats.KindHistogram: 2}
	slices.SortStableFunc(all, func(x, y stats.Stat) int { return rank[x.Kind] - rank[y.Kind] })
	switch format := q.value("format"); format {
	case "json":
		writeStatsJSON(a, all, mode)
		return
	case "html", "active-html":
		writeStatsHTML(a, all, mode, format == "active-html")
		return
	}
	writeStatsText(a, all, mode)
}

// selected returns the stats that usedonly, filter, invert_filter and type let
// through, sorted by name; false if it has answered with an error.
func (s *Server) selected(a *answer, q query) ([]stats.Stat, bool) {
	kind, ok := kindFilter(q)
	if !ok {
		a.fail(http.StatusBadRequest, "invalid &type= param")
		return nil, false
	}
	var re *regexp.Regexp
	if expr := q.value("filter"); expr != "" {
		var err error
		if re, err = compile(expr); err != nil {
			a.fail(http.StatusBadRequest, "Invalid re2 regex: %v", err)
			return nil, false
		}
	}
	used, invert := q.has("usedonly"), q.has("invert_filter")
	return slices.DeleteFunc(s.scrape(), func(x stats.Stat) bool {
		return used && !x.Used || !kind(x.Kind) || re != nil && re.MatchString(x.Name) == invert
	}), true
}

func kindFilter(q query) (func(stats.Kind) bool, bool) {
	name, given := q.get("type")
	kinds := map[string]stats.Kind{
		"Counters": stats.KindCounter, "Gauges": stats.KindGauge,
		"Histograms": stats.KindHistogram, "TextReadouts": stats.KindText,
	}
	want, ok := kinds[name]
	if !given || name == "All" || name == "" {
		return func(stats.Kind) bool { return true }, true
	}
	return func(k stats.Kind) bool { return k == want }, ok
}
