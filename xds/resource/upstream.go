package resource

import (
	"errors"
	"fmt"
	"net/netip"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sluice-proxy/sluice/api"
)

// defaultSelector is the local_address_selector that there is.
const defaultSelector = "envoy.config.upstream.local_address_selector.v3.DefaultLocalAddressSelector"

func upstreamPolicies() policies {
	return policies{
		"envoy.config.core.v3.BindConfig": policy{}.
			fields(built, "source_address", "freebind", "socket_options", "extra_source_addresses", "additional_source_addresses").
			// It looks sooner whether a network is there.
			fields(noted, "validate_network_namespaces").
			judge(func(v protoreflect.Value) (decision, string) {
				p, _ := v.Message().Interface().(*corev3.TypedExtensionConfig)
				if innerURL(p.GetTypedConfig()) == defaultSelector {
					return built, ""
				}
				return refused, unregistered(p.GetName(), p.GetTypedConfig())
			}, "local_address_selector"),
		"envoy.config.cluster.v3.UpstreamConnectionOptions": policy{}.
			fields(built, "tcp_keepalive", "happy_eyeballs_config").
			// It is for filters that ask for the name.
			fields(noted, "set_local_interface_name_on_upstream_connections"),
	}
}

// Bind reads the upstream_bind_config of the cluster manager.
func Bind(path string, p *corev3.BindConfig) (*api.BindConfig, error) {
	w := walker{policies: table()}
	if p != nil {
		w.message(path, p.ProtoReflect())
	}
	b := w.bindConfig(path, "Bootstrap", p)
	return b, w.err()
}

// bindConfig reads where connections of who come from.
func (w *walker) bindConfig(path, who string, p *corev3.BindConfig) *api.BindConfig {
	if p == nil {
		return nil
	}
	b := &api.BindConfig{Freebind: tri(p.GetFreebind())}
	own := socketOptions(p.GetSocketOptions())
	add := func(at string, a *corev3.SocketAddress, options []api.SocketOption) {
		b.Sources = append(b.Sources, api.SourceAddress{Addr: w.socketAddr(at, a), Options: options})
	}
	extra, more := p.GetExtraSourceAddresses(), p.GetAdditionalSourceAddresses()
	switch {
	case p.GetSourceAddress() != nil:
		add(path+".source_address", p.GetSourceAddress(), own)
	case len(extra)+len(more) > 0:
		w.fail(path, fmt.Errorf("%s's upstream binding config has extra/additional source addresses but no source_address. Extra/additional addresses cannot be specified if source_address is not set.", who))
		return b
	case len(own) > 0 || b.Freebind != nil:
		b.Sources = []api.SourceAddress{{Options: own}}
	}
	switch {
	case len(extra) > 0 && len(more) > 0:
		w.fail(path, fmt.Errorf("Can't specify both `extra_source_addresses` and `additional_source_addresses` in the %s's upstream binding config", who))
		return b
	case len(extra)+len(more) > 1:
		w.fail(path, fmt.Errorf("%s's upstream binding config has more than one extra/additional source addresses. Only one extra/additional source can be supported in BindConfig's extra_source_addresses/additional_source_addresses field", who))
		return b
	}
	for i, a := range extra {
		options := own
		if a.GetSocketOptions() != nil {
			options = socketOptions(a.GetSocketOptions().GetSocketOptions())
		}
		add(fmt.Sprintf("%s.extra_source_addresses[%d].address", path, i), a.GetAddress(), options)
	}
	for i, a := range more {
		add(fmt.Sprintf("%s.additional_source_addresses[%d]", path, i), a, own)
	}
	if s := b.Sources; len(s) == 2 && s[0].Addr.IsValid() && s[1].Addr.IsValid() && s[0].Addr.Addr().Is4() == s[1].Addr.Addr().Is4() {
		w.fail(path, fmt.Errorf("%s's upstream binding config has two same IP version source addresses. Only two different IP version source addresses can be supported in BindConfig's source_address and extra_source_addresses/additional_source_addresses fields", who))
	}
	return b
}

// socketAddr reads a SocketAddress that stands by itself.
func (w *walker) socketAddr(path string, s *corev3.SocketAddress) netip.AddrPort {
	w.message(path, s.ProtoReflect())
	a, err := netip.ParseAddr(s.GetAddress())
	if err != nil {
		w.fail(path+".address", fmt.Errorf("malformed IP address: %s", short(s.GetAddress())))
	}
	return netip.AddrPortFrom(a, uint16(s.GetPortValue()))
}

// connections reads how connections to hosts are made.
func (w *walker) connections(c *api.Cluster, p *clusterv3.Cluster) {
	if b := p.GetUpstreamBindConfig(); b != nil {
		c.Bind = w.bindConfig("upstream_bind_config", "Cluster "+short(p.GetName()), b)
	}
	o := p.GetUpstreamConnectionOptions()
	c.Keepalive = keepalive(o.GetTcpKeepalive())
	if h := o.GetHappyEyeballsConfig(); h != nil {
		c.Eyeballs = api.HappyEyeballs{Count: uint32Or(h.GetFirstAddressFamilyCount(), 1)}
		if v := h.GetFirstAddressFamilyVersion(); v <= clusterv3.UpstreamConnectionOptions_V6 {
			c.Eyeballs.First = api.AddressFamily(v) // the same numbers
		}
	}
}

// pipe reads the path of a Unix socket to connect to.
func (w *walker) pipe(path string, p *corev3.Pipe) string {
	if len(p.GetPath()) >= maxUnixPath {
		w.fail(path+".path", fmt.Errorf("Path %q exceeds maximum UNIX domain socket path size of %d.", short(p.GetPath()), maxUnixPath))
	}
	return p.GetPath()
}

var errAdditional = errors.New("not supported yet (an additional address that is no IP address)")
