// Package resolve turns names into addresses: for the clusters that find their
// hosts by DNS, and for connections to control planes.
//
// It does what Envoy's resolvers do: the one on c-ares reads /etc/hosts and asks
// the servers of /etc/resolv.conf, or others, and knows TTLs; the other one is
// getaddrinfo. A name that does not exist, or has no address of the family, is an
// answer without addresses and no error.
package resolve

import (
	"context"
	"net/netip"
	"slices"

	"github.com/sluice-proxy/sluice/api"
)

// Address is an address of a name.
type Address = api.ResolvedAddress

// Resolver resolves names. Its methods may be called from any goroutine, and take
// as long as ctx and its own bounds allow.
type Resolver interface {
	// Lookup returns the addresses of name that the family asks for, each once.
	Lookup(ctx context.Context, name string, family api.DNSFamily) ([]Address, error)
}

// New returns the resolver that c asks for.
func New(c api.Resolver) Resolver { return (*Figures)(nil).New(c) }

// byFamily asks for one version of IP after the other.
type byFamily struct {
	ask     func(ctx context.Context, name string, six bool) ([]Address, error)
	figures *Figures
}

func (f byFamily) one(ctx context.Context, name string, six bool) ([]Address, error) {
	return f.figures.counted(func() ([]Address, error) { return f.ask(ctx, name, six) })
}

func (f byFamily) Lookup(ctx context.Context, name string, family api.DNSFamily) ([]Address, error) {
	if ip, err := netip.ParseAddr(name); err == nil {
		ip = ip.Unmap()
		if ip.Is4() && family == api.DNSV6Only || ip.Is6() && family == api.DNSV4Only {
			return nil, nil
		}
		return []Address{{Addr: ip}}, nil
	}
	switch family {
	case api.DNSV4Only:
		return unique(f.one(ctx, name, false))
	case api.DNSV6Only:
		return unique(f.one(ctx, name, true))
	case api.DNSAll:
		return f.figures.counted(func() ([]Address, error) { return f.both(ctx, name) }) // one question to c-ares
	}
	first := family == api.DNSAuto // IPv6 comes first
	all, err := unique(f.one(ctx, name, first))
	if err == nil && len(all) > 0 || ctx.Err() != nil {
		return all, err
	}
	return unique(f.one(ctx, name, !first))
}

// both fails only if both questions do.
func (f byFamily) both(ctx context.Context, name string) ([]Address, error) {
	type answer struct {
		all []Address
		err error
	}
	six := make(chan answer, 1)
	go func() {
		all, err := f.ask(ctx, name, true)
		six <- answer{all, err}
	}()
	all, err := f.ask(ctx, name, false)
	other := <-six
	if err != nil && other.err != nil {
		return nil, err
	}
	return unique(append(all, other.all...), nil)
}

// unique keeps the first of each address, with the shortest of its TTLs.
func unique(in []Address, err error) ([]Address, error) {
	if err != nil {
		return nil, err
	}
	out := in[:0]
	for _, a := range in {
		a.Addr = a.Addr.Unmap()
		if i := slices.IndexFunc(out, func(o Address) bool { return o.Addr == a.Addr }); i >= 0 {
			out[i].TTL = min(out[i].TTL, a.TTL)
			continue
		}
		out = append(out, a)
	}
	return out, nil
}
