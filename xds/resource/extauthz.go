package resource

import (
	"errors"
	"fmt"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/ext_authz/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sluice-proxy/sluice/api"
)

func extAuthzFilters() map[string]networkFilter {
	return map[string]networkFilter{
		"envoy.extensions.filters.network.ext_authz.v3.ExtAuthz": {decode: func(w *walker, path string, m proto.Message) api.Filter {
			return api.Filter{ExtAuthz: w.extAuthz(path, m.(*extauthzv3.ExtAuthz))}
		}},
	}
}

func extAuthzPolicies() policies {
	return policies{
		"envoy.extensions.filters.network.ext_authz.v3.ExtAuthz": policy{}.
			fields(built, "stat_prefix", "grpc_service", "failure_mode_allow", "filter_enabled_metadata", "metadata_context_namespaces",
				"include_peer_certificate", "include_tls_session",
				// Without typed metadata there is nothing to say.
				"typed_metadata_context_namespaces").
			// The denied see the end of the connection, without the alert.
			fields(noted, "send_tls_alert_on_denial").
			judge(func(v protoreflect.Value) (decision, string) {
				if v.Enum() == protoreflect.EnumNumber(corev3.ApiVersion_V2) {
					return refused, "V2 xDS transport protocol version is deprecated"
				}
				return built, ""
			}, "transport_api_version").
			// The service may decide by the labels; and who is only watched must not
			// be turned away.
			fields(refused, "bootstrap_metadata_labels_key").
			onlyIf(isFalse, "shadow_mode"),
	}
}

// authzTimeout is Envoy's default of this filter.
const authzTimeout = 200 * time.Millisecond

func (w *walker) extAuthz(path string, p *extauthzv3.ExtAuthz) *api.ExtAuthz {
	w.message(path, p.ProtoReflect())
	out := &api.ExtAuthz{
		StatPrefix:         p.GetStatPrefix(),
		FailureModeAllow:   p.GetFailureModeAllow(),
		MetadataNamespaces: p.GetMetadataContextNamespaces(),
		IncludeTLSSession:  p.GetIncludeTlsSession(),

		IncludePeerCertificate: p.GetIncludePeerCertificate(),
	}
	if p.GetGrpcService() == nil {
		w.fail(path+".grpc_service", errors.New("value is required"))
	} else {
		out.Service = w.grpcService(path+".grpc_service", p.GetGrpcService(), authzTimeout)
	}
	if m := p.GetFilterEnabledMetadata(); m != nil {
		out.EnabledBy = w.metadataMatch(path+".filter_enabled_metadata", m)
	}
	return out
}

// grpcService decodes how a filter calls a service; timeout is its default.
func (w *walker) grpcService(path string, p *corev3.GrpcService, timeout time.Duration) api.GRPCService {
	out := api.GRPCService{Timeout: w.duration(path+".timeout", p.GetTimeout(), timeout)}
	if out.Timeout == 0 {
		out.Timeout = never // Envoy's 0 is no timeout
	}
	if p.GetRetryPolicy() != nil || p.GetEnvoyGrpc().GetRetryPolicy() != nil {
		w.unbuilt = append(w.unbuilt, path+".retry_policy")
	}
	for i, h := range p.GetInitialMetadata() {
		v := h.GetValue()
		if len(h.GetRawValue()) > 0 {
			v = string(h.GetRawValue())
		}
		if strings.Contains(v, "%") {
			w.fail(fmt.Sprintf("%s.initial_metadata[%d].value", path, i), errors.New("commands not supported yet"))
		}
		out.Metadata = append(out.Metadata, api.GRPCMetadata{Key: strings.ToLower(h.GetKey()), Value: v})
	}
	switch t := p.GetTargetSpecifier().(type) {
	case *corev3.GrpcService_EnvoyGrpc_:
		out.Cluster, out.Authority = t.EnvoyGrpc.GetClusterName(), t.EnvoyGrpc.GetAuthority()
	case *corev3.GrpcService_GoogleGrpc_:
		out.Target = t.GoogleGrpc.GetTargetUri()
		g := t.GoogleGrpc
		// What asks for TLS or for credentials is not there yet.
		if g.GetChannelCredentials() != nil || len(g.GetCallCredentials()) > 0 || g.GetCredentialsFactoryName() != "" ||
			len(g.GetChannelCredentialsPlugin()) > 0 || len(g.GetCallCredentialsPlugin()) > 0 {
			w.fail(path+".google_grpc", errors.New("credentials not supported yet"))
		}
		if g.GetChannelArgs() != nil || g.GetPerStreamBufferLimitBytes() != nil {
			w.unbuilt = append(w.unbuilt, path+".google_grpc.channel_args")
		}
	}
	return out
}

// never is longer than any process lives.
const never = 1 << 62
