package match

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/api"
)

// slow tells Envoy's rules criterion by criterion: of the chains that are left,
// those stay whose value is the most specific that holds for the connection.
func slow(chains []*api.FilterChain, c *Connection) *api.FilterChain {
	left := slices.Clone(chains)
	keep := func(rank func(m *api.FilterChainMatch) int) {
		best := -1
		for _, f := range left {
			best = max(best, rank(&f.Match))
		}
		left = slices.DeleteFunc(left, func(f *api.FilterChain) bool { return best < 0 || rank(&f.Match) != best })
	}
	exact := func(empty, equal bool) int {
		switch {
		case equal:
			return 1
		case empty:
			return 0
		}
		return -1
	}
	prefix := func(in []netip.Prefix, a netip.Addr) int {
		best := exact(len(in) == 0, false)
		for _, p := range in {
			if p.Contains(a) {
				best = max(best, p.Bits()+1)
			}
		}
		return best
	}
	keep(func(m *api.FilterChainMatch) int {
		return exact(m.DestinationPort == 0, m.DestinationPort == c.Local.Port())
	})
	keep(func(m *api.FilterChainMatch) int { return prefix(m.Prefixes, c.Local.Addr()) })
	keep(func(m *api.FilterChainMatch) int {
		best := exact(len(m.ServerNames) == 0, false)
		for _, n := range m.ServerNames {
			switch {
			case n == c.ServerName:
				best = max(best, 1000)
			case strings.HasPrefix(n, "*.") && strings.HasSuffix(c.ServerName, n[1:]) && len(c.ServerName) >= len(n):
				best = max(best, len(n))
			}
		}
		return best
	})
	keep(func(m *api.FilterChainMatch) int {
		return exact(m.TransportProtocol == "", m.TransportProtocol == cmp.Or(c.TransportProtocol, "raw_buffer"))
	})
	keep(func(m *api.FilterChainMatch) int {
		best := exact(len(m.ApplicationProtocols) == 0, false)
		for i, p := range c.ApplicationProtocols {
			if slices.Contains(m.ApplicationProtocols, p) {
				best = max(best, 100-i)
			}
		}
		return best
	})
	keep(func(m *api.FilterChainMatch) int { return prefix(m.DirectSourcePrefixes, c.Direct.Addr()) })
	local := c.Remote.Addr() == netip.MustParseAddr("127.0.0.1") || c.Remote.Addr() == c.Local.Addr()
	keep(func(m *api.FilterChainMatch) int {
		return exact(m.SourceType == api.SourceAny, m.SourceType == api.SourceSameIPOrLoopback && local || m.SourceType == api.SourceExternal && !local)
	})
	keep(func(m *api.FilterChainMatch) int { return prefix(m.SourcePrefixes, c.Remote.Addr()) })
	keep(func(m *api.FilterChainMatch) int {
		return exact(len(m.SourcePorts) == 0, slices.Contains(m.SourcePorts, c.Remote.Port()))
	})
	if len(left) == 0 {
		return nil
	}
	return left[0]
}

type random struct{ *rand.Rand }

func newRandom(seed uint64) random { return random{rand.New(rand.NewPCG(seed, 1))} }

func (r random) n(n int) int { return r.IntN(n) }

var (
	somePrefixes = []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "127.0.0.0/8", "0.0.0.0/1"}
	someAddrs    = []string{"10.1.2.3", "10.1.2.4", "10.9.9.9", "127.0.0.1", "127.0.0.2", "192.0.2.1"}
	someNames    = []string{"a.b.c", "*.b.c", "*.c", "b.c", "x.c"}
	someALPN     = []string{"h2", "http/1.1", "x"}
)

func some[T any](r random, from []T) (out []T) {
	for _, v := range from {
		if r.n(3*len(from)) == 0 {
			out = append(out, v)
		}
	}
	return out
}

// chains makes a list in which no two ways through the index are the same: what
// xds lets pass.
func (r random) chains(n int) []*api.FilterChain {
	var out []*api.FilterChain
	taken := map[string]bool{}
	for i := range n {
		m := api.FilterChainMatch{
			DestinationPort: []uint16{0, 0, 80, 81}[r.n(4)], TransportProtocol: []string{"", "", "tls", "raw_buffer"}[r.n(4)],
			ServerNames: some(r, someNames), ApplicationProtocols: some(r, someALPN), SourceType: api.SourceType(r.n(3)),
			SourcePorts: some(r, []uint16{1, 2}),
		}
		for _, dst := range []*[]netip.Prefix{&m.Prefixes, &m.DirectSourcePrefixes, &m.SourcePrefixes} {
			*dst = pre(some(r, somePrefixes)...)
		}
		c := chain(fmt.Sprint(i), m)
		clash := false
		for _, w := range ways([]*api.FilterChain{c}) {
			one := *w
			one.chain = nil
			key := fmt.Sprint(one)
			clash = clash || taken[key]
			taken[key] = true
		}
		if !clash {
			out = append(out, c)
		}
	}
	return out
}

func (r random) connection() Connection {
	a := func() netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr(someAddrs[r.n(len(someAddrs))]), uint16(r.n(3)+1))
	}
	c := Connection{Local: a(), Remote: a(), Direct: a(), TransportProtocol: []string{"", "tls", "raw_buffer"}[r.n(3)]}
	c.Local = netip.AddrPortFrom(c.Local.Addr(), []uint16{80, 81, 82}[r.n(3)])
	c.ServerName = []string{"", "a.b.c", "z.b.c", "b.c", "x.c", "other"}[r.n(6)]
	for _, p := range someALPN {
		if r.n(2) == 0 {
			c.ApplicationProtocols = append(c.ApplicationProtocols, p)
		}
	}
	return c
}
