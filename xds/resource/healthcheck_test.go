package resource

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/api"
)

const checkOf = `timeout: 1s, interval: 2s, unhealthy_threshold: 3, healthy_threshold: 4`

func TestHealthChecksAreDecoded(t *testing.T) {
	_, c, n, err := Cluster(pack(t, clusterOf(t, `name: c, ignore_health_on_host_removal: true, close_connections_on_host_health_failure: true, common_lb_config: {ignore_new_hosts_until_first_hc: true}, health_checks: [
  {name: a, `+checkOf+`, unhealthy_interval: 5s, event_log_path: /a, tcp_health_check: {send: {text: "50494e47"}, receive: [{binary: UE9ORw==}], proxy_protocol_config: {version: V2}}},
  {name: b, `+checkOf+`, reuse_connection: false, no_traffic_interval: 7s, alt_port: 1, http_health_check: {path: /x, method: PUT, send: {text: "61"}, codec_client_type: HTTP2, service_name_matcher: {prefix: x},
    expected_statuses: [{start: 200, end: 300}], retriable_statuses: [{start: 500, end: 504}], request_headers_to_add: [{header: {key: k, value: v}, append_action: ADD_IF_ABSENT}], request_headers_to_remove: [user-agent]}}]`)))
	if err != nil {
		t.Fatal(err)
	}
	base := api.HealthCheck{Timeout: time.Second, Interval: 2 * time.Second, NoTrafficInterval: time.Minute, NoTrafficHealthyInterval: time.Minute,
		UnhealthyInterval: 2 * time.Second, UnhealthyEdgeInterval: 2 * time.Second, HealthyEdgeInterval: 2 * time.Second,
		UnhealthyThreshold: 3, HealthyThreshold: 4, ReuseConnection: true}
	a, b := base, base
	a.Name, a.UnhealthyInterval, a.UnhealthyEdgeInterval, a.EventLogs = "a", 5*time.Second, 5*time.Second, []string{"/a"}
	a.TCP = &api.TCPCheck{Send: []byte("PING"), Receive: [][]byte{[]byte("PONG")}, ProxyProtocol: 2}
	b.Name, b.ReuseConnection, b.NoTrafficInterval, b.NoTrafficHealthyInterval = "b", false, 7*time.Second, 7*time.Second
	b.HTTP = &api.HTTPCheck{Path: "/x", Method: "PUT", Send: []byte("a"), HTTP2: true, ResponseBufferSize: 1024, Remove: []string{"user-agent"},
		ServiceName: &api.StringMatch{Kind: api.MatchPrefix, Value: "x"}, Expected: []api.StatusRange{{Start: 200, End: 300}},
		Retriable: []api.StatusRange{{Start: 500, End: 504}}, Add: []api.HTTPHeader{{Key: "k", Value: "v", Action: api.AddIfAbsent}}}
	if d := cmp.Diff([]api.HealthCheck{a, b}, c.HealthChecks); d != "" {
		t.Error(d)
	}
	if !c.IgnoreHealthOnRemoval || !c.CloseOnHealthFailure || !c.IgnoreNewHosts {
		t.Errorf("%+v", c)
	}
	if d := cmp.Diff([]string{"health_checks[1].alt_port"}, n.Unbuilt); d != "" {
		t.Error(d)
	}
}

func TestGRPCCheckNeedsHTTP2(t *testing.T) {
	in := `name: c, health_checks: [{` + checkOf + `, grpc_health_check: {service_name: s, authority: a}}]`
	_, _, _, err := Cluster(pack(t, clusterOf(t, in)))
	if want := "health_checks[0].grpc_health_check: c cluster must support HTTP/2 for gRPC healthchecking"; err == nil || err.Error() != want {
		t.Error(err)
	}
	for _, with := range []string{
		`http2_protocol_options: {}`,
		`typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}`,
	} {
		_, c, _, err := Cluster(pack(t, clusterOf(t, in+", "+with)))
		if err != nil {
			t.Errorf("%s: %v", with, err)
			continue
		}
		if d := cmp.Diff(&api.GRPCCheck{Service: "s", Authority: "a"}, c.HealthChecks[0].GRPC); d != "" {
			t.Error(d)
		}
	}
}

