package main

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
)

type server struct {
	at    netip.AddrPort
	cache cachev3.SnapshotCache
	stop  func()
	// endpoints is when the newest response with endpoints went out, Unix ns.
	endpoints atomic.Int64
}

func startServer(ctx context.Context) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{at: l.Addr().(*net.TCPAddr).AddrPort(), cache: cachev3.NewSnapshotCache(true, cachev3.IDHash{}, nil)}
	g := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, serverv3.NewServer(ctx, s.cache, serverv3.CallbackFuncs{
		StreamResponseFunc: func(_ context.Context, _ int64, _ *discoveryv3.DiscoveryRequest, r *discoveryv3.DiscoveryResponse) {
			s.sent(r.GetTypeUrl())
		},
		StreamDeltaResponseFunc: func(_ int64, _ *discoveryv3.DeltaDiscoveryRequest, r *discoveryv3.DeltaDiscoveryResponse) {
			s.sent(r.GetTypeUrl())
		},
	}))
	go func() { _ = g.Serve(l) }()
	s.stop = g.Stop
	return s, nil
}

func (s *server) sent(typeURL string) {
	if typeURL == resourcev3.EndpointType {
		s.endpoints.Store(time.Now().UnixNano())
	}
}

func (s *server) push(version string, r map[resourcev3.Type][]types.Resource) error {
	snap, err := cachev3.NewSnapshot(version, r)
	if err != nil {
		return err
	}
	return s.cache.SetSnapshot(context.Background(), "push", snap)
}

func address(a netip.AddrPort) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: a.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())}}}}
}

// host is one of 65 000 addresses of the one back end.
func host(i int, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 4, byte(i >> 8), byte(i)}), port)
}

func listenerAt(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 5, byte(i >> 8), byte(i)}), 10000)
}

// resources are all of them; those of the first cluster begin at host first.
func (o options) resources(port uint16, first int) map[resourcev3.Type][]types.Resource {
	r := map[resourcev3.Type][]types.Resource{}
	for i := range o.clusters {
		name := "cluster-" + strconv.Itoa(i)
		r[resourcev3.ClusterType] = append(r[resourcev3.ClusterType], &clusterv3.Cluster{Name: name,
			ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
			EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3,
				ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}}})
		l := &endpointv3.LocalityLbEndpoints{}
		for e := range o.endpoints {
			at := host((i*o.endpoints+e)%60000+16, port)
			if i == 0 { // the one that is watched has all its endpoints at one place
				at = host(first, port)
				if e > 0 {
					break
				}
			}
			l.LbEndpoints = append(l.LbEndpoints, &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(at)}}})
		}
		r[resourcev3.EndpointType] = append(r[resourcev3.EndpointType], &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{l}})
	}
	for i := range o.listeners {
		tcp, err := anypb.New(&tcpproxyv3.TcpProxy{StatPrefix: "l", ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: "cluster-" + strconv.Itoa(i%o.clusters)}})
		if err != nil {
			panic(err) // the message is written above
		}
		r[resourcev3.ListenerType] = append(r[resourcev3.ListenerType], &listenerv3.Listener{Name: "listener-" + strconv.Itoa(i), Address: address(listenerAt(i)),
			FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{Name: "tcp", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: tcp}}}}}})
	}
	return r
}

type obj = map[string]any

func (o options) bootstrap(server, relay netip.AddrPort, back uint16) obj {
	at := func(a netip.AddrPort) obj {
		return obj{"socket_address": obj{"address": a.Addr().String(), "port_value": a.Port()}}
	}
	cluster := func(name string, a netip.AddrPort) obj {
		return obj{"name": name, "type": "STATIC", "load_assignment": obj{"cluster_name": name, "endpoints": []obj{{"lb_endpoints": []obj{{"endpoint": obj{"address": at(a)}}}}}}}
	}
	xds := cluster("xds", server)
	xds["typed_extension_protocol_options"] = obj{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": obj{
		"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
		"explicit_http_config": obj{"http2_protocol_options": obj{}}}}
	source := obj{"ads": obj{}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
	return obj{
		"node":  obj{"id": "push", "cluster": "push"},
		"admin": obj{"address": at(netip.MustParseAddrPort("127.0.0.1:0"))},
		"dynamic_resources": obj{"lds_config": source, "cds_config": source,
			"ads_config": obj{"api_type": o.api, "transport_api_version": "V3", "grpc_services": []obj{{"envoy_grpc": obj{"cluster_name": "xds"}}}}},
		"static_resources": obj{
			"clusters": []obj{xds, cluster("back", host(0, back))},
			"listeners": []obj{{"name": "relay", "address": at(relay), "filter_chains": []obj{{"filters": []obj{{"name": "tcp", "typed_config": obj{
				"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "relay", "cluster": "back"}}}}}}}},
	}
}
