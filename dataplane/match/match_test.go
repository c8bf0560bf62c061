package match

import (
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"testing"

	"github.com/sluice-proxy/sluice/api"
)

type fcm = api.FilterChainMatch

func chain(name string, m fcm) *api.FilterChain { return &api.FilterChain{Name: name, Match: m} }

func pre(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// from is a plain connection.
func from(remote, local string) Connection {
	return Connection{Local: ap(local), Remote: ap(remote), Direct: ap(remote)}
}

// tls is a connection whose ClientHello was seen.
func tls(sni string, alpn ...string) Connection {
	c := from("192.0.2.1:1000", "198.51.100.1:443")
	c.ServerName, c.TransportProtocol, c.ApplicationProtocols = sni, "tls", alpn
	return c
}

func find(chains []*api.FilterChain, def *api.FilterChain, c Connection) string {
	found := New(&api.Listener{FilterChains: chains, DefaultFilterChain: def}).Find(&c)
	if found == nil {
		return ""
	}
	return found.Name
}

// The rules are those of filter_chain_manager_impl.cc; test/parity tells the
// same to Envoy where a plain client can.
func TestFind(t *testing.T) {
	def := chain("default", fcm{})
	type chains = []*api.FilterChain
	for _, tt := range []struct {
		name   string
		chains chains
		c      Connection
		want   string
	}{
		{"exact port wins over none", chains{chain("any", fcm{}), chain("web", fcm{DestinationPort: 80})}, from("192.0.2.1:1", "198.51.100.1:80"), "web"},
		{"another port falls to none", chains{chain("any", fcm{}), chain("web", fcm{DestinationPort: 80})}, from("192.0.2.1:1", "198.51.100.1:81"), "any"},
		{"an exact port that fails later hides the chain without port",
			chains{chain("any", fcm{}), chain("web", fcm{DestinationPort: 80, ServerNames: []string{"a.b"}})}, from("192.0.2.1:1", "198.51.100.1:80"), "default"},
		{"no chain at all", nil, from("192.0.2.1:1", "198.51.100.1:80"), "default"},

		{"longest destination prefix", chains{chain("8", fcm{Prefixes: pre("198.0.0.0/8")}), chain("24", fcm{Prefixes: pre("198.51.100.0/24")}), chain("0", fcm{})}, from("192.0.2.1:1", "198.51.100.1:80"), "24"},
		{"the longest prefix that fails later hides shorter ones",
			chains{chain("8", fcm{Prefixes: pre("198.0.0.0/8")}), chain("24", fcm{Prefixes: pre("198.51.100.0/24"), SourcePorts: []uint16{7}})}, from("192.0.2.1:1", "198.51.100.1:80"), "default"},
		{"no prefix holds it, but one chain has none", chains{chain("8", fcm{Prefixes: pre("10.0.0.0/8")}), chain("any", fcm{})}, from("192.0.2.1:1", "198.51.100.1:80"), "any"},
		{"an IPv6 prefix", chains{chain("6", fcm{Prefixes: pre("2001:db8::/32")}), chain("any", fcm{})}, from("[2001:db8::2]:1", "[2001:db8::1]:80"), "6"},
		{"an IPv4 prefix holds no IPv6 address", chains{chain("4", fcm{Prefixes: pre("0.0.0.0/0")})}, from("[2001:db8::2]:1", "[2001:db8::1]:80"), "default"},
		{"one of many prefixes", chains{chain("a", fcm{Prefixes: pre("10.0.0.0/8", "198.51.100.1/32")})}, from("192.0.2.1:1", "198.51.100.1:80"), "a"},
		{"a scoped address", chains{chain("6", fcm{Prefixes: pre("fe80::/10")})}, from("[fe80::2%lo]:1", "[fe80::1%lo]:80"), "6"},

		{"exact name", chains{chain("x", fcm{ServerNames: []string{"a.b.c"}}), chain("w", fcm{ServerNames: []string{"*.b.c"}}), chain("any", fcm{})}, tls("a.b.c"), "x"},
		{"longest suffix", chains{chain("c", fcm{ServerNames: []string{"*.c"}}), chain("bc", fcm{ServerNames: []string{"*.b.c"}})}, tls("x.a.b.c"), "bc"},
		{"shorter suffix", chains{chain("c", fcm{ServerNames: []string{"*.c"}}), chain("bc", fcm{ServerNames: []string{"*.b.c"}})}, tls("b.c"), "c"},
		{"a suffix is no name of its own", chains{chain("bc", fcm{ServerNames: []string{"*.b.c"}})}, tls("b.c"), "default"},
		{"a name that is matched but fails later hides the suffix",
			chains{chain("x", fcm{ServerNames: []string{"a.b.c"}, ApplicationProtocols: []string{"h2"}}), chain("w", fcm{ServerNames: []string{"*.b.c"}})}, tls("a.b.c"), "default"},
		{"no SNI falls to the chain without names", chains{chain("x", fcm{ServerNames: []string{"a.b.c"}}), chain("any", fcm{})}, tls(""), "any"},
		{"a trailing dot", chains{chain("w", fcm{ServerNames: []string{"*.b.c"}})}, tls("a.b.c."), "default"},

		{"transport protocol", chains{chain("t", fcm{TransportProtocol: "tls"}), chain("r", fcm{TransportProtocol: "raw_buffer"}), chain("any", fcm{})}, tls(""), "t"},
		{"raw_buffer is what nothing found", chains{chain("t", fcm{TransportProtocol: "tls"}), chain("r", fcm{TransportProtocol: "raw_buffer"}), chain("any", fcm{})}, from("192.0.2.1:1", "198.51.100.1:80"), "r"},
		{"another transport protocol falls to none", chains{chain("t", fcm{TransportProtocol: "quic"}), chain("any", fcm{})}, tls(""), "any"},

		{"the client's first protocol", chains{chain("h1", fcm{ApplicationProtocols: []string{"http/1.1"}}), chain("h2", fcm{ApplicationProtocols: []string{"h2"}})}, tls("", "h2", "http/1.1"), "h2"},
		{"in the client's order, not the chains'", chains{chain("h2", fcm{ApplicationProtocols: []string{"h2"}}), chain("h1", fcm{ApplicationProtocols: []string{"http/1.1"}})}, tls("", "x", "http/1.1", "h2"), "h1"},
		{"no protocol of the client's", chains{chain("h2", fcm{ApplicationProtocols: []string{"h2"}}), chain("any", fcm{})}, tls("", "x"), "any"},

		{"direct source before source", chains{
			chain("d", fcm{DirectSourcePrefixes: pre("203.0.113.0/24")}), chain("s", fcm{SourcePrefixes: pre("192.0.2.0/24")})},
			Connection{Local: ap("198.51.100.1:80"), Remote: ap("192.0.2.1:1"), Direct: ap("203.0.113.5:2")}, "d"},
		{"source is what the PROXY protocol says", chains{
			chain("d", fcm{SourcePrefixes: pre("203.0.113.0/24")}), chain("s", fcm{SourcePrefixes: pre("192.0.2.0/24")})},
			Connection{Local: ap("198.51.100.1:80"), Remote: ap("192.0.2.1:1"), Direct: ap("203.0.113.5:2")}, "s"},

		{"loopback is local", chains{chain("l", fcm{SourceType: api.SourceSameIPOrLoopback}), chain("e", fcm{SourceType: api.SourceExternal})}, from("127.0.0.1:1", "198.51.100.1:80"), "l"},
		{"other loopback addresses are not", chains{chain("l", fcm{SourceType: api.SourceSameIPOrLoopback}), chain("e", fcm{SourceType: api.SourceExternal})}, from("127.0.0.2:1", "127.0.0.1:80"), "e"},
		{"the local address is local", chains{chain("l", fcm{SourceType: api.SourceSameIPOrLoopback}), chain("any", fcm{})}, from("198.51.100.1:1", "198.51.100.1:80"), "l"},
		{"external without a chain for it falls to any", chains{chain("l", fcm{SourceType: api.SourceSameIPOrLoopback}), chain("any", fcm{})}, from("192.0.2.1:1", "198.51.100.1:80"), "any"},
		{"external that fails later hides any", chains{chain("e", fcm{SourceType: api.SourceExternal, SourcePorts: []uint16{7}}), chain("any", fcm{})}, from("192.0.2.1:1", "198.51.100.1:80"), "default"},
		{"a Unix socket is local", chains{chain("l", fcm{SourceType: api.SourceSameIPOrLoopback})}, Connection{}, "l"},

		{"longest source prefix", chains{chain("8", fcm{SourcePrefixes: pre("192.0.0.0/8")}), chain("32", fcm{SourcePrefixes: pre("192.0.2.1/32")})}, from("192.0.2.1:1", "198.51.100.1:80"), "32"},
		{"the longest source prefix with another port fails", chains{chain("8", fcm{SourcePrefixes: pre("192.0.0.0/8")}), chain("32", fcm{SourcePrefixes: pre("192.0.2.1/32"), SourcePorts: []uint16{7}})}, from("192.0.2.1:1", "198.51.100.1:80"), "default"},
		{"source port", chains{chain("7", fcm{SourcePorts: []uint16{6, 7}}), chain("any", fcm{})}, from("192.0.2.1:7", "198.51.100.1:80"), "7"},
		{"another source port", chains{chain("7", fcm{SourcePorts: []uint16{6, 7}}), chain("any", fcm{})}, from("192.0.2.1:8", "198.51.100.1:80"), "any"},
		{"a Unix socket has no prefix", chains{chain("p", fcm{Prefixes: pre("10.0.0.0/8")}), chain("any", fcm{})}, Connection{}, "any"},
		{"a Unix socket has no port", chains{chain("p", fcm{DestinationPort: 80}), chain("any", fcm{SourcePorts: []uint16{7}})}, Connection{}, "default"},
		{"of two equal ones the first", chains{chain("a", fcm{DestinationPort: 80}), chain("b", fcm{DestinationPort: 80})}, from("192.0.2.1:1", "198.51.100.1:80"), "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := find(tt.chains, def, tt.c); got != tt.want {
				t.Errorf("found %q, want %q", got, tt.want)
			}
		})
	}
}

