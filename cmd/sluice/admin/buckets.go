package admin

import (
	"log/slog"
	"slices"

	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
)

// HistogramBuckets is stats_config.histogram_bucket_settings: the upper bounds of the
// histogram of a name, nil for the default ones. As everywhere in stats_config what
// cannot be read is left out and warned of.
func HistogramBuckets(c *metricsv3.StatsConfig, log *slog.Logger) func(name string) []float64 {
	type setting struct {
		match  func(string) bool
		bounds []float64
	}
	var all []setting
	for i, s := range c.GetHistogramBucketSettings() {
		match, err := stringMatch(s.GetMatch())
		if err != nil {
			log.Warn("stats_config.histogram_bucket_settings: left out", "index", i, "err", err)
			continue
		}
		if len(s.GetBuckets()) > 0 {
			all = append(all, setting{match, slices.Sorted(slices.Values(s.GetBuckets()))})
		}
	}
	return func(name string) []float64 {
		for _, s := range all {
			if s.match(name) {
				return s.bounds
			}
		}
		return nil
	}
}
