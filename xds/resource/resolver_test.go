package resource

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
)

func TestADumpSurvivesAnAnyOfUnknownType(t *testing.T) {
	m := &corev3.TypedExtensionConfig{Name: "n", TypedConfig: &anypb.Any{TypeUrl: "type.googleapis.com/foo.bar.Baz", Value: []byte{8, 1}}}
	b, err := protojson.MarshalOptions{Resolver: NewResolver()}.Marshal(m)
	if err != nil || !strings.Contains(string(b), "foo.bar.Baz") {
		t.Errorf("%s, %v", b, err)
	}
	if _, err := NewResolver().FindMessageByURL("type.googleapis.com/not a name"); err == nil {
		t.Error("found a type without a name")
	}
}

// The types that real control planes send must decode by name.
func TestFilterTypesAreLinked(t *testing.T) {
	for _, name := range []string{
		"envoy.extensions.filters.network.rbac.v3.RBAC",
		"envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit",
		"envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
		"envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
		"envoy.extensions.filters.http.router.v3.Router",
		"envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
		"envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
		"envoy.extensions.access_loggers.file.v3.FileAccessLog",
		"envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
		"envoy.extensions.clusters.dns.v3.DnsCluster",
		"envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
		"envoy.service.discovery.v3.DiscoveryResponse",
		"udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct", "xds.type.matcher.v3.Matcher",
	} {
		if !Linked("type.googleapis.com/" + name) {
			t.Errorf("%s is not linked", name)
		}
	}
	n := 0
	protoregistry.GlobalTypes.RangeMessages(func(protoreflect.MessageType) bool { n++; return true })
	if n < 1400 {
		t.Errorf("only %d messages are linked", n)
	}
}