func TestNothingMatchesWithoutADefault(t *testing.T) {
	if got := find([]*api.FilterChain{chain("a", fcm{DestinationPort: 1})}, nil, tls("")); got != "" {
		t.Errorf("found %q", got)
	}
}

// TestFindAgreesWithALinearSearch compares the index with the rules told as
// filters over the list of chains: each criterion keeps the chains with the most
// specific value that holds.
func TestFindAgreesWithALinearSearch(t *testing.T) {
	rnd := newRandom(1)
	for range 300 {
		chains := rnd.chains(1 + rnd.n(12))
		x := New(&api.Listener{FilterChains: chains})
		for range 50 {
			c := rnd.connection()
			want, got := "", ""
			if w := slow(chains, &c); w != nil {
				want = w.Name
			}
			if g := x.Find(&c); g != nil {
				got = g.Name
			}
			if want != got {
				for _, c := range chains {
					t.Logf("%s: %+v", c.Name, c.Match)
				}
				t.Fatalf("connection %+v: found %q, want %q", c, got, want)
			}
		}
	}
}

// The benchmark's chains are those of a gateway: names under one port.
func gateway(n int) []*api.FilterChain {
	chains := make([]*api.FilterChain, n)
	for i := range chains {
		chains[i] = chain(strconv.Itoa(i), fcm{ServerNames: []string{fmt.Sprintf("host-%d.example.com", i)}, TransportProtocol: "tls"})
	}
	return chains
}

