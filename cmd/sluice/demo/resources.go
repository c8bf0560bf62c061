package demo

import (
	"fmt"
	"net/netip"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

const (
	clusterName = "backends"
	// statPrefix of the listener's tcp_proxy.
	statPrefix = "demo"
)

// bootstrap of the proxy: everything else comes over delta ADS.
const bootstrap = `node: {id: demo, cluster: demo}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
dynamic_resources:
  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: control-plane}}]}
  lds_config: {resource_api_version: V3, ads: {}}
  cds_config: {resource_api_version: V3, ads: {}}
static_resources:
  clusters:
  - name: control-plane
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: control-plane
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %q, port_value: %d}}}}]}]
`

func (o order) snapshot() (*cachev3.Snapshot, error) {
	good, err := listener("good", o.Listener, clusterName)
	if err != nil {
		return nil, err
	}
	listeners := []types.Resource{good}
	if o.Bad {
		// A tcp_proxy that names no cluster: there is nowhere to send bytes.
		bad, err := listener("bad", "127.0.0.1:9", "")
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, bad)
	}
	endpoint, err := address(o.Endpoint)
	if err != nil {
		return nil, err
	}
	s, err := cachev3.NewSnapshot(o.Version, map[resourcev3.Type][]types.Resource{
		resourcev3.ListenerType: listeners,
		resourcev3.ClusterType: {&clusterv3.Cluster{Name: clusterName, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
			EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3,
				ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}}}},
		resourcev3.EndpointType: {&endpointv3.ClusterLoadAssignment{ClusterName: clusterName, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: endpoint}}}}}}}},
	})
	if err != nil {
		return nil, fmt.Errorf("build snapshot %s: %w", o.Version, err)
	}
	return s, nil
}

func listener(name, at, cluster string) (*listenerv3.Listener, error) {
	a, err := address(at)
	if err != nil {
		return nil, err
	}
	proxy := &tcpproxyv3.TcpProxy{StatPrefix: statPrefix}
	if cluster != "" {
		proxy.ClusterSpecifier = &tcpproxyv3.TcpProxy_Cluster{Cluster: cluster}
	}
	packed, err := anypb.New(proxy)
	if err != nil {
		return nil, fmt.Errorf("build listener %s: %w", name, err)
	}
	return &listenerv3.Listener{Name: name, Address: a, FilterChains: []*listenerv3.FilterChain{{
		Filters: []*listenerv3.Filter{{Name: "envoy.filters.network.tcp_proxy", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed}}}}}}, nil
}

func address(s string) (*corev3.Address, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, fmt.Errorf("read address of an order: %w", err)
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: a.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())}}}}, nil
}
