package bootstrap

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// reporting is a bootstrap with a load_stats_config.
func reporting(config string) Options {
	return Options{YAML: `{node: {id: n, cluster: n}, cluster_manager: {load_stats_config: {` + config + `}},
static_resources: {clusters: [{name: lrs, http2_protocol_options: {}, load_assignment: {cluster_name: lrs, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]}}]}}`}
}

func TestLoadReports(t *testing.T) {
	c := mustLoad(t, reporting(`api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: lrs}, initial_metadata: [{key: k, value: v}]}]`))
	if c.LoadReports == nil || c.LoadReports.Cluster != "lrs" || c.LoadReports.Authority != "lrs" || len(c.Unbuilt) > 0 {
		t.Errorf("service %+v, unbuilt %v", c.LoadReports, c.Unbuilt)
	}
	if d := cmp.Diff([][2]string{{"k", "v"}}, c.LoadReports.Metadata); d != "" {
		t.Error(d)
	}
	if c := mustLoad(t, Options{YAML: `{node: {id: n}}`}); c.LoadReports != nil {
		t.Errorf("reports to %+v unasked", c.LoadReports)
	}
}

// The causes are what Envoy 1.40 says when it ends at its start.
func TestLoadReportsAreRefused(t *testing.T) {
	const path = "cluster_manager.load_stats_config"
	for config, want := range map[string]string{
		`api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: nosuch}}]`:                                 path + ".grpc_services[0].envoy_grpc.cluster_name: Unknown gRPC client cluster 'nosuch'",
		`api_type: GRPC, transport_api_version: V3`:                                                                                        path + ".grpc_services: API configs must have either a gRPC service or a cluster name defined",
		`api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: lrs}}, {envoy_grpc: {cluster_name: lrs}}]`: path + ".grpc_services: envoy.config.core.v3.ApiConfigSource::(AGGREGATED_)(DELTA_)GRPC must have no more than 1 gRPC services specified",
		`api_type: REST, transport_api_version: V3, cluster_names: [lrs], refresh_delay: 1s`:                                               path + ".api_type: envoy.config.core.v3.ApiConfigSource type must be of non-aggregated gRPC",
		`api_type: AGGREGATED_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: lrs}}]`:                         path + ".api_type: not supported yet",
		`api_type: GRPC, transport_api_version: V2, grpc_services: [{envoy_grpc: {cluster_name: lrs}}]`:                                    "V2",
		`api_type: GRPC, transport_api_version: V3, cluster_names: [lrs]`:                                                                  path + ".cluster_names: envoy.config.core.v3.ApiConfigSource::(AGGREGATED_)(DELTA_)GRPC must not have a cluster name specified",
	} {
		if _, err := Load(reporting(config)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", config, err, want)
		}
	}
}
