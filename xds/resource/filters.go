package resource

import (
	"fmt"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

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

// needsHTTP finds the first HTTP connection manager.
func needsHTTP(l *listenerv3.Listener) error {
	find := func(path string, c *listenerv3.FilterChain) error {
		for i, f := range c.GetFilters() {
			if innerURL(f.GetTypedConfig()) == typeHTTP {
				return at(fmt.Sprintf("%s.filters[%d]", path, i), ErrHTTP)
			}
		}
		return nil
	}
	for i, c := range l.GetFilterChains() {
		if err := find(fmt.Sprintf("filter_chains[%d]", i), c); err != nil {
			return err
		}
	}
	return find("default_filter_chain", l.GetDefaultFilterChain())
}

// filters decodes the network filters of a chain. They are told apart by the
// type of their configuration, never by their name.
func (w *walker) filters(path string, in []*listenerv3.Filter) []api.Filter {
	var out []api.Filter
	last := len(in) - 1
	for i, f := range in {
		place := fmt.Sprintf("%s.filters[%d]", path, i)
		w.message(place, f.ProtoReflect())
		if f.GetConfigDiscovery() != nil {
			continue // refused
		}
		m, name, _, err := open(f.GetTypedConfig())
		inner := anyPath(place, name)
		switch p, isTCP := m.(*tcpproxyv3.TcpProxy); {
		case err != nil:
			w.fail(place, err)
		case isTCP && i != last:
			w.fail(inner, fmt.Errorf("Error: terminal filter named %s of type envoy.filters.network.tcp_proxy must be the last filter in a network filter chain.", short(f.GetName())))
		case isTCP:
			out = append(out, api.Filter{Name: f.GetName(), TCPProxy: w.tcpProxy(inner, p)})
		case noEffect(name):
			w.unbuilt = append(w.unbuilt, inner)
			if i == last {
				w.fail(inner, fmt.Errorf("Error: non-terminal filter named %s of type %s is the last filter in a network filter chain.", short(f.GetName()), name))
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

func (w *walker) tcpProxy(path string, p *tcpproxyv3.TcpProxy) *api.TCPProxy {
	w.message(path, p.ProtoReflect())
	if p.GetUpstreamConnectMode() != tcpproxyv3.UpstreamConnectMode_IMMEDIATE && p.GetMaxEarlyDataBytes() == nil {
		w.fail(path, fmt.Errorf("max_early_data_bytes must be set when upstream_connect_mode is not IMMEDIATE"))
	}
	t := &api.TCPProxy{
		StatPrefix:         p.GetStatPrefix(),
		Cluster:            p.GetCluster(),
		IdleTimeout:        w.duration(path+".idle_timeout", p.GetIdleTimeout(), api.DefaultIdleTimeout),
		MaxConnectAttempts: api.DefaultMaxConnectAttempts,
	}
	if n := p.GetMaxConnectAttempts(); n != nil {
		t.MaxConnectAttempts = n.GetValue()
	}
	return t
}
