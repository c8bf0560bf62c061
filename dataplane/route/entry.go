package route

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/api"
)

var (
	all4 = netip.MustParsePrefix("0.0.0.0/0")
	all6 = netip.MustParsePrefix("::/0")
)

// targetsOf are the sockets of a listener as they can be connected to, the first
// of each family.
func targetsOf(l *Listener) (out [2]netip.AddrPort) {
	add := func(family int, a netip.Addr, port uint16) {
		if !out[family].IsValid() {
			out[family] = netip.AddrPortFrom(a, port)
		}
	}
	for i, b := range l.Bound {
		a := b.Addr()
		switch {
		case !b.IsValid():
		case a == netip.IPv4Unspecified():
			add(0, netip.AddrFrom4([4]byte{127, 0, 0, 1}), b.Port())
		case a == netip.IPv6Unspecified():
			add(1, netip.IPv6Loopback(), b.Port())
			if i < len(l.Addresses) && l.Addresses[i].IPv4Compat {
				add(0, netip.AddrFrom4([4]byte{127, 0, 0, 1}), b.Port())
			}
		case a.Unmap().Is4():
			add(0, a.Unmap(), b.Port())
		default:
			add(1, a, b.Port())
		}
	}
	return out
}

// prefixOf is what a listener's address stands for: 0.0.0.0 and :: for every
// address of the family.
func prefixOf(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	switch a {
	case netip.IPv4Unspecified():
		return all4
	case netip.IPv6Unspecified():
		return all6
	}
	return netip.PrefixFrom(a, a.BitLen())
}

func chains(l *api.Listener) []*api.FilterChain {
	if l.DefaultFilterChain == nil {
		return l.FilterChains
	}
	return append(slices.Clip(l.FilterChains), l.DefaultFilterChain)
}

// onlyCluster is the cluster that all chains of a listener proxy to, or empty.
func onlyCluster(l *api.Listener) string {
	only := ""
	for _, c := range chains(l) {
		name := Cluster(c)
		if name == "" || only != "" && name != only {
			return ""
		}
		only = name
	}
	return only
}

// Cluster is the one cluster of a chain's tcp_proxy, or empty.
func Cluster(c *api.FilterChain) string {
	if n := len(c.Filters); n > 0 && c.Filters[n-1].TCPProxy != nil {
		return c.Filters[n-1].TCPProxy.Cluster
	}
	return ""
}

// rules are, by chain, the filters that say who may connect; nil if there are
// none.
func rules(l *api.Listener) (out [][]api.Filter) {
	some := false
	for _, c := range chains(l) {
		var of []api.Filter
		for i := range c.Filters {
			if f := &c.Filters[i]; f.RBAC != nil || f.ExtAuthz != nil {
				of, some = append(of, *f), true
			}
		}
		out = append(out, of)
	}
	if !some {
		return nil
	}
	return out
}

// kindsOf is how a policy is shown: which kinds of filters it is made of.
func kindsOf(rules [][]api.Filter) string {
	var kinds []string
	for _, of := range rules {
		for i := range of {
			kind := "rbac"
			if of[i].ExtAuthz != nil {
				kind = "ext_authz"
			}
			if !slices.Contains(kinds, kind) {
				kinds = append(kinds, kind)
			}
		}
	}
	return strings.Join(kinds, ", ")
}
