package resource

import (
	"strings"
	"testing"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/substitution"
)

func TestServiceLog(t *testing.T) {
	const head = `{"name": "n", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig", "common_config": {"log_name": "l", "grpc_service": {"envoy_grpc": {"cluster_name": "c"}}`
	for _, tt := range []struct {
		what, more string
		want       api.ServiceLog
		unbuilt    string
		err        string
	}{
		{what: "by default", want: api.ServiceLog{FlushInterval: time.Second, BufferSize: 16384}},
		{what: "with everything", more: `, "buffer_flush_interval": "0.5s", "buffer_size_bytes": 0, "filter_state_objects_to_log": ["k"], "grpc_stream_retry_policy": {}, "custom_tags": [
			{"tag": "a", "literal": {"value": "v"}}, {"tag": "b", "environment": {"name": "HOME", "default_value": "d"}}, {"tag": "c", "request_header": {"name": "h", "default_value": "e"}},
			{"tag": "d", "metadata": {"kind": {"host": {}}, "metadata_key": {"key": "k", "path": [{"key": "z"}]}, "default_value": "f"}},
			{"tag": "e", "metadata": {"kind": {"request": {}}, "metadata_key": {"key": "k", "path": [{"key": "z"}]}}},
			{"tag": "f", "metadata": {"kind": {"route": {}}, "metadata_key": {"key": "k", "path": [{"key": "z"}]}}},
			{"tag": "g", "value": "x%CONNECTION_ID%"}]`,
			unbuilt: "grpc_stream_retry_policy",
			want: api.ServiceLog{FlushInterval: 500 * time.Millisecond, FilterState: []string{"k"}, Tags: []api.LogTag{
				{Name: "a", Default: "v"}, {Name: "b", Default: "d", Value: substitution.Format{{Command: "ENVIRONMENT", Arg: "HOME", Max: -1}}}, {Name: "c", Default: "e"},
				{Name: "d", Default: "f", Value: substitution.Format{{Command: "UPSTREAM_METADATA", Arg: "k:z", Max: -1}}},
				{Name: "e", Value: substitution.Format{{Command: "DYNAMIC_METADATA", Arg: "k:z", Max: -1}}}, {Name: "f"},
				{Name: "g", Value: substitution.Format{{Literal: "x", Max: -1}, {Command: "CONNECTION_ID", Max: -1}}}}}},
		{what: "with a command that is none", more: `, "custom_tags": [{"tag": "g", "value": "%NOPE%"}]`, err: "custom_tags[0].value: "},
	} {
		t.Run(tt.what, func(t *testing.T) {
			var p accesslogv3.AccessLog
			if err := protojson.Unmarshal([]byte(head+tt.more+"}}}"), &p); err != nil {
				t.Fatal(err)
			}
			w := &walker{}
			got := w.accessLogs("access_log", []*accesslogv3.AccessLog{&p})
			if all := strings.Join(w.unbuilt, " "); (all == "") != (tt.unbuilt == "") || !strings.Contains(all, tt.unbuilt) {
				t.Errorf("noted: %q", all)
			}
			if tt.err != "" {
				if len(w.errs) != 1 || !strings.Contains(w.errs[0].Error(), tt.err) {
					t.Errorf("errors: %v", w.errs)
				}
				return
			}
			tt.want.LogName, tt.want.Service = "l", api.GRPCService{Cluster: "c", Timeout: never}
			if d := cmp.Diff(&tt.want, got[0].Service); d != "" || len(w.errs) > 0 {
				t.Errorf("%s %v", d, w.errs)
			}
		})
	}
}
