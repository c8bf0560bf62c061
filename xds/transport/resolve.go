package transport

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/xds/resolve"
)

// answer is what a name was resolved to.
type answer struct {
	addrs []netip.Addr
	until time.Time
}

// candidates are all addresses that can be connected to, names resolved. A name
// that cannot be resolved any more keeps its last addresses; without any it is
// left out, and an error only if nothing else is there.
func (p *peer) candidates(ctx context.Context) ([]target, error) {
	var out []target
	var failed error
	for _, e := range p.Endpoints {
		if e.Host == "" {
			out = append(out, target{Endpoint: e})
			continue
		}
		addrs, err := p.resolve(ctx, e.Host)
		if err != nil {
			failed = err
		}
		for _, a := range addrs {
			out = append(out, target{Endpoint: Endpoint{Addr: netip.AddrPortFrom(a, e.Port)}, host: e.Host})
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case failed != nil:
		return nil, failed
	}
	return nil, errNoEndpoint
}

func (p *peer) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	known := p.answers[host]
	if time.Now().Before(known.until) {
		return known.addrs, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout())
	defer cancel()
	dns := p.dns()
	found, err := p.resolver.Lookup(ctx, host, either(dns.Family))
	addrs := pick(found, dns.Family)
	if err == nil && len(addrs) == 0 {
		err = fmt.Errorf("no address of family %s", dns.Family)
	}
	if err != nil {
		return known.addrs, fmt.Errorf("resolve %s: %w", host, err)
	}
	hold := dns.Refresh
	if ttl := found[0].TTL; dns.RespectTTL && ttl > 0 {
		hold = max(ttl, dns.MinRefresh)
	}
	p.answers[host] = answer{addrs: addrs, until: time.Now().Add(hold)}
	return addrs, nil
}

// dns is what the cluster says of names; that of a google_grpc says nothing.
func (p *peer) dns() api.DNS {
	if p.DNS == nil {
		return api.DNS{Refresh: api.DefaultDNSRefreshRate}
	}
	return *p.DNS
}

// either is what is asked for: Envoy takes the other family only if there is none
// of the preferred one; here the other one is tried when nobody answers there.
func either(f api.DNSFamily) api.DNSFamily {
	if f == api.DNSV4Only || f == api.DNSV6Only {
		return f
	}
	return api.DNSAll
}

// pick puts those of the preferred family first.
func pick(in []resolve.Address, f api.DNSFamily) []netip.Addr {
	var v4, v6 []netip.Addr
	for _, a := range in {
		if a.Addr.Is4() {
			v4 = append(v4, a.Addr)
		} else {
			v6 = append(v6, a.Addr)
		}
	}
	if f == api.DNSV4Preferred {
		return slices.Concat(v4, v6)
	}
	return slices.Concat(v6, v4)
}
