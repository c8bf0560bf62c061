package resource

import (
	"fmt"
	"maps"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
)

const (
	typeTCPProxy = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
	typeHTTP     = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)

// noEffect says whether a network filter leaves connections and bytes alone.
// Istio puts both on TCP chains and clusters. The first sends something only
// once ALPN istio-peer-exchange was agreed on, the second counts.
func noEffect(name string) bool {
	return name == "envoy.tcp.metadataexchange.config.MetadataExchange" || name == "stats.PluginConfig"
}

// networkFilter decodes the filters of one type.
type networkFilter struct {
	terminal bool
	decode   func(w *walker, path string, m proto.Message) api.Filter
}

// networkFilters are those that are built, by the full name of their
// configuration's message. Filters are told apart by that, never by their name.
func networkFilters() map[string]networkFilter {
	known := map[string]networkFilter{
		typeTCPProxy: {terminal: true, decode: func(w *walker, path string, m proto.Message) api.Filter {
			return api.Filter{TCPProxy: w.tcpProxy(path, m.(*tcpproxyv3.TcpProxy))}
		}},
		"envoy.extensions.filters.network.echo.v3.Echo": {terminal: true, decode: func(w *walker, path string, m proto.Message) api.Filter {
			w.message(path, m.ProtoReflect())
			return api.Filter{Echo: &api.Echo{}}
		}},
	}
	maps.Copy(known, limitFilters())
	maps.Copy(known, rbacFilters())
	maps.Copy(known, stateFilters())
	maps.Copy(known, forwardFilters())
	maps.Copy(known, extAuthzFilters())
	maps.Copy(known, rateLimitFilters())
	maps.Copy(known, httpManagers())
	return known
}

// filters decodes the network filters of a chain.
func (w *walker) filters(path string, in []*listenerv3.Filter) []api.Filter {
	var out []api.Filter
	known, last := networkFilters(), len(in)-1
	for i, f := range in {
		place := fmt.Sprintf("%s.filters[%d]", path, i)
		w.message(place, f.ProtoReflect())
		if f.GetConfigDiscovery() != nil {
			out = append(out, w.discovered(place, f, i == last))
			continue
		}
		m, name, _, err := open(f.GetTypedConfig())
		inner := anyPath(place, name)
		kind, isBuilt := known[name]
		switch {
		case err != nil:
			w.fail(place, err)
		case isBuilt && kind.terminal && i != last:
			w.fail(inner, fmt.Errorf("Error: terminal filter named %s of type %s must be the last filter in a network filter chain.", short(f.GetName()), factoryName(name)))
		case isBuilt && !kind.terminal && i == last:
			w.fail(inner, notTerminal(f.GetName(), factoryName(name)))
		case isBuilt:
			one := kind.decode(w, inner, m)
			one.Name = f.GetName()
			out = append(out, one)
		case noEffect(name):
			w.unbuilt = append(w.unbuilt, inner)
			if i == last {
				w.fail(inner, notTerminal(f.GetName(), name))
			}
		default:
			cause := unregistered(f.GetName(), f.GetTypedConfig())
			if cause == "" {
				cause = "not supported yet (" + name + ")"
			}
			w.fail(inner, fmt.Errorf("%s", cause))
		}
	}
	return out
}

func notTerminal(filter, kind string) error {
	return fmt.Errorf("Error: non-terminal filter named %s of type %s is the last filter in a network filter chain.", short(filter), kind)
}

// factoryName is what Envoy calls the filters of a type: its folder under
// envoy.filters.network.
func factoryName(message string) string {
	if rest, ok := strings.CutPrefix(message, "envoy.extensions.filters.network."); ok {
		folder, _, _ := strings.Cut(rest, ".")
		return "envoy.filters.network." + folder
	}
	return message
}
