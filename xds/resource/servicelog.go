package resource

import (
	"errors"
	"fmt"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	grpcv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/expression"
	"github.com/sluice-proxy/sluice/api/substitution"
)

// Defaults of als.proto.
const (
	logFlushInterval = time.Second
	logBufferSize    = 16 << 10 // bytes
)

// serviceLog decodes a log that goes to a gRPC service.
func (w *walker) serviceLog(path string, p *grpcv3.CommonGrpcAccessLogConfig) *api.ServiceLog {
	out := &api.ServiceLog{
		LogName:       p.GetLogName(),
		Service:       w.grpcService(path+".grpc_service", p.GetGrpcService(), 0),
		FlushInterval: w.duration(path+".buffer_flush_interval", p.GetBufferFlushInterval(), logFlushInterval),
		BufferSize:    logBufferSize,
		FilterState:   p.GetFilterStateObjectsToLog(),
	}
	if p.GetTransportApiVersion() == corev3.ApiVersion_V2 {
		w.fail(path+".transport_api_version", errors.New("V2 xDS transport protocol version is deprecated. The v2 xDS major version has been removed and is no longer supported. See the advice in https://www.envoyproxy.io/docs/envoy/latest/faq/api/envoy_v3."))
	}
	if v := p.GetBufferSizeBytes(); v != nil {
		out.BufferSize = v.GetValue()
	}
	if p.GetGrpcStreamRetryPolicy() != nil {
		w.unbuilt = append(w.unbuilt, path+".grpc_stream_retry_policy")
	}
	for i, t := range p.GetCustomTags() {
		out.Tags = append(out.Tags, w.logTag(fmt.Sprintf("%s.custom_tags[%d]", path, i), t))
	}
	return out
}

// logTag decodes a custom tag. What a request or a route has, no TCP connection
// has: then there is the default.
func (w *walker) logTag(path string, p *tracingv3.CustomTag) api.LogTag {
	out := api.LogTag{Name: p.GetTag()}
	switch t := p.GetType().(type) {
	case *tracingv3.CustomTag_Literal_:
		out.Default = t.Literal.GetValue()
	case *tracingv3.CustomTag_Environment_:
		out.Default = t.Environment.GetDefaultValue()
		out.Value = command("ENVIRONMENT", t.Environment.GetName())
	case *tracingv3.CustomTag_RequestHeader:
		out.Default = t.RequestHeader.GetDefaultValue()
	case *tracingv3.CustomTag_Metadata_:
		out.Default = t.Metadata.GetDefaultValue()
		keys := []string{t.Metadata.GetMetadataKey().GetKey()}
		for _, s := range t.Metadata.GetMetadataKey().GetPath() {
			keys = append(keys, s.GetKey())
		}
		arg := strings.Join(keys, ":")
		switch t.Metadata.GetKind().GetKind().(type) {
		case *metadatav3.MetadataKind_Request_:
			out.Value = command("DYNAMIC_METADATA", arg)
		case *metadatav3.MetadataKind_Cluster_:
			out.Value = command("CLUSTER_METADATA", arg)
		case *metadatav3.MetadataKind_Host_:
			out.Value = command("UPSTREAM_METADATA", arg)
		}
	case *tracingv3.CustomTag_Value:
		f, err := parseFormat(t.Value, expression.Options{})
		if err != nil {
			w.fail(path+".value", err)
		}
		out.Value = f
	}
	return out
}

func command(name, arg string) substitution.Format {
	return substitution.Format{{Command: name, Arg: arg, Max: -1}}
}
