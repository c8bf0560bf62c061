package transport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// Read decodes a cluster that passed its constraints. Errors begin with the
// field's path; what is refused here is what a connection could not be made by,
// or would be made to another place or less securely by.
func Read(p *clusterv3.Cluster) (*Cluster, error) {
	c := &Cluster{Name: p.GetName(), ConnectTimeout: p.GetConnectTimeout().AsDuration()}
	switch p.GetType() {
	case clusterv3.Cluster_STATIC:
	default:
		return nil, fmt.Errorf("type: not supported yet for a control plane (%s)", p.GetType())
	}
	if t := p.GetTransportSocket(); t != nil && t.GetTypedConfig().MessageName() != "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" {
		return nil, fmt.Errorf("transport_socket: not supported yet (%s)", t.GetTypedConfig().MessageName())
	}
	if k := p.GetUpstreamConnectionOptions().GetTcpKeepalive(); k != nil {
		c.TCP = net.KeepAliveConfig{
			Enable: true,
			// -1 leaves the kernel's setting, 0 would be Go's own.
			Count:    orKernel(int(k.GetKeepaliveProbes().GetValue())),
			Idle:     time.Duration(orKernel(int(k.GetKeepaliveTime().GetValue()))) * time.Second,
			Interval: time.Duration(orKernel(int(k.GetKeepaliveInterval().GetValue()))) * time.Second,
		}
	}
	for i, l := range p.GetLoadAssignment().GetEndpoints() {
		for j, e := range l.GetLbEndpoints() {
			path := fmt.Sprintf("load_assignment.endpoints[%d].lb_endpoints[%d].endpoint.address", i, j)
			one, err := readEndpoint(path, e.GetEndpoint().GetAddress())
			if err != nil {
				return nil, err
			}
			c.Endpoints = append(c.Endpoints, one)
		}
	}
	if len(c.Endpoints) == 0 {
		return nil, errors.New("load_assignment: no endpoints")
	}
	return c, nil
}

func orKernel(n int) int {
	if n == 0 {
		return -1
	}
	return n
}

func readEndpoint(path string, a *corev3.Address) (Endpoint, error) {
	if p := a.GetPipe(); p != nil {
		return Endpoint{Path: p.GetPath()}, nil
	}
	s := a.GetSocketAddress()
	if s == nil {
		return Endpoint{}, fmt.Errorf("%s: neither socket_address nor pipe", path)
	}
	ip, err := netip.ParseAddr(s.GetAddress())
	if err != nil {
		return Endpoint{}, fmt.Errorf("%s.socket_address.address: malformed IP address: %s", path, s.GetAddress())
	}
	return Endpoint{Addr: netip.AddrPortFrom(ip, uint16(s.GetPortValue()))}, nil
}
