package admin

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/sluice-proxy/sluice/api/stats"
)

// five is a histogram with the values of a run of Envoy 1.40, whose output
// the expectations below are.
func five(f *fixture) {
	h := f.store.Scope("cluster", stats.Tag{Name: "envoy.cluster_name", Value: "web"}).Histogram("upstream_cx_length_ms")
	for _, v := range []float64{2, 1, 2, 4, 2} {
		h.Record(v)
	}
	f.store.EndInterval()
}

func TestStatsTextIsEnvoys(t *testing.T) {
	const p = "P0(1.05,1.05) P25(2.025,2.025) P50(2.05,2.05) P75(2.075,2.075) P90(4.05,4.05) P95(4.05,4.05) P99(4.05,4.05) P99.5(4.05,4.05) P99.9(4.05,4.05) P100(4.05,4.05)"
	f := newFixture(t)
	five(f)
	web := f.store.Scope("cluster", stats.Tag{Name: "envoy.cluster_name", Value: "web"})
	web.Histogram("upstream_cx_connect_ms")
	web.Counter("upstream_cx_total").Add(5)
	web.Gauge("upstream_cx_active")
	web.Text("version_text").Set(`v"1<`)
	tests := []struct{ name, query, want string }{
		{"texts, counters and gauges, histograms", "filter=web",
			"cluster.web.version_text: \"v&#34;1&lt;\"\ncluster.web.upstream_cx_active: 0\ncluster.web.upstream_cx_total: 5\n" +
				"cluster.web.upstream_cx_connect_ms: No recorded values\ncluster.web.upstream_cx_length_ms: " + p + "\n"},
		{"used only", "usedonly&filter=web.upstream", "cluster.web.upstream_cx_total: 5\ncluster.web.upstream_cx_length_ms: " + p + "\n"},
		{"inverted", "type=Counters&filter=server|runtime&invert_filter", "cluster.web.upstream_cx_total: 5\n"},
		{"gauges", "type=Gauges&filter=web", "cluster.web.upstream_cx_active: 0\n"},
		{"cumulative", "histogram_buckets=cumulative&filter=web.upstream_cx_length",
			"cluster.web.upstream_cx_length_ms: B0.5(0,0) B1(1,1) B5(5,5) B10(5,5) B25(5,5) B50(5,5) B100(5,5) B250(5,5) B500(5,5) B1000(5,5) B2500(5,5) B5000(5,5) B10000(5,5) B30000(5,5) B60000(5,5) B300000(5,5) B600000(5,5) B1.8e+06(5,5) B3.6e+06(5,5)\n"},
		{"disjoint", "histogram_buckets=disjoint&filter=web.upstream_cx_length",
			"cluster.web.upstream_cx_length_ms: B0.5(0,0) B1(1,1) B5(4,4) B10(0,0) B25(0,0) B50(0,0) B100(0,0) B250(0,0) B500(0,0) B1000(0,0) B2500(0,0) B5000(0,0) B10000(0,0) B30000(0,0) B60000(0,0) B300000(0,0) B600000(0,0) B1.8e+06(0,0) B3.6e+06(0,0)\n"},
		{"detailed", "histogram_buckets=detailed&filter=web.upstream_cx_length",
			"cluster.web.upstream_cx_length_ms:\n  totals=1,0.1:1, 2,0.1:3, 4,0.1:1\n  intervals=1,0.1:1, 2,0.1:3, 4,0.1:1\n  summary=" + p + "\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := f.get(t, "/stats?"+tt.query); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
	f.store.EndInterval() // nothing came in
	if got := f.get(t, "/stats?filter=web.upstream_cx_length"); !strings.Contains(got, "P0(nan,1.05) P25(nan,2.025)") {
		t.Errorf("quiet interval: %s", got)
	}
}

func TestStatsJSONIsEnvoys(t *testing.T) {
	f := newFixture(t)
	five(f)
	f.store.Scope("cluster", stats.Tag{Name: "envoy.cluster_name", Value: "web"}).Counter("upstream_cx_total").Add(5)
	value := func(vs ...string) string {
		var out []string
		for _, v := range vs {
			out = append(out, fmt.Sprintf(`{"cumulative":%s,"interval":%s}`, v, v))
		}
		return strings.Join(out, ",")
	}
	got := f.get(t, "/stats?format=json&filter=web.upstream_cx_(length|total)")
	want := `{"stats":[{"name":"cluster.web.upstream_cx_total","value":5},{"histograms":{"computed_quantiles":[{"name":"cluster.web.upstream_cx_length_ms","values":[` +
		value("1.05", "2.025", "2.05", "2.075", "4.05", "4.05", "4.05", "4.05", "4.05", "4.05") +
		`]}],"supported_quantiles":[0,25,50,75,90,95,99,99.5,99.9,100]}}]}`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	got = f.get(t, "/stats?format=json&histogram_buckets=disjoint&filter=web.upstream_cx_length")
	if want := `{"stats":[{"histograms":[{"name":"cluster.web.upstream_cx_length_ms","buckets":[{"upper_bound":0.5,"interval":0,"cumulative":0},{"upper_bound":1,"interval":1,"cumulative":1},`; !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	got = f.get(t, "/stats?format=json&histogram_buckets=detailed&filter=web.upstream_cx_length")
	if want := `"totals":[{"lower_bound":1,"width":0.1,"count":1},{"lower_bound":2,"width":0.1,"count":3},`; !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := f.get(t, "/stats?format=json&filter=initialization"); !strings.Contains(got, `{"cumulative":null,"interval":null}`) {
		t.Errorf("no value: %s", got)
	}
}

func TestPrometheusIsEnvoys(t *testing.T) {
	f := newFixture(t)
	five(f)
	for _, w := range []string{"0", "1"} {
		f.store.Scope("listener", stats.Tag{Name: "envoy.listener_address", Value: "127.0.0.1_80"},
			stats.Infix{Prefix: "worker_", Tag: stats.Tag{Name: "envoy.worker_id", Value: w}}).Counter("downstream_cx_total").Add(4)
	}
	f.store.Scope("listener_manager.lds").Text("version_text").Set("a\\b\"c\n")
	f.store.Scope("cluster", stats.Tag{Name: "envoy.cluster_name", Value: "o|80||x.y\xff"}).Counter("upstream_cx_total").Inc()
	tests := []struct{ name, target, want string }{
		{"no tags", "/stats/prometheus?filter=server.concurrency", "# TYPE envoy_server_concurrency gauge\nenvoy_server_concurrency{} 2\n"},
		{"two tags", "/stats?format=prometheus&filter=worker_",
			"# TYPE envoy_listener_worker_downstream_cx_total counter\n" +
				`envoy_listener_worker_downstream_cx_total{envoy_worker_id="0",envoy_listener_address="127.0.0.1_80"} 4` + "\n" +
				`envoy_listener_worker_downstream_cx_total{envoy_worker_id="1",envoy_listener_address="127.0.0.1_80"} 4` + "\n"},
		{"a histogram begins", "/stats/prometheus?filter=web.upstream_cx_length",
			"# TYPE envoy_cluster_upstream_cx_length_ms histogram\n" +
				`envoy_cluster_upstream_cx_length_ms_bucket{envoy_cluster_name="web",le="0.5"} 0` + "\n" +
				`envoy_cluster_upstream_cx_length_ms_bucket{envoy_cluster_name="web",le="1"} 1` + "\n"},
		{"a summary begins", "/stats/prometheus?filter=web.upstream_cx_length&histogram_buckets=summary",
			"# TYPE envoy_cluster_upstream_cx_length_ms summary\n" +
				`envoy_cluster_upstream_cx_length_ms{envoy_cluster_name="web",quantile="0"} 1.05` + "\n"},
		{"no texts", "/stats/prometheus?filter=version_text", ""},
		{"texts", "/stats/prometheus?filter=version_text&text_readouts",
			"# TYPE envoy_listener_manager_lds_version_text gauge\n" + `envoy_listener_manager_lds_version_text{text_value="a\\b\"c\n"} 0` + "\n"},
		{"a label that is not UTF-8", "/stats/prometheus?filter=x.y",
			"# TYPE envoy_cluster_upstream_cx_total counter\n" + `envoy_cluster_upstream_cx_total{envoy_cluster_name="o|80||x.y` + "\uFFFD" + `"} 1` + "\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := f.get(t, tt.target)
			if !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
	// The whole of it, read back by Prometheus' own parser.
	for _, mode := range []string{"cumulative", "summary"} {
		p := expfmt.NewTextParser(model.LegacyValidation)
		fams, err := p.TextToMetricFamilies(strings.NewReader(f.get(t, "/stats/prometheus?text_readouts&histogram_buckets="+mode)))
		if err != nil {
			t.Fatal(err)
		}
		m := fams["envoy_cluster_upstream_cx_length_ms"].GetMetric()[0]
		if n := m.GetHistogram().GetSampleCount() + m.GetSummary().GetSampleCount(); n != 5 {
			t.Errorf("%s: count %d", mode, n)
		}
		if s := m.GetHistogram().GetSampleSum() + m.GetSummary().GetSampleSum(); s != 11 {
			t.Errorf("%s: sum %v", mode, s)
		}
	}
}

func TestScrapeIsUpToDate(t *testing.T) {
	f := newFixture(t)
	c := f.store.Scope("tcp", stats.Tag{Name: "envoy.tcp_prefix", Value: "p"}).Counter("bytes")
	f.fake.onFlush = func() { c.Add(7) }
	if got := f.get(t, "/stats?filter=^tcp"); got != "tcp.p.bytes: 7\n" {
		t.Errorf("not flushed before the scrape: %q", got)
	}
	for i, l := range []string{"a_1", "b_2"} {
		f.store.Scope("listener", stats.Tag{Name: "envoy.listener_address", Value: l}).Gauge("downstream_cx_active").Set(uint64(i + 1))
	}
	if got := f.get(t, "/stats?filter=total_connections"); got != "server.total_connections: 3\n" {
		t.Errorf("%q", got)
	}
	f.do("POST", "/reset_counters")
	f.fake.onFlush = nil
	if got := f.get(t, "/stats?usedonly&filter=^tcp"); got != "tcp.p.bytes: 0\n" {
		t.Errorf("after reset: %q", got)
	}
}

func FuzzQuery(f *testing.F) {
	for _, s := range []string{"", "usedonly&filter=^(a|b)$", "filter=%5Ea%", "a=b=c&&=&%zz=%41", "filter=a+b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q := parseQuery(raw)
		if len(q) > strings.Count(raw, "&")+1 {
			t.Errorf("%q gives %q", raw, q)
		}
		for _, p := range q {
			if len(p[0])+len(p[1]) > len(raw) {
				t.Errorf("%q gives %q", raw, q)
			}
			if !strings.Contains(raw, "%") && !strings.Contains(raw, p[0]) {
				t.Errorf("%q gives %q", raw, q)
			}
		}
	})
}
