package resource

import (
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

func extAuthzText(more string) string {
	return before(networkFilterText("ext_authz", "ExtAuthz", "stat_prefix: p, transport_api_version: V3, "+more))
}

func TestExtAuthzIsDecoded(t *testing.T) {
	const service = "grpc_service: {envoy_grpc: {cluster_name: c}}"
	truth := true
	decodesFilters(t, []filterTest{
		{what: "by default", in: extAuthzText(service), want: api.Filter{ExtAuthz: &api.ExtAuthz{StatPrefix: "p", Service: api.GRPCService{Cluster: "c", Timeout: 200 * time.Millisecond}}}},
		{what: "in full", in: extAuthzText("grpc_service: {timeout: 1s, retry_policy: {}, envoy_grpc: {cluster_name: c, authority: a}, initial_metadata: [{key: X-A, value: v}, {key: b-bin, raw_value: AP8=}]}, failure_mode_allow: true, include_peer_certificate: true, include_tls_session: true, metadata_context_namespaces: [ns], filter_enabled_metadata: {filter: f, path: [{key: k}], value: {bool_match: true}}"),
			want: api.Filter{ExtAuthz: &api.ExtAuthz{StatPrefix: "p", FailureModeAllow: true, IncludeTLSSession: true, IncludePeerCertificate: true, MetadataNamespaces: []string{"ns"},
				EnabledBy: &api.MetadataMatch{Filter: "f", Path: []string{"k"}, Value: api.ValueMatch{Bool: &truth}},
				Service:   api.GRPCService{Cluster: "c", Authority: "a", Timeout: time.Second, Metadata: []api.GRPCMetadata{{Key: "x-a", Value: "v"}, {Key: "b-bin", Value: "\x00\xff"}}}}},
			unbuilt: []string{"filter_chains[0].filters[0] ext_authz.grpc_service.retry_policy"}},
		{what: "without a cluster of ours", in: extAuthzText("grpc_service: {timeout: 0s, google_grpc: {target_uri: 'dns:///a:1', stat_prefix: g}}"), want: api.Filter{ExtAuthz: &api.ExtAuthz{StatPrefix: "p", Service: api.GRPCService{Target: "dns:///a:1", Timeout: never}}}},
	})
}

func TestExtAuthzIsRefused(t *testing.T) {
	const service = "grpc_service: {envoy_grpc: {cluster_name: c}}"
	refusesFilters(t, []struct{ what, in, want string }{
		{"no service", extAuthzText(""), "ext_authz.grpc_service: value is required"},
		{"a timeout into the past", extAuthzText("grpc_service: {timeout: -1s, envoy_grpc: {cluster_name: c}}"), "ext_authz.grpc_service.timeout: Invalid duration: Expected positive duration (-1s 0ns)"},
		{"version 2", before(networkFilterText("ext_authz", "ExtAuthz", "stat_prefix: p, transport_api_version: V2, "+service)), "ext_authz.transport_api_version: V2 xDS transport protocol version is deprecated (V2)"},
		{"shadow mode", extAuthzText(service + ", shadow_mode: true"), "ext_authz.shadow_mode: not supported yet (true)"},
		{"labels of the bootstrap", extAuthzText(service + ", bootstrap_metadata_labels_key: k"), `ext_authz.bootstrap_metadata_labels_key: not supported yet ("k")`},
		{"credentials", extAuthzText("grpc_service: {google_grpc: {target_uri: a, stat_prefix: g, channel_credentials: {google_default: {}}}}"), "ext_authz.grpc_service.google_grpc: credentials not supported yet"},
		{"a command in the metadata", extAuthzText("grpc_service: {envoy_grpc: {cluster_name: c}, initial_metadata: [{key: k, value: '%HOSTNAME%'}]}"), "ext_authz.grpc_service.initial_metadata[0].value: commands not supported yet"},
		{"a broken expression", extAuthzText(service + ", filter_enabled_metadata: {filter: f, path: [{key: k}], value: {string_match: {safe_regex: {regex: (a}}}}"), "ext_authz.filter_enabled_metadata.value.string_match.safe_regex.regex: missing ): (a"},
	})
}
