package admin

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/api/stats"
)

func view(t *testing.T, config string, log *slog.Logger) string {
	t.Helper()
	c := &metricsv3.StatsConfig{}
	if err := protojson.Unmarshal([]byte(config), c); err != nil {
		t.Fatal(err)
	}
	st := stats.New()
	for _, name := range []string{"web", "outbound|80||a.b.svc.cluster.local"} {
		st.Scope("cluster", stats.Tag{Name: "envoy.cluster_name", Value: name}).Counter("upstream_cx_total")
	}
	st.Scope("listener", stats.Tag{Name: "envoy.listener_address", Value: "[__1]_80"}, stats.Infix{Prefix: "worker_", Tag: stats.Tag{Name: "envoy.worker_id", Value: "0"}}).Gauge("downstream_cx_active")
	st.Scope("server").Gauge("live")
	v := newStatsView(c, nil, log)
	var lines []string
	for range 2 { // the second time from memory
		lines = nil
		for _, x := range v.of(st.All()) {
			lines = append(lines, fmt.Sprint(x.TagName, x.Tags))
		}
	}
	return strings.Join(lines, "\n")
}

// Order and cuts are those of Envoy 1.40's /stats/prometheus, but for the default
// tag of a cluster with dots in its name: Envoy's ends at the first of them.
func TestStatsConfig(t *testing.T) {
	const istio = `{"tagName": "cluster_name", "regex": "^cluster\\.((.+?(\\..+?\\.svc\\.cluster\\.local)?)\\.)"}`
	for _, tt := range []struct{ what, config, want string }{
		{"nothing", `{}`, `cluster.upstream_cx_total[{envoy.cluster_name outbound|80||a.b.svc.cluster.local}]
cluster.upstream_cx_total[{envoy.cluster_name web}]
listener.worker_downstream_cx_active[{envoy.listener_address [__1]_80} {envoy.worker_id 0}]
server.live[]`},
		{"fixed, default, then custom", `{"statsTags": [` + istio + `, {"tagName": "local_cluster", "fixedValue": "web"}, {"tagName": "envoy.cluster_name", "regex": "^cluster\\.((w))"}]}`,
			`cluster.upstream_cx_total[{local_cluster web} {envoy.cluster_name outbound|80||a.b.svc.cluster.local} {cluster_name outbound|80||a.b.svc.cluster.local}]
cluster.upstream_cx_total[{local_cluster web} {envoy.cluster_name web} {cluster_name web}]
listener.worker_downstream_cx_active[{local_cluster web} {envoy.listener_address [__1]_80} {envoy.worker_id 0}]
server.live[{local_cluster web}]`},
		{"no defaults, one group", `{"useAllDefaultTags": false, "statsTags": [` + istio + `, {"tagName": "active", "regex": "_cx(_active)$"}]}`,
			`cluster.upstream_cx_total[{cluster_name outbound|80||a.b.svc.cluster.local}]
cluster.upstream_cx_total[{cluster_name web}]
listener.[__1]_80.worker_0.downstream_cx[{active _active}]
server.live[]`},
		{"one default by its name", `{"useAllDefaultTags": false, "statsTags": [{"tagName": "envoy.worker_id"}]}`,
			`cluster.outbound|80||a.b.svc.cluster.local.upstream_cx_total[]
cluster.web.upstream_cx_total[]
listener.[__1]_80.worker_downstream_cx_active[{envoy.worker_id 0}]
server.live[]`},
		{"a default replaced", `{"allowDefaultTagOverrides": true, "statsTags": [{"tagName": "envoy.cluster_name", "regex": "^cluster\\.((w)eb\\.)"}]}`,
			`cluster.outbound|80||a.b.svc.cluster.local.upstream_cx_total[]
cluster.upstream_cx_total[{envoy.cluster_name w}]
listener.worker_downstream_cx_active[{envoy.listener_address [__1]_80} {envoy.worker_id 0}]
server.live[]`},
		{"inclusion", `{"statsMatcher": {"inclusionList": {"patterns": [{"prefix": "cluster.web"}, {"safeRegex": {"regex": ".*live"}}]}}}`,
			`cluster.upstream_cx_total[{envoy.cluster_name web}]
server.live[]`},
		{"exclusion", `{"statsMatcher": {"exclusionList": {"patterns": [{"contains": "_cx_"}]}}}`, `server.live[]`},
		{"nothing at all", `{"statsMatcher": {"rejectAll": true}}`, ``},
	} {
		t.Run(tt.what, func(t *testing.T) {
			if got := view(t, tt.config, slog.New(slog.DiscardHandler)); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// The code of a response is the first tag and the last cut.
func TestOfAResponseCodeTheRightPartIsCut(t *testing.T) {
	st := stats.New()
	st.Scope("cluster", stats.Tag{Name: "envoy.cluster_name", Value: "a"}).Counter("upstream_rq_200")
	for name, want := range map[string]string{
		"envoy.response_code": "cluster.a.upstream_rq[{envoy.response_code 200}]",
		"envoy.cluster_name":  "cluster.upstream_rq_200[{envoy.cluster_name a}]",
	} {
		v := newStatsView(&metricsv3.StatsConfig{UseAllDefaultTags: wrapperspb.Bool(false), StatsTags: []*metricsv3.TagSpecifier{{TagName: name}}}, nil, slog.New(slog.DiscardHandler))
		if x := v.of(st.All())[0]; fmt.Sprint(x.TagName, x.Tags) != want {
			t.Errorf("%s: %s%v", name, x.TagName, x.Tags)
		}
	}
}

// One of Istio's expressions looks ahead, which Go's cannot.
func TestAnExpressionThatGoCannotReadIsAWarning(t *testing.T) {
	var log bytes.Buffer
	got := view(t, `{"useAllDefaultTags": false, "statsTags": [{"tagName": "a", "regex": "^listener(?=\\.)(x)"}, {"tagName": "b", "regex": "^(server\\.)"}],
		"statsMatcher": {"inclusionList": {"patterns": [{"safeRegex": {"regex": "(?=a)"}}, {"prefix": "server"}]}}}`, slog.New(slog.NewTextHandler(&log, nil)))
	if got != "live[{b server.}]" || strings.Count(log.String(), "level=WARN") != 2 || !strings.Contains(log.String(), "tag=a") {
		t.Errorf("%s\n%s", got, log.String())
	}
}
