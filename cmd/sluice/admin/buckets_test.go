package admin

import (
	"log/slog"
	"slices"
	"testing"

	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

func TestTheFirstSettingThatMatchesSaysTheBuckets(t *testing.T) {
	prefix := func(s string) *matcherv3.StringMatcher {
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: s}}
	}
	lookAhead := &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "(?=a)"}}}
	buckets := HistogramBuckets(&metricsv3.StatsConfig{HistogramBucketSettings: []*metricsv3.HistogramBucketSettings{
		{Match: lookAhead, Buckets: []float64{9}},
		{Match: prefix("cluster.none")},
		{Match: prefix("cluster.web"), Buckets: []float64{5, 1, 2.5}},
		{Match: prefix("cluster."), Buckets: []float64{7}},
	}}, slog.New(slog.DiscardHandler))
	for name, want := range map[string][]float64{
		"cluster.web.upstream_cx_length_ms":  {1, 2.5, 5},
		"cluster.none.x":                     {7},
		"listener.l.downstream_cx_length_ms": nil,
	} {
		if got := buckets(name); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