// mesh has a chain per destination, as virtual addresses give them.
func mesh(n int) []*api.FilterChain {
	chains := make([]*api.FilterChain, n)
	for i := range chains {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		chains[i] = chain(strconv.Itoa(i), fcm{Prefixes: []netip.Prefix{netip.PrefixFrom(a, 32)}, DestinationPort: 80})
	}
	return chains
}

func BenchmarkFind(b *testing.B) {
	for _, n := range []int{1, 100, 10000} {
		b.Run(fmt.Sprintf("names/%d", n), func(b *testing.B) {
			x := New(&api.Listener{FilterChains: gateway(n)})
			c := tls(fmt.Sprintf("host-%d.example.com", n/2))
			b.ReportAllocs()
			for b.Loop() {
				if x.Find(&c) == nil {
					b.Fatal("no chain")
				}
			}
		})
		b.Run(fmt.Sprintf("prefixes/%d", n), func(b *testing.B) {
			x := New(&api.Listener{FilterChains: mesh(n)})
			c := from("192.0.2.1:1", netip.AddrPortFrom(mesh(n)[n/2].Match.Prefixes[0].Addr(), 80).String())
			b.ReportAllocs()
			for b.Loop() {
				if x.Find(&c) == nil {
					b.Fatal("no chain")
				}
			}
		})
	}
}

func BenchmarkNew(b *testing.B) {
	for _, kind := range []struct {
		name string
		make func(int) []*api.FilterChain
	}{{"names", gateway}, {"prefixes", mesh}} {
		b.Run(kind.name+"/10000", func(b *testing.B) {
			chains := kind.make(10000)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			x := New(&api.Listener{FilterChains: chains})
			runtime.GC()
			runtime.ReadMemStats(&after)
			runtime.KeepAlive(x)
			for b.Loop() {
				New(&api.Listener{FilterChains: chains})
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/10000, "B/chain")
		})
	}
}
