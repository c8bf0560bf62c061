package resource

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-proxy/sluice/api"
)

func typedHTTP(options string) string {
	return `name: c, typed_extension_protocol_options: {` + httpProtocolOptions + `: {"@type": type.googleapis.com/` + httpProtocolOptions + `, ` + options + `}}`
}

func TestHTTP2IsDecoded(t *testing.T) {
	at := "typed_extension_protocol_options[" + httpProtocolOptions + "]."
	for _, tt := range []struct {
		what, in string
		want     func(*api.HTTP2) // nil: HTTP/1.1
		unbuilt  []string
	}{
		{"nothing", `name: c`, nil, nil},
		{"HTTP/1.1", typedHTTP(`explicit_http_config: {http_protocol_options: {}}`), nil, []string{at + "explicit_http_config.http_protocol_options"}},
		{"the older fields", `name: c, max_requests_per_connection: 3, common_http_protocol_options: {idle_timeout: 7s}, http2_protocol_options: {max_concurrent_streams: 5}`, func(h *api.HTTP2) {
			h.MaxRequests, h.IdleTimeout, h.MaxStreams = 3, 7*time.Second, 5
		}, nil},
		{"the extension before them", typedHTTP(`explicit_http_config: {http2_protocol_options: {}}`) + `, http2_protocol_options: {max_concurrent_streams: 5}`, func(*api.HTTP2) {}, nil},
		{"as the client speaks", typedHTTP(`use_downstream_protocol_config: {http2_protocol_options: {max_concurrent_streams: 6}}`), func(h *api.HTTP2) { h.MaxStreams = 6 }, nil},
		{"windows, limits, keep-alive", typedHTTP(`common_http_protocol_options: {max_connection_duration: 9s, max_requests_per_connection: 2, idle_timeout: 0s, max_response_headers_kb: 1, max_headers_count: 4}, explicit_http_config: {http2_protocol_options: {initial_stream_window_size: 65535, initial_connection_window_size: 70000, max_outbound_control_frames: 1, max_consecutive_inbound_frames_with_empty_payload: 2, max_inbound_priority_frames_per_stream: 3, max_inbound_window_update_frames_per_data_frame_sent: 4, connection_keepalive: {interval: 1s, timeout: 2s}, hpack_table_size: 0}}`), func(h *api.HTTP2) {
			h.MaxDuration, h.MaxRequests, h.IdleTimeout, h.MaxHeaders = 9*time.Second, 2, 0, 1024
			h.StreamWindow, h.ConnWindow, h.MaxControls, h.MaxEmpty, h.MaxPriorities, h.MaxWindowUpdates = 65535, 70000, 1, 2, 3, 4
			h.KeepaliveInterval, h.KeepaliveTimeout = time.Second, 2*time.Second
		}, []string{at + "explicit_http_config.http2_protocol_options.hpack_table_size", at + "common_http_protocol_options.max_headers_count"}},
		{"by what the host agrees to", typedHTTP(`auto_config: {}`) + `, transport_socket: {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext}}`, func(h *api.HTTP2) { h.ByALPN = true }, nil},
	} {
		t.Run(tt.what, func(t *testing.T) {
			_, got, n, err := Cluster(pack(t, clusterOf(t, tt.in)))
			if err != nil {
				t.Fatal(err)
			}
			var want *api.HTTP2
			if tt.want != nil {
				h := api.DefaultHTTP2()
				tt.want(&h)
				want = &h
			}
			if d := cmp.Diff(want, got.HTTP2); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(tt.unbuilt, n.Unbuilt, cmpopts.EquateEmpty()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestHTTP2IsRefused(t *testing.T) {
	two := func(o string) string {
		return typedHTTP(`explicit_http_config: {http2_protocol_options: {` + o + `}}`)
	}
	for in, want := range map[string]string{
		two(`max_concurrent_streams: 0`):                                                                                   "Http2ProtocolOptionsValidationError.MaxConcurrentStreams: value must be inside range [1, 2147483647]",
		two(`initial_stream_window_size: 65534`):                                                                           "Http2ProtocolOptionsValidationError.InitialStreamWindowSize: value must be inside range [65535, 2147483647]",
		two(`initial_connection_window_size: 1`):                                                                           "Http2ProtocolOptionsValidationError.InitialConnectionWindowSize: value must be inside range [65535, 2147483647]",
		two(`max_outbound_control_frames: 0`):                                                                              "MaxOutboundControlFrames: value must be greater than or equal to 1",
		two(`connection_keepalive: {interval: 1s}`):                                                                        "KeepaliveSettingsValidationError.Timeout: value is required",
		two(`custom_settings_parameters: [{identifier: 2, value: 1}]`):                                                     "server push is not supported by Envoy and can not be enabled via a SETTINGS parameter.",
		two(`custom_settings_parameters: [{identifier: 3, value: 5}], max_concurrent_streams: 9`):                          "the {max_concurrent_streams} HTTP/2 SETTINGS parameter(s) can not be configured through both named and custom parameters",
		`name: c, http2_protocol_options: {max_concurrent_streams: 0}`:                                                     "MaxConcurrentStreams: value must be inside range [1, 2147483647]",
		typedHTTP(`common_http_protocol_options: {}`):                                                                      "required",
		typedHTTP(`explicit_http_config: {}`):                                                                              "required",
		typedHTTP(`explicit_http_config: {http3_protocol_options: {}}`):                                                    "not supported yet",
		typedHTTP(`auto_config: {}`):                                                                                       "ALPN configured for cluster c which has a non-ALPN transport socket",
		typedHTTP(`explicit_http_config: {http2_protocol_options: {}}, common_http_protocol_options: {idle_timeout: -1s}`): "idle_timeout",
	} {
		_, _, _, err := Cluster(pack(t, clusterOf(t, in)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}
