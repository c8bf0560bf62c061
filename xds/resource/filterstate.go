package resource

import (
	"fmt"
	"strings"

	setstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	networkstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
)

// stateFilters are those that set filter state.
func stateFilters() map[string]networkFilter {
	return map[string]networkFilter{
		"envoy.extensions.filters.network.set_filter_state.v3.Config": {decode: func(w *walker, path string, m proto.Message) api.Filter {
			return api.Filter{SetFilterState: w.setFilterState(path, m.(*networkstatev3.Config))}
		}},
		"envoy.extensions.filters.network.sni_cluster.v3.SniCluster": {decode: func(w *walker, path string, m proto.Message) api.Filter {
			w.message(path, m.ProtoReflect())
			return api.Filter{SNICluster: &api.SNICluster{}}
		}},
	}
}

func statePolicies() policies {
	return policies{
		"envoy.extensions.filters.network.sni_cluster.v3.SniCluster": policy{},
		"envoy.extensions.filters.network.set_filter_state.v3.Config": policy{}.
			fields(inside, "on_new_connection", "on_downstream_tls_handshake", "on_downstream_data"),
		"envoy.extensions.filters.common.set_filter_state.v3.FilterStateValue": policy{}.
			fields(built, "object_key", "factory_key", "format_string", "shared_with_upstream", "skip_if_empty").
			fields(noted, "read_only"), // Envoy ignores it too
	}
}

func (w *walker) setFilterState(path string, p *networkstatev3.Config) *api.SetFilterState {
	w.message(path, p.ProtoReflect())
	out := &api.SetFilterState{
		OnConnection: w.filterStateValues(path+".on_new_connection", p.GetOnNewConnection()),
		OnData:       w.filterStateValues(path+".on_downstream_data", p.GetOnDownstreamData()),
	}
	// Without TLS there is no handshake to wait for.
	out.OnConnection = append(out.OnConnection, w.filterStateValues(path+".on_downstream_tls_handshake", p.GetOnDownstreamTlsHandshake())...)
	return out
}

// objectKinds are Envoy's factories of filter state objects, seen on 1.40.
func objectKinds() map[string]api.ObjectKind {
	kinds := map[string]api.ObjectKind{}
	for kind, names := range map[api.ObjectKind]string{
		api.ObjectText: "envoy.string envoy.bool envoy.tcp_proxy.cluster envoy.tcp_proxy.disable_tunneling " +
			"envoy.network.upstream_server_name envoy.network.application_protocols envoy.network.upstream_subject_alt_names " +
			"envoy.network.network_namespace envoy.upstream.dynamic_host",
		api.ObjectNumber:   "envoy.tcp_proxy.per_connection_idle_timeout_ms envoy.upstream.dynamic_port envoy.ratelimit.hits_addend",
		api.ObjectHashable: "envoy.hashable_string",
		api.ObjectIP:       "envoy.network.ip",
		api.ObjectAddress: "envoy.network.transport_socket.original_dst_address envoy.filters.listener.original_dst.local_ip " +
			"envoy.filters.listener.original_dst.remote_ip",
	} {
		for _, n := range strings.Fields(names) {
			kinds[n] = kind
		}
	}
	return kinds
}

// filterStateValues decodes what a set_filter_state, of whatever place, sets.
func (w *walker) filterStateValues(path string, in []*setstatev3.FilterStateValue) (out []api.FilterStateValue) {
	kinds := objectKinds()
	for i, p := range in {
		at := fmt.Sprintf("%s[%d]", path, i)
		v := api.FilterStateValue{Key: p.GetObjectKey(), SkipIfEmpty: p.GetSkipIfEmpty(), Shared: api.ObjectSharing(p.GetSharedWithUpstream())}
		factory, field := p.GetFactoryKey(), "factory_key"
		if factory == "" {
			factory, field = v.Key, "object_key"
		}
		kind, ok := kinds[factory]
		if !ok {
			w.fail(at+"."+field, fmt.Errorf("'%s' does not have an object factory", short(v.Key)))
		}
		v.Kind = kind
		var format api.AccessLog
		w.substitutionFormat(at+".format_string", &format, p.GetFormatString())
		v.Text, v.JSON, v.OmitEmpty = format.Text, format.JSON, format.OmitEmpty
		out = append(out, v)
	}
	return out
}
