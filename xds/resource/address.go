package resource

import (
	"fmt"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func addressPolicies() policies {
	return policies{
		"envoy.config.core.v3.Address": policy{}.
			fields(inside, "socket_address").
			fields(refused, "pipe", "envoy_internal_address"),
		"envoy.config.core.v3.SocketAddress": policy{}.
			fields(built, "address", "port_value", "ipv4_compat").
			// A resolver could make another address of it; the namespace is another
			// network.
			fields(refused, "network_namespace_filepath").
			judge(func(v protoreflect.Value) (decision, string) {
				return refused, "Unknown address resolver: " + short(v.String())
			}, "resolver_name").
			judge(func(protoreflect.Value) (decision, string) {
				return refused, "IP resolver can't handle port specifier type 4"
			}, "named_port").
			judge(func(v protoreflect.Value) (decision, string) {
				if v.Enum() == protoreflect.EnumNumber(corev3.SocketAddress_TCP) {
					return built, ""
				}
				return refused, ""
			}, "protocol"),
	}
}

// Addr reads an address that must be an IP address with a port. compat is
// ipv4_compat. The errors carry the field's path below path.
func Addr(path string, a *corev3.Address) (addr netip.AddrPort, compat bool, err error) {
	w := walker{policies: table()}
	w.message(path, a.ProtoReflect())
	if addr, compat = w.addr(path, a); len(w.errs) > 0 {
		return netip.AddrPort{}, false, w.err()
	}
	return addr, compat, nil
}

// addr reads an address that the walker has been through: what the policies
// refuse is an error already.
func (w *walker) addr(path string, a *corev3.Address) (addr netip.AddrPort, compat bool) {
	s := a.GetSocketAddress()
	if s == nil {
		return netip.AddrPort{}, false
	}
	path += ".socket_address"
	ip, err := netip.ParseAddr(s.GetAddress())
	if err != nil {
		w.fail(path+".address", fmt.Errorf("malformed IP address: %s", short(s.GetAddress())))
		return netip.AddrPort{}, false
	}
	if ip.Zone() != "" {
		w.fail(path+".address", fmt.Errorf("IPv6 scope not supported yet (%q)", short(s.GetAddress())))
	}
	addr = netip.AddrPortFrom(ip, uint16(s.GetPortValue())) // the proto bounds it
	if s.GetIpv4Compat() && ip != netip.IPv6Unspecified() && !ip.Is4In6() {
		w.fail(path+".ipv4_compat", fmt.Errorf("Only IPv6 address '::' or valid IPv4-mapped IPv6 address can set ipv4_compat: %s", addr))
	}
	return addr, s.GetIpv4Compat()
}
