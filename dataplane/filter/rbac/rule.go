package rbac

import (
	"net/netip"
	"slices"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/match"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// rule is an api.RBACRule made ready.
type rule func(*stream.Info) bool

func newRules(in []api.RBACRule) []rule {
	out := make([]rule, len(in))
	for i := range in {
		out[i] = newRule(&in[i])
	}
	return out
}

func oneOf(rules []rule, i *stream.Info) bool {
	return slices.ContainsFunc(rules, func(holds rule) bool { return holds(i) })
}

func newRule(r *api.RBACRule) rule {
	switch {
	case r.Const != nil:
		always := *r.Const
		return func(*stream.Info) bool { return always }
	case r.And != nil:
		all := newRules(r.And)
		return func(i *stream.Info) bool {
			return !slices.ContainsFunc(all, func(holds rule) bool { return !holds(i) })
		}
	case r.Or != nil:
		any := newRules(r.Or)
		return func(i *stream.Info) bool { return oneOf(any, i) }
	case r.Not != nil:
		inner := newRule(r.Not)
		return func(i *stream.Info) bool { return !inner(i) }
	case r.Local != nil:
		return within(r.Local, func(i *stream.Info) netip.AddrPort { return i.Local() })
	case r.Remote != nil:
		return within(r.Remote, func(i *stream.Info) netip.AddrPort { return i.Remote() })
	case r.Direct != nil:
		return within(r.Direct, func(i *stream.Info) netip.AddrPort { return i.DirectRemote() })
	case r.LocalPorts != nil:
		ports := *r.LocalPorts
		return func(i *stream.Info) bool {
			// On a unix socket there is no port.
			local := i.Local()
			return local.IsValid() && ports.First <= local.Port() && local.Port() <= ports.Last
		}
	case r.ServerName != nil:
		holds := match.NewString(r.ServerName)
		return func(i *stream.Info) bool { return holds(i.Hello().ServerName) }
	case r.Metadata != nil:
		return NewMetadata(r.Metadata)
	case r.FilterState != nil:
		return newFilterState(r.FilterState)
	case r.Authenticated != nil:
		return newAuthenticated(r.Authenticated)
	case r.MutualTLS != nil:
		return newMutualTLS(r.MutualTLS)
	}
	return func(*stream.Info) bool { return false }
}

func within(p *netip.Prefix, of func(*stream.Info) netip.AddrPort) rule {
	prefix := *p
	return func(i *stream.Info) bool { return prefix.Contains(of(i).Addr()) }
}

func newFilterState(m *api.FilterStateMatch) rule {
	key, invert := m.Key, m.Invert
	if m.Value != nil {
		holds := match.NewString(m.Value)
		return func(i *stream.Info) bool {
			o, ok := i.State()[key]
			return ok && holds(o.Value)
		}
	}
	ranges := m.Ranges
	return func(i *stream.Info) bool {
		o := i.State()[key]
		if !o.Address {
			return false
		}
		a, err := netip.ParseAddrPort(o.Value)
		if err != nil {
			return false
		}
		return slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(a.Addr().Unmap()) }) != invert
	}
}
