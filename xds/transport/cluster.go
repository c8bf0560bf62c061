package transport

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dnsclusterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// Read decodes a cluster that passed its constraints, with the static secrets by
// name. Errors begin with the field's path; what is refused is what a connection
// could not be made by, or would be made to another place or less securely by.
// What balances, counts or checks traffic has no meaning here.
func Read(p *clusterv3.Cluster, known map[string]*tlsv3.Secret) (*Cluster, error) {
	c := &Cluster{Name: p.GetName()}
	var err error
	if c.ConnectTimeout, err = resource.Duration("connect_timeout", p.GetConnectTimeout(), defaultConnectTimeout); err != nil {
		return nil, err
	}
	names, err := c.discovery(p)
	if err != nil {
		return nil, err
	}
	if len(p.GetTransportSocketMatches()) > 0 {
		return nil, fmt.Errorf("transport_socket_matches: not supported yet for a control plane")
	}
	if c.TLS, err = transportSocket(p.GetTransportSocket(), known); err != nil {
		return nil, err
	}
	if c.Source, err = bindAddress(p.GetUpstreamBindConfig()); err != nil {
		return nil, err
	}
	c.TCP = tcpKeepAlive(p.GetUpstreamConnectionOptions().GetTcpKeepalive())
	if c.KeepAlive, err = http2KeepAlive(p); err != nil {
		return nil, err
	}
	return c, c.endpoints(p, names)
}

// discovery reads how the endpoints are found, and whether they may be names.
func (c *Cluster) discovery(p *clusterv3.Cluster) (names bool, err error) {
	if p.GetLoadAssignment() == nil && p.GetEdsClusterConfig() != nil {
		return false, fmt.Errorf("type: a control plane's endpoints cannot come from it (EDS)")
	}
	named := p.GetClusterType() == nil && (p.GetType() == clusterv3.Cluster_STRICT_DNS || p.GetType() == clusterv3.Cluster_LOGICAL_DNS)
	if t := p.GetClusterType(); t != nil {
		if t.GetTypedConfig().MessageIs(&dnsclusterv3.DnsCluster{}) {
			named = true
		} else {
			return false, fmt.Errorf("cluster_type: not supported yet for a control plane (%s)", t.GetTypedConfig().MessageName())
		}
	}
	switch {
	case named:
		c.DNS, err = resource.DNS(p)
		return true, err
	case p.GetType() == clusterv3.Cluster_STATIC:
		return false, nil
	}
	return false, fmt.Errorf("type: not supported yet for a control plane (%s)", p.GetType())
}

// endpoints lists those that may be used, or all if none may.
func (c *Cluster) endpoints(p *clusterv3.Cluster, names bool) error {
	var bad []Endpoint
	for i, l := range p.GetLoadAssignment().GetEndpoints() {
		for j, e := range l.GetLbEndpoints() {
			path := fmt.Sprintf("load_assignment.endpoints[%d].lb_endpoints[%d].endpoint.address", i, j)
			one, err := readEndpoint(path, e.GetEndpoint().GetAddress(), names)
			if err != nil {
				return err
			}
			switch e.GetHealthStatus() {
			case corev3.HealthStatus_UNHEALTHY, corev3.HealthStatus_DRAINING, corev3.HealthStatus_TIMEOUT:
				bad = append(bad, one)
			default:
				c.Endpoints = append(c.Endpoints, one)
			}
		}
	}
	if len(c.Endpoints) == 0 {
		c.Endpoints = bad
	}
	return nil
}

func readEndpoint(path string, a *corev3.Address, names bool) (Endpoint, error) {
	if p := a.GetPipe(); p != nil {
		return Endpoint{Path: p.GetPath()}, nil
	}
	s := a.GetSocketAddress()
	if s == nil {
		return Endpoint{}, fmt.Errorf("%s: neither socket_address nor pipe", path)
	}
	ip, err := netip.ParseAddr(s.GetAddress())
	switch {
	case err == nil:
		return Endpoint{Addr: netip.AddrPortFrom(ip, uint16(s.GetPortValue()))}, nil
	case names:
		return Endpoint{Host: s.GetAddress(), Port: uint16(s.GetPortValue())}, nil
	}
	return Endpoint{}, fmt.Errorf("%s.socket_address.address: malformed IP address: %s. Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'",
		path, resource.Short(s.GetAddress()))
}

func bindAddress(b *corev3.BindConfig) (netip.Addr, error) {
	if b == nil {
		return netip.Addr{}, nil
	}
	if len(b.GetSocketOptions())+len(b.GetExtraSourceAddresses()) > 0 || b.GetFreebind().GetValue() || b.GetLocalAddressSelector() != nil {
		return netip.Addr{}, fmt.Errorf("upstream_bind_config: not supported yet for a control plane, except for source_address")
	}
	a := b.GetSourceAddress()
	ip, err := netip.ParseAddr(a.GetAddress())
	if err != nil || a.GetPortValue() != 0 {
		return netip.Addr{}, fmt.Errorf("upstream_bind_config.source_address: not an IP address with port 0 (%s:%d)", resource.Short(a.GetAddress()), a.GetPortValue())
	}
	return ip, nil
}

// tcpKeepAlive: what is not set is the kernel's, which Go calls -1.
func tcpKeepAlive(k *corev3.TcpKeepalive) net.KeepAliveConfig {
	if k == nil {
		return net.KeepAliveConfig{}
	}
	or := func(n uint32, unit time.Duration) time.Duration {
		if n == 0 {
			return -1
		}
		return time.Duration(n) * unit
	}
	return net.KeepAliveConfig{
		Enable:   true,
		Count:    int(or(k.GetKeepaliveProbes().GetValue(), 1)),
		Idle:     or(k.GetKeepaliveTime().GetValue(), time.Second),
		Interval: or(k.GetKeepaliveInterval().GetValue(), time.Second),
	}
}

const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

func http2KeepAlive(p *clusterv3.Cluster) (KeepAlive, error) {
	path, o := "http2_protocol_options", p.GetHttp2ProtocolOptions()
	if a := p.GetTypedExtensionProtocolOptions()[httpOptions]; a != nil {
		h := &httpv3.HttpProtocolOptions{}
		if err := a.UnmarshalTo(h); err != nil {
			return KeepAlive{}, fmt.Errorf("typed_extension_protocol_options[%s]: %w", httpOptions, err)
		}
		path, o = "typed_extension_protocol_options["+httpOptions+"].http2_protocol_options", h.GetExplicitHttpConfig().GetHttp2ProtocolOptions()
		if o == nil {
			o = h.GetUseDownstreamProtocolConfig().GetHttp2ProtocolOptions()
		}
	}
	k := o.GetConnectionKeepalive()
	if k == nil {
		return KeepAlive{}, nil
	}
	interval, err := resource.Duration(path+".connection_keepalive.interval", k.GetInterval(), 0)
	if err != nil {
		return KeepAlive{}, err
	}
	timeout, err := resource.Duration(path+".connection_keepalive.timeout", k.GetTimeout(), 0)
	return KeepAlive{Interval: interval, Timeout: timeout}, err
}