func TestOutlierDetectionHasEnvoysDefaults(t *testing.T) {
	_, c, _, err := Cluster(pack(t, clusterOf(t, `name: c, outlier_detection: {consecutive_5xx: 3, base_ejection_time: 400s}`)))
	if err != nil {
		t.Fatal(err)
	}
	want := &api.OutlierDetection{Consecutive5xx: 3, ConsecutiveGatewayFailure: 5, ConsecutiveLocalOriginFailure: 5,
		Interval: 10 * time.Second, BaseEjectionTime: 400 * time.Second, MaxEjectionTime: 400 * time.Second, MaxEjectionPercent: 10,
		EnforcingConsecutive5xx: 100, EnforcingConsecutiveLocalOriginFailure: 100, EnforcingSuccessRate: 100, EnforcingLocalOriginSuccessRate: 100,
		FailurePercentageThreshold: 85, FailurePercentageMinimumHosts: 5, FailurePercentageRequestVolume: 50,
		SuccessRateMinimumHosts: 5, SuccessRateRequestVolume: 100, SuccessRateStdevFactor: 1900, UnejectOnHealthCheck: true}
	if d := cmp.Diff(want, c.Outlier); d != "" {
		t.Error(d)
	}
}

// The words are Envoy's.
func TestChecksOfHealthAreRefused(t *testing.T) {
	check := func(s string) string { return `health_checks: [{` + checkOf + `, ` + s + `}]` }
	const tcp = `tcp_health_check: {}`
	for in, want := range map[string]string{
		`health_checks: [{` + checkOf + `, ` + tcp + `}, {` + checkOf + `, ` + tcp + `}]`: "health check at index 0 is missing a name; all health checks must have a name when multiple health checks are configured",
		`health_checks: [{}]`:                         "HealthCheckValidationError.Timeout: value is required",
		check(`tcp_health_check: {send: {text: zz}}`): "health_checks[0].tcp_health_check.send.text: invalid hex string 'zz'",
		check(`http_health_check: {path: /, expected_statuses: [{start: 200, end: 200}]}`): "Invalid http expected status range: expecting start < end, but found start=200 and end=200",
		check(`http_health_check: {path: /, retriable_statuses: [{start: 50, end: 200}]}`): "Invalid http retriable status range: expecting start >= 100, but found start=50",
		check(`http_health_check: {path: /, expected_statuses: [{start: 500, end: 700}]}`): "Invalid http expected status range: expecting end <= 600, but found end=700",
		check(`http_health_check: {path: /, send: {text: aa}}`):                            "HTTP health check cannot specify a request payload with method 'GET'. Only methods that support a request body (POST, PUT, PATCH, OPTIONS) can be used with payload.",
		check(`custom_health_check: {name: envoy.health_checkers.foo}`):                    "Didn't find a registered implementation for 'envoy.health_checkers.foo' with type URL: ''",
		`outlier_detection: {max_ejection_time: 10s}`:                                      "outlier_detection.max_ejection_time: outlier detector's max_ejection_time cannot be smaller than base_ejection_time",
		`circuit_breakers: {per_host_thresholds: [{max_connections: 1, max_requests: 2}]}`: "circuit_breakers.per_host_thresholds[0]: Unsupported field in per_host_thresholds",
	} {
		_, c, _, err := Cluster(pack(t, clusterOf(t, `name: c, `+in)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v (%v)", in, err, c != nil)
		}
	}
}

func TestEndpointsSayWhereTheyAreChecked(t *testing.T) {
	for in, want := range map[string]*api.EndpointCheck{
		`{}`:               nil,
		`{port_value: 80}`: {Port: 80},
		`{address: {socket_address: {address: 10.0.0.9, port_value: 1}}}`:                {Addr: netip.MustParseAddrPort("10.0.0.9:1")},
		`{port_value: 5, address: {socket_address: {address: 10.0.0.9, port_value: 1}}}`: {Addr: netip.MustParseAddrPort("10.0.0.9:1"), Port: 5},
		`{disable_active_health_check: true, hostname: h}`:                               {Hostname: "h", Disabled: true},
	} {
		_, as, _, err := Assignment(pack(t, assignmentOf(t, `cluster_name: s, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 9}}, health_check_config: `+in+`}}]}]`)))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if d := cmp.Diff(want, as.Localities[0].Endpoints[0].Check, plainAddrs); d != "" {
			t.Errorf("%s: %s", in, d)
		}
	}
}
