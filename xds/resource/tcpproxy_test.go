package resource

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/substitution"
)

// tcpProxyOf decodes a listener with one tcp_proxy.
func tcpProxyOf(t *testing.T, fields string) (*api.TCPProxy, error) {
	t.Helper()
	in := `name: l, address: {socket_address: {address: 127.0.0.1, port_value: 80}}, filter_chains: [{filters: [{name: t, typed_config: {"@type": type.googleapis.com/` + typeTCPProxy + `, stat_prefix: p, ` + fields + `}}]}]`
	_, l, _, err := Listener(pack(t, listenerOf(t, in)))
	if err != nil {
		return nil, err
	}
	return l.FilterChains[0].Filters[0].TCPProxy, nil
}

func TestTCPProxyIsDecoded(t *testing.T) {
	lb := func(s string) string { return `{filter_metadata: {envoy.lb: {` + s + `}, other: {x: z}}}` }
	for _, tt := range []struct {
		what, in string
		want     func(*api.TCPProxy)
	}{
		{"metadata_match of envoy.lb alone", "cluster: c, metadata_match: " + lb("a: b"), func(p *api.TCPProxy) { p.MetadataMatch = map[string]any{"a": "b"} }},
		{"weighted clusters, whose criteria lie over the filter's", "metadata_match: " + lb("a: b, k: v") + ", weighted_clusters: {clusters: [{name: x, weight: 1}, {name: yy, weight: 3, metadata_match: " + lb("a: z") + "}]}",
			func(p *api.TCPProxy) {
				p.Cluster, p.MetadataMatch = "", map[string]any{"a": "b", "k": "v"}
				p.Clusters = []api.WeightedCluster{{Name: "x", Weight: 1, MetadataMatch: map[string]any{"a": "b", "k": "v"}}, {Name: "yy", Weight: 3, MetadataMatch: map[string]any{"a": "z", "k": "v"}}}
			}},
		{"hash by source", "cluster: c, hash_policy: [{source_ip: {}}]", func(p *api.TCPProxy) { p.HashPolicy = []api.HashPolicy{{SourceIP: true}} }},
		{"hash by filter state", "cluster: c, hash_policy: [{filter_state: {key: k}}]", func(p *api.TCPProxy) { p.HashPolicy = []api.HashPolicy{{FilterState: "k"}} }},
		{"duration with jitter", "cluster: c, max_downstream_connection_duration: 2s, max_downstream_connection_duration_jitter_percentage: {value: 50}", func(p *api.TCPProxy) { p.MaxDuration, p.MaxDurationJitter = 2*time.Second, 50 }},
		{"back-off with its default maximum", "cluster: c, backoff_options: {base_interval: 0.1s}", func(p *api.TCPProxy) { p.Backoff = &api.Backoff{Base: 100 * time.Millisecond, Max: time.Second} }},
		{"connect on data", "cluster: c, upstream_connect_mode: ON_DOWNSTREAM_DATA, max_early_data_bytes: 7", func(p *api.TCPProxy) { p.ConnectMode, p.MaxEarlyData = api.ConnectOnData, 7 }},
		{"connect on a TLS handshake", "cluster: c, upstream_connect_mode: ON_DOWNSTREAM_TLS_HANDSHAKE, max_early_data_bytes: 7", func(p *api.TCPProxy) { p.ConnectMode, p.MaxEarlyData = api.ConnectOnTLSHandshake, 7 }},
		{"TLVs", "cluster: c, proxy_protocol_tlvs: [{type: 224, value: YQ==}]", func(p *api.TCPProxy) { p.ProxyProtocolTLVs = []api.TLV{{Type: 224, Value: []byte("a")}} }},
		{"drain close", "cluster: c, check_drain_close: true", func(p *api.TCPProxy) { p.CheckDrainClose = true }},
		{"log options", "cluster: c, access_log_options: {access_log_flush_interval: 1s, flush_access_log_on_connected: true, flush_access_log_on_start: true}",
			func(p *api.TCPProxy) {
				p.LogOptions = api.LogOptions{OnStart: true, OnConnected: true, Interval: time.Second}
			}},
		{"log options of old", "cluster: c, access_log_flush_interval: 1s, flush_access_log_on_connected: true",
			func(p *api.TCPProxy) { p.LogOptions = api.LogOptions{OnConnected: true, Interval: time.Second} }},
	} {
		t.Run(tt.what, func(t *testing.T) {
			want := &api.TCPProxy{StatPrefix: "p", Cluster: "c", IdleTimeout: time.Hour, MaxConnectAttempts: 1}
			tt.want(want)
			got, err := tcpProxyOf(t, tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Fatal(d)
			}
		})
	}
}

