package match

import (
	"strconv"
	"testing"

	"github.com/sluice-proxy/sluice/api"
)

func chain(name string, port uint16) *api.FilterChain {
	return &api.FilterChain{Name: name, Match: api.FilterChainMatch{DestinationPort: port}}
}

func TestFind(t *testing.T) {
	def := chain("default", 0)
	tests := []struct {
		name   string
		chains []*api.FilterChain
		def    *api.FilterChain
		port   uint16
		want   string // empty: no chain
	}{
		{"exact port wins over the chain without port", []*api.FilterChain{chain("any", 0), chain("web", 80)}, def, 80, "web"},
		{"other port falls to the chain without port", []*api.FilterChain{chain("any", 0), chain("web", 80)}, def, 81, "any"},
		{"the chain without port hides the default", []*api.FilterChain{chain("any", 0)}, def, 81, "any"},
		{"no entry at all falls to the default", []*api.FilterChain{chain("web", 80)}, def, 81, "default"},
		{"no entry and no default matches nothing", []*api.FilterChain{chain("web", 80)}, nil, 81, ""},
		{"only a default takes everything", nil, def, 1, "default"},
		{"nothing configured matches nothing", nil, nil, 80, ""},
		{"highest port", []*api.FilterChain{chain("top", 65535)}, nil, 65535, "top"},
		{"of two with one match the first wins", []*api.FilterChain{chain("a", 80), chain("b", 80)}, nil, 80, "a"},
		{"of two without port the first wins", []*api.FilterChain{chain("a", 0), chain("b", 0)}, nil, 80, "a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if c := New(tt.chains, tt.def).Find(tt.port); c != nil {
				got = c.Name
			}
			if got != tt.want {
				t.Errorf("Find(%d) = %q, want %q", tt.port, got, tt.want)
			}
		})
	}
}

func TestIndexKeepsItsAnswerWhenTheCallerReusesTheSlice(t *testing.T) {
	chains := []*api.FilterChain{chain("a", 80)}
	x := New(chains, nil)
	chains[0] = chain("b", 80)
	if c := x.Find(80); c == nil || c.Name != "a" {
		t.Errorf("Find(80) = %v, want chain a", c)
	}
}

func BenchmarkFind(b *testing.B) {
	for _, n := range []int{1, 100, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			chains := make([]*api.FilterChain, n)
			for i := range chains {
				chains[i] = chain("c", uint16(i+1))
			}
			x := New(chains, chain("d", 0))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if x.Find(uint16(i)) == nil {
					b.Fatal("no chain")
				}
			}
		})
	}
}
