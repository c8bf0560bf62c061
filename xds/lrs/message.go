package lrs

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluice-proxy/sluice/api"
)

// clusterStats is one cluster's part of a report. A connection is a request there;
// TCP tells neither success nor failure of it, and drops none (seen).
func clusterStats(name string, load *api.ClusterLoad, took time.Duration, hosts bool) *endpointv3.ClusterStats {
	s := &endpointv3.ClusterStats{ClusterName: name, ClusterServiceName: load.ServiceName,
		LoadReportInterval: durationpb.New(took.Truncate(time.Microsecond))}
	for _, l := range load.Localities {
		u := &endpointv3.UpstreamLocalityStats{
			Locality: &corev3.Locality{Region: l.Place.Region, Zone: l.Place.Zone, SubZone: l.Place.SubZone}, Priority: l.Priority,
			TotalIssuedRequests: l.Begun, TotalRequestsInProgress: l.Open,
		}
		if hosts {
			for _, h := range l.Hosts {
				u.UpstreamEndpointStats = append(u.UpstreamEndpointStats, &endpointv3.UpstreamEndpointStats{Address: address(&h),
					TotalIssuedRequests: h.Begun, TotalRequestsInProgress: h.Open})
			}
		}
		s.UpstreamLocalityStats = append(s.UpstreamLocalityStats, u)
	}
	return s
}

func address(h *api.HostLoad) *corev3.Address {
	if h.Path != "" {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: h.Path}}}
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: h.Addr.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(h.Addr.Port())}}}}
}