func TestTCPProxyIsRefused(t *testing.T) {
	const file = `"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog`
	for _, tt := range []struct{ what, in, want string }{
		{"no early data bound", "cluster: c, upstream_connect_mode: ON_DOWNSTREAM_DATA", "max_early_data_bytes must be set when upstream_connect_mode is not IMMEDIATE"},
		{"log options twice", "cluster: c, access_log_options: {}, access_log_flush_interval: 1s", "Only one of access_log_flush_interval or access_log_options can be specified."},
		{"back-off upside down", "cluster: c, backoff_options: {base_interval: 2s, max_interval: 1s}", "backoff_options: max_backoff_interval must be greater or equal to base_backoff_interval"},
		{"weights beyond 32 bit", "weighted_clusters: {clusters: [{name: x, weight: 4294967295}, {name: yy, weight: 1}]}", "The sum of weights of all upstream clusters of route  exceeds 4294967295"},
		{"an unknown command", `cluster: c, access_log: [{name: f, typed_config: {` + file + `, path: /tmp/x, format: "%NOPE%"}}]`, "access_log[0] file_access_log.format: Not supported field in StreamInfo: NOPE"},
		{"no command", `cluster: c, access_log: [{name: f, typed_config: {` + file + `, path: /tmp/x, log_format: {json_format: {a: {b: "x%"}}}}}]`, "Incorrect configuration: x%. Couldn't find valid command at position 1"},
		{"an unknown logger", `cluster: c, access_log: [{name: f, typed_config: {"@type": type.googleapis.com/no.Such}}]`, "Didn't find a registered implementation for 'f' with type URL: 'no.Such'"},
		{"no such variable", `cluster: c, access_log: [{name: f, typed_config: {` + file + `, path: /tmp/x, log_format: {text_format_source: {environment_variable: NO_SUCH_VARIABLE}}}}]`, "Environment variable doesn't exist: NO_SUCH_VARIABLE"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			if p, err := tcpProxyOf(t, tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %+v, %v", p, err)
			}
		})
	}
}

func TestAccessLogsAreDecoded(t *testing.T) {
	const file = `"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /tmp/x`
	text := func(s string) substitution.Format {
		f, err := substitution.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	flags := []string{"NR"}
	for _, tt := range []struct {
		what, in string
		want     *api.AccessLog
	}{
		{"the default format", `typed_config: {` + file + `}`, &api.AccessLog{Path: "/tmp/x", Text: text(defaultLogFormat)}},
		{"text of old", `typed_config: {` + file + `, format: "%PROTOCOL%"}`, &api.AccessLog{Path: "/tmp/x", Text: text("%PROTOCOL%")}},
		{"text", `typed_config: {` + file + `, log_format: {omit_empty_values: true, text_format_source: {inline_string: "a %DURATION%"}}}`, &api.AccessLog{Path: "/tmp/x", OmitEmpty: true, Text: text("a %DURATION%")}},
		{"stdout", `typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog, log_format: {text_format: "x"}}`, &api.AccessLog{Path: "/dev/stdout", Text: text("x")}},
		{"stderr", `typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog}`, &api.AccessLog{Path: "/dev/stderr", Text: text(defaultLogFormat)}},
		{"json", `typed_config: {` + file + `, log_format: {json_format: {b: [1, 1.5, true, null], a: "%DURATION%"}}}`, &api.AccessLog{Path: "/tmp/x", JSON: &substitution.Node{IsObject: true, Object: []substitution.Field{
			{Key: "a", Value: substitution.Node{Format: text("%DURATION%")}},
			{Key: "b", Value: substitution.Node{IsList: true, List: []substitution.Node{{Literal: "1"}, {Literal: "1.5"}, {Literal: "true"}, {}}}}}}}},
		{"a filter by flag", `filter: {response_flag_filter: {flags: [NR]}}, typed_config: {` + file + `}`, &api.AccessLog{Path: "/tmp/x", Text: text(defaultLogFormat), Filter: &api.LogFilter{Flags: &flags}}},
		{"a tree of filters", `filter: {and_filter: {filters: [{duration_filter: {comparison: {op: GE, value: {default_value: 5, runtime_key: r}}}}, {or_filter: {filters: [{log_type_filter: {types: [TcpConnectionEnd]}}, {header_filter: {header: {name: h, present_match: true}}}]}}]}}, typed_config: {` + file + `}`,
			&api.AccessLog{Path: "/tmp/x", Text: text(defaultLogFormat), Filter: &api.LogFilter{And: []api.LogFilter{
				{Duration: &api.Comparison{Op: "GE", Value: 5, Key: "r"}}, {Or: []api.LogFilter{{Types: &api.LogTypes{Types: []string{"TcpConnectionEnd"}}}, {Nothing: true}}}}}}},
		{"a sample", `filter: {runtime_filter: {runtime_key: r, percent_sampled: {numerator: 3, denominator: TEN_THOUSAND}}}, typed_config: {` + file + `}`, &api.AccessLog{Path: "/tmp/x", Text: text(defaultLogFormat), Filter: &api.LogFilter{Sample: &api.Fraction{Numerator: 3, Denominator: 10_000, Key: "r"}}}},
		{"metadata", `filter: {metadata_filter: {matcher: {filter: f, path: [{key: a}], value: {string_match: {exact: v}}}}}, typed_config: {` + file + `}`, &api.AccessLog{Path: "/tmp/x", Text: text(defaultLogFormat), Filter: &api.LogFilter{Metadata: &api.MetadataCondition{Filter: "f", Path: []string{"a"}, Value: &api.ValueMatch{String: &api.StringMatch{Value: "v"}}, Missing: true}}}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			p, err := tcpProxyOf(t, "cluster: c, access_log: [{name: log, "+tt.in+"}]")
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Name = "log"
			if d := cmp.Diff([]*api.AccessLog{tt.want}, p.AccessLogs); d != "" {
				t.Fatal(d)
			}
		})
	}
}
