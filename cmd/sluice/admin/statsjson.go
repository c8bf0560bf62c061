package admin

import (
	"encoding/json"
	"math"

	"github.com/sluice-proxy/sluice/api/stats"
)

// The shapes are those of Envoy's stats_render.cc (StatsJsonRender).
type (
	pairJSON struct {
		Cumulative *float64 `json:"cumulative"` // null when there is no value
		Interval   *float64 `json:"interval"`
	}
	bucketJSON struct {
		UpperBound float64 `json:"upper_bound"`
		Interval   uint64  `json:"interval"`
		Cumulative uint64  `json:"cumulative"`
	}
	binJSON struct {
		LowerBound float64 `json:"lower_bound"`
		Width      float64 `json:"width"`
		Count      uint64  `json:"count"`
	}
	quantilesJSON struct {
		Name   string     `json:"name"`
		Values []pairJSON `json:"values"`
	}
	bucketsJSON struct {
		Name    string       `json:"name"`
		Buckets []bucketJSON `json:"buckets"`
	}
	detailJSON struct {
		Name        string     `json:"name"`
		Totals      []binJSON  `json:"totals"`
		Intervals   []binJSON  `json:"intervals"`
		Percentiles []pairJSON `json:"percentiles"`
	}
)

func writeStatsJSON(a *answer, all []stats.Stat, mode string) {
	out := []any{}
	var hists []stats.Stat
	for _, x := range all {
		switch x.Kind {
		case stats.KindHistogram:
			hists = append(hists, x)
		case stats.KindText:
			out = append(out, struct {
				Name  string `json:"name"`
				Value string `json:"value"`
			}{x.Name, x.Text})
		default:
			out = append(out, struct {
				Name  string `json:"name"`
				Value uint64 `json:"value"`
			}{x.Name, x.Value})
		}
	}
	if len(hists) > 0 {
		out = append(out, map[string]any{"histograms": histogramsJSON(hists, mode)})
	}
	b, err := json.Marshal(map[string]any{"stats": out})
	if err != nil {
		a.fail(500, "write stats as JSON: %v\n", err)
		return
	}
	a.contentType = applicationJSON
	a.Write(b)
}

func histogramsJSON(hists []stats.Stat, mode string) any {
	percent := make([]float64, len(quantiles))
	for i, q := range quantiles {
		percent[i] = q * 100
	}
	switch mode {
	case "cumulative", "disjoint":
		out := []bucketsJSON{}
		for _, x := range hists {
			in, all := bucketCounts(x.Hist, mode == "cumulative")
			e := bucketsJSON{Name: x.Name}
			for i, b := range x.Hist.Bounds {
				e.Buckets = append(e.Buckets, bucketJSON{b, in[i], all[i]})
			}
			out = append(out, e)
		}
		return out
	case "detailed":
		var out []detailJSON
		for _, x := range hists {
			out = append(out, detailJSON{x.Name, binsJSON(x.Hist), binsJSON(x.Hist.Interval), pairs(x.Hist)})
		}
		return map[string]any{"supported_percentiles": percent, "details": out}
	}
	var out []quantilesJSON
	for _, x := range hists {
		out = append(out, quantilesJSON{x.Name, pairs(x.Hist)})
	}
	return map[string]any{"supported_quantiles": percent, "computed_quantiles": out}
}

func pairs(h *stats.HistogramSnapshot) []pairJSON {
	out := make([]pairJSON, len(quantiles))
	for i, q := range quantiles {
		out[i] = pairJSON{finite(h.Quantile(q)), finite(h.Interval.Quantile(q))}
	}
	return out
}

func finite(v float64) *float64 {
	if math.IsNaN(v) {
		return nil
	}
	return &v
}

func binsJSON(h *stats.HistogramSnapshot) []binJSON {
	out := []binJSON{}
	if h == nil {
		return out
	}
	for _, b := range h.Bins {
		out = append(out, binJSON{b.Low, b.Width, b.Count})
	}
	return out
}
