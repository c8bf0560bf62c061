package resource

import (
	"testing"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/substitution"
)

func stateText(more string) string {
	return before(networkFilterText("set_filter_state", "Config", more))
}

func TestFilterStateIsDecoded(t *testing.T) {
	const x = "format_string: {text_format_source: {inline_string: x}}"
	lit := substitution.Format{{Literal: "x", Max: -1}}
	decodesFilters(t, []filterTest{
		{what: "sni_cluster", in: before(networkFilterText("sni_cluster", "SniCluster", "")), want: api.Filter{SNICluster: &api.SNICluster{}}},
		{what: "nothing", in: stateText(""), want: api.Filter{SetFilterState: &api.SetFilterState{}}},
		{what: "a handshake is none without TLS", in: stateText("on_downstream_tls_handshake: [{object_key: envoy.network.ip, " + x + "}], on_new_connection: [{object_key: envoy.tcp_proxy.cluster, " + x + "}]"),
			want: api.Filter{SetFilterState: &api.SetFilterState{OnConnection: []api.FilterStateValue{{Key: "envoy.tcp_proxy.cluster", Text: lit}, {Key: "envoy.network.ip", Kind: api.ObjectIP, Text: lit}}}}},
		{what: "everything", in: stateText("on_downstream_data: [{object_key: k, factory_key: envoy.string, shared_with_upstream: TRANSITIVE, skip_if_empty: true, read_only: true, format_string: {omit_empty_values: true, text_format_source: {inline_string: \"%CONNECTION_ID%\"}}}]"),
			want:    api.Filter{SetFilterState: &api.SetFilterState{OnData: []api.FilterStateValue{{Key: "k", Text: substitution.Format{{Command: "CONNECTION_ID", Max: -1}}, OmitEmpty: true, SkipIfEmpty: true, Shared: api.SharedTransitively}}}},
			unbuilt: []string{"filter_chains[0].filters[0] config.on_downstream_data[0].read_only"}},
	})
}

// The causes are Envoy 1.40's.
func TestFilterStateIsRefused(t *testing.T) {
	const x = "format_string: {text_format_source: {inline_string: x}}"
	refusesFilters(t, []struct{ what, in, want string }{
		{"an object that nobody makes", stateText("on_new_connection: [{object_key: no.such.key, " + x + "}]"), "config.on_new_connection[0].object_key: 'no.such.key' does not have an object factory"},
		{"a maker that does not exist", stateText("on_new_connection: [{object_key: k, factory_key: nobody, " + x + "}]"), "config.on_new_connection[0].factory_key: 'k' does not have an object factory"},
		{"a command that does not exist", stateText("on_downstream_data: [{object_key: envoy.string, format_string: {text_format_source: {inline_string: \"%NOSUCH%\"}}}]"), "config.on_downstream_data[0].format_string.text_format_source: Not supported field in StreamInfo: NOSUCH"},
	})
}
