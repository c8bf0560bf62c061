package match

import (
	"net/netip"

	"github.com/sluice-proxy/sluice/api"
)

// way is one way through all levels: a chain has one for each combination of
// the values in its match.
type way struct {
	port        uint16
	prefix      netip.Prefix
	name        string
	transport   string
	application string
	direct      netip.Prefix
	sourceType  api.SourceType
	source      netip.Prefix
	sourcePort  uint16
	chain       *api.FilterChain
}

func ways(chains []*api.FilterChain) []*way {
	out := make([]*way, 0, len(chains))
	for _, c := range chains {
		m := &c.Match
		one := way{port: m.DestinationPort, transport: m.TransportProtocol, sourceType: m.SourceType, chain: c}
		for _, one.prefix = range orNone(m.Prefixes) {
			for _, name := range orNone(m.ServerNames) {
				one.name = wildcardKey(name)
				for _, one.application = range orNone(m.ApplicationProtocols) {
					for _, one.direct = range orNone(m.DirectSourcePrefixes) {
						for _, one.source = range orNone(m.SourcePrefixes) {
							for _, one.sourcePort = range orNone(m.SourcePorts) {
								w := one
								out = append(out, &w)
							}
						}
					}
				}
			}
		}
	}
	return out
}

// orNone is a criterion's values, or the one that stands for none.
func orNone[T any](values []T) []T {
	if len(values) == 0 {
		return make([]T, 1)
	}
	return values
}

// group parts ways by a key, in the order in which the keys come first.
func group[K comparable](in []*way, key func(*way) K) ([]K, map[K][]*way) {
	var order []K
	by := make(map[K][]*way, 1)
	for _, w := range in {
		k := key(w)
		if _, ok := by[k]; !ok {
			order = append(order, k)
		}
		by[k] = append(by[k], w)
	}
	return order, by
}

// level builds a table of one criterion, whose values are the levels below.
func level[K comparable, V any](in []*way, key func(*way) K, below func([]*way) V) (t table[K, V]) {
	order, by := group(in, key)
	t.list = make([]entry[K, V], 0, len(order))
	for _, k := range order {
		t.add(k, below(by[k]))
	}
	t.seal()
	return t
}

func prefixLevel[V any](in []*way, key func(*way) netip.Prefix, below func([]*way) V) (t prefixes[V]) {
	order, by := group(in, key)
	for _, k := range order {
		t.add(k, below(by[k]))
	}
	t.seal()
	return t
}

func index(chains []*api.FilterChain) ports {
	return level(ways(chains), func(w *way) uint16 { return w.port }, byPrefix)
}

func byPrefix(in []*way) prefixes[names] {
	return prefixLevel(in, func(w *way) netip.Prefix { return w.prefix }, byName)
}

func byName(in []*way) names {
	return level(in, func(w *way) string { return w.name }, byTransport)
}

func byTransport(in []*way) transports {
	return level(in, func(w *way) string { return w.transport }, byApplication)
}

func byApplication(in []*way) applications {
	return level(in, func(w *way) string { return w.application }, byDirect)
}

func byDirect(in []*way) prefixes[sourceTypes] {
	return prefixLevel(in, func(w *way) netip.Prefix { return w.direct }, byType)
}

func byType(in []*way) (t sourceTypes) {
	order, by := group(in, func(w *way) api.SourceType { return w.sourceType })
	for _, k := range order {
		p := prefixLevel(by[k], func(w *way) netip.Prefix { return w.source }, byPort)
		t[k] = &p
	}
	return t
}

func byPort(in []*way) sourcePorts {
	return level(in, func(w *way) uint16 { return w.sourcePort }, func(in []*way) *api.FilterChain { return in[0].chain })
}
