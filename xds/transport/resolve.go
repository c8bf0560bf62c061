package transport

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
)

// DNS is how names of endpoints are resolved.
type DNS struct {
	// Refresh is how long an answer holds; 5 s if 0. TTLs are not looked at.
	Refresh time.Duration
	// Family says which addresses are taken, and which come first.
	Family clusterv3.Cluster_DnsLookupFamily
}

// defaultRefresh is Envoy's dns_refresh_rate.
const defaultRefresh = 5 * time.Second

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
	addrs, err := p.lookup(ctx, "ip", host)
	if err == nil {
		addrs = p.DNS.pick(addrs)
		if len(addrs) == 0 {
			err = fmt.Errorf("no address of family %s", p.DNS.Family)
		}
	}
	if err != nil {
		return known.addrs, fmt.Errorf("resolve %s: %w", host, err)
	}
	refresh := p.DNS.Refresh
	if refresh == 0 {
		refresh = defaultRefresh
	}
	p.answers[host] = answer{addrs: addrs, until: time.Now().Add(refresh)}
	return addrs, nil
}

// pick orders the addresses: those of the preferred family first. Envoy takes the
// other family only if there is none of the preferred one; here the other one
// gets its turn when a connection fails.
func (d DNS) pick(in []netip.Addr) []netip.Addr {
	var v4, v6 []netip.Addr
	for _, a := range in {
		if a = a.Unmap(); a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	switch d.Family {
	case clusterv3.Cluster_V4_ONLY:
		return v4
	case clusterv3.Cluster_V6_ONLY:
		return v6
	case clusterv3.Cluster_V4_PREFERRED:
		return slices.Concat(v4, v6)
	}
	return slices.Concat(v6, v4)
}

// lookup is net.Resolver's LookupNetIP.
type lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

var _ lookup = (*net.Resolver)(nil).LookupNetIP
