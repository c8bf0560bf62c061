package resource

import (
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// The messages that must be decided field by field, whatever the tables say.
var mustDecide = []protoreflect.FullName{
	"envoy.config.listener.v3.Listener",
	"envoy.config.listener.v3.AdditionalAddress",
	"envoy.config.listener.v3.FilterChain",
	"envoy.config.listener.v3.FilterChainMatch",
	"envoy.config.listener.v3.Filter",
	"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
	"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
	"envoy.config.route.v3.RouteConfiguration",
	"envoy.config.route.v3.VirtualHost",
	"envoy.config.route.v3.Route",
	"envoy.config.route.v3.RouteMatch",
	"envoy.config.route.v3.RouteAction",
	"envoy.config.cluster.v3.Cluster",
	"envoy.config.cluster.v3.Cluster.CommonLbConfig",
	"envoy.config.cluster.v3.Cluster.LeastRequestLbConfig",
	"envoy.config.cluster.v3.Cluster.EdsClusterConfig",
	"envoy.config.cluster.v3.CircuitBreakers",
	"envoy.config.cluster.v3.CircuitBreakers.Thresholds",
	"envoy.config.cluster.v3.OutlierDetection",
	"envoy.config.core.v3.HealthCheck",
	"envoy.config.endpoint.v3.Endpoint.HealthCheckConfig",
	"envoy.config.endpoint.v3.ClusterLoadAssignment",
	"envoy.config.endpoint.v3.ClusterLoadAssignment.Policy",
	"envoy.config.endpoint.v3.LocalityLbEndpoints",
	"envoy.config.endpoint.v3.LbEndpoint",
	"envoy.config.endpoint.v3.Endpoint",
	"envoy.config.core.v3.Address",
	"envoy.config.core.v3.SocketAddress",
	"envoy.config.core.v3.ConfigSource",
	"envoy.config.core.v3.ApiConfigSource",
	"envoy.config.core.v3.GrpcService",
	"envoy.config.core.v3.GrpcService.EnvoyGrpc",
	"envoy.config.core.v3.PathConfigSource",
	"envoy.config.core.v3.WatchedDirectory",
	"envoy.config.core.v3.RateLimitSettings",
	"envoy.config.core.v3.ExtensionConfigSource",
	"envoy.config.bootstrap.v3.Bootstrap",
	"envoy.config.bootstrap.v3.Bootstrap.StaticResources",
	"envoy.config.bootstrap.v3.Bootstrap.DynamicResources",
	"envoy.config.bootstrap.v3.ClusterManager",
	"envoy.config.bootstrap.v3.Admin",
}

// holes lists what is wrong with a table: fields without a decision, decisions
// without a field, and messages that are entered without a policy.
func holes(t policies) []string {
	var out []string
	for name, p := range t {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		if err != nil {
			out = append(out, "no such message: "+string(name))
			continue
		}
		fields := d.(protoreflect.MessageDescriptor).Fields()
		for i := range fields.Len() {
			fd := fields.Get(i)
			switch r, ok := p[fd.Name()]; {
			case !ok || r.what == undecided:
				out = append(out, "undecided: "+string(fd.FullName()))
			case r.what == judged && r.judge == nil:
				out = append(out, "judged by nothing: "+string(fd.FullName()))
			case r.what == inside && (fd.Kind() != protoreflect.MessageKind || t[fd.Message().FullName()] == nil):
				out = append(out, "entered without a policy: "+string(fd.FullName()))
			}
		}
		for f := range p {
			if fields.ByName(f) == nil {
				out = append(out, "no such field: "+string(name)+"."+string(f))
			}
		}
	}
	return out
}

func TestEveryFieldOfThePinnedProtosHasADecision(t *testing.T) {
	_ = listenerv3.File_envoy_config_listener_v3_listener_proto
	for _, name := range mustDecide {
		if table()[name] == nil {
			t.Errorf("no policy for %s", name)
		}
	}
	for _, h := range holes(table()) {
		t.Error(h)
	}
}

func TestAHoleInTheTableIsFound(t *testing.T) {
	const cluster = "envoy.config.cluster.v3.Cluster"
	for _, tt := range []struct {
		what  string
		fault func(policies)
	}{
		{"a field without a decision", func(p policies) { delete(p[cluster], "lb_policy") }},
		{"a decision without a field", func(p policies) { p[cluster].fields(noted, "no_such_field") }},
		{"a message entered without a policy", func(p policies) { delete(p, "envoy.config.cluster.v3.CircuitBreakers") }},
		{"a policy for no message", func(p policies) { p["envoy.NoSuch"] = policy{} }},
	} {
		p := allPolicies()
		tt.fault(p)
		if len(holes(p)) == 0 {
			t.Errorf("%s was not found", tt.what)
		}
	}
}

func TestAFieldWithoutDecisionIsRefused(t *testing.T) {
	p := allPolicies()
	delete(p["envoy.config.listener.v3.Listener"], "metadata")
	l := listenerOf(t, `name: l, metadata: {}, address: {socket_address: {address: 127.0.0.1, port_value: 1}}`)
	w := walker{policies: p}
	w.message("", l.ProtoReflect())
	if len(w.errs) != 1 || w.errs[0].Error() != "metadata: not supported yet ({})" {
		t.Fatalf("got %v", w.errs)
	}
}
