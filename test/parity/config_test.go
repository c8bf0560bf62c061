package parity

import (
	"net/netip"
)

// obj is a JSON object: configuration is written as an operator would.
type obj map[string]any

// with returns o with more fields.
func (o obj) with(more obj) obj {
	for k, v := range more {
		o[k] = v
	}
	return o
}

// static is a bootstrap with static resources only.
func static(listeners, clusters []obj) obj {
	return obj{"node": obj{"id": "parity", "cluster": "parity"},
		"static_resources": obj{"listeners": listeners, "clusters": clusters}}
}

func address(ap netip.AddrPort) obj {
	return obj{"socket_address": obj{"address": ap.Addr().String(), "port_value": ap.Port()}}
}

// listener listens on a free port of 127.0.0.1 and gives its stats its name.
func listener(name string, chains ...obj) obj {
	return obj{"name": name, "stat_prefix": name, "address": address(netip.MustParseAddrPort("127.0.0.1:0")), "filter_chains": chains}
}

func chain(filters ...obj) obj { return obj{"filters": append([]obj{}, filters...)} }

// tcpProxy has its cluster's name for a stat prefix.
func tcpProxy(cluster string) obj {
	return obj{"name": "envoy.filters.network.tcp_proxy", "typed_config": obj{
		"@type":       "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
		"stat_prefix": cluster, "cluster": cluster}}
}

// set sets a field of the filter's configuration.
func (o obj) set(field string, value any) obj {
	o["typed_config"].(obj)[field] = value
	return o
}

// proxyTo is a listener with the single job to proxy to cluster.
func proxyTo(name, cluster string) obj { return listener(name, chain(tcpProxy(cluster))) }

func cluster(name string, endpoints ...obj) obj {
	return obj{"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": assignment(name, endpoints...)}
}

func assignment(name string, endpoints ...obj) obj {
	return obj{"cluster_name": name, "endpoints": []obj{{"lb_endpoints": append([]obj{}, endpoints...)}}}
}

func endpoint(ap netip.AddrPort) obj { return obj{"endpoint": obj{"address": address(ap)}} }
