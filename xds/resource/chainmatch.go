package resource

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sluice-proxy/sluice/api"
)

// maxWays bounds the combinations of the values of a listener's matches: each is
// an entry of the index.
const maxWays = 1 << 20

// chainMatch decodes a filter_chain_match that the walker has been through.
func (w *walker) chainMatch(path string, p *listenerv3.FilterChainMatch) api.FilterChainMatch {
	m := api.FilterChainMatch{
		DestinationPort:      uint16(p.GetDestinationPort().GetValue()), // the proto bounds it
		Prefixes:             w.cidrs(path+".prefix_ranges", p.GetPrefixRanges()),
		DirectSourcePrefixes: w.cidrs(path+".direct_source_prefix_ranges", p.GetDirectSourcePrefixRanges()),
		SourceType:           api.SourceType(p.GetSourceType()),
		SourcePrefixes:       w.cidrs(path+".source_prefix_ranges", p.GetSourcePrefixRanges()),
		TransportProtocol:    p.GetTransportProtocol(),
		ApplicationProtocols: slices.Clone(p.GetApplicationProtocols()),
	}
	for _, port := range p.GetSourcePorts() {
		m.SourcePorts = append(m.SourcePorts, uint16(port)) // the proto bounds them
	}
	for i, name := range p.GetServerNames() {
		if rest := strings.TrimPrefix(name, "*."); strings.Contains(rest, "*") {
			w.fail(fmt.Sprintf("%s.server_names[%d]", path, i),
				fmt.Errorf("partial wildcards are not supported in \"server_names\" (%q)", short(name)))
		}
		m.ServerNames = append(m.ServerNames, asciiLower(name))
	}
	return m
}

// asciiLower is what Envoy compares names by.
func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// cidr is what the two kinds of CidrRange offer.
type cidr struct {
	address string
	bits    uint32
}

func (w *walker) cidrs(path string, in []*corev3.CidrRange) []netip.Prefix {
	var out []netip.Prefix
	for i, r := range in {
		if p, ok := w.prefix(fmt.Sprintf("%s[%d]", path, i), cidr{r.GetAddressPrefix(), r.GetPrefixLen().GetValue()}); ok {
			out = append(out, p)
		}
	}
	return out
}

// prefix reads one range as Envoy's CidrRange does: masked, without a length 0,
// and no longer than the address.
func (w *walker) prefix(path string, c cidr) (netip.Prefix, bool) {
	ip, err := netip.ParseAddr(c.address)
	if err != nil || ip.Zone() != "" {
		w.fail(path+".address_prefix", fmt.Errorf("malformed IP address: %s", short(c.address)))
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(ip, int(min(c.bits, uint32(ip.BitLen())))).Masked(), true
}

// distinct refuses what Envoy refuses of a listener's chains as a whole. Chains
// of which something was refused are not compared: what is left of them says
// nothing.
func (w *walker) distinct(l *api.Listener, p *listenerv3.Listener) {
	if len(w.errs) > 0 {
		return
	}
	if l.Matcher != nil {
		w.distinctNames(l)
		return
	}
	var (
		same  = map[string]*api.FilterChain{}
		taken = map[way]struct{}{}
		n     int
	)
	for i, c := range l.FilterChains {
		path := fmt.Sprintf("filter_chains[%d]", i)
		m := p.GetFilterChains()[i].GetFilterChainMatch()
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			w.fail(path, err)
			return
		}
		if first, twice := same[string(b)]; twice {
			w.fail(path, w.adding(l, fmt.Sprintf("filter chain '%s' has the same matching rules defined as '%s'. duplicate matcher is: %s",
				short(c.Name), short(first.Name), printMatch(m))))
			return
		}
		same[string(b)] = c
		if n += combinations(&c.Match); n > maxWays {
			w.fail(path+".filter_chain_match", fmt.Errorf("the listener's matches have more than %d combinations of values", maxWays))
			return
		}
		overlap := false
		eachWay(&c.Match, func(one way) {
			_, twice := taken[one]
			overlap = overlap || twice
			taken[one] = struct{}{}
		})
		if overlap {
			w.fail(path+".filter_chain_match", w.adding(l, "multiple filter chains with overlapping matching rules are defined"))
			return
		}
	}
}

func (w *walker) distinctNames(l *api.Listener) {
	seen := map[string]bool{}
	for i, c := range l.FilterChains {
		path := fmt.Sprintf("filter_chains[%d].name", i)
		switch {
		case c.Name == "":
			w.fail(path, w.adding(l, `"name" field is required when using a listener matcher`))
		case seen[c.Name]:
			w.fail(path, w.adding(l, fmt.Sprintf(`"name" field is duplicated with value '%s'`, short(c.Name))))
		}
		seen[c.Name] = true
	}
}

// way is one combination of the values of a match.
type way struct {
	port, sourcePort             uint16
	prefix, direct, source       netip.Prefix
	name, transport, application string
	sourceType                   api.SourceType
}

func combinations(m *api.FilterChainMatch) int {
	n := 1
	for _, k := range []int{len(m.Prefixes), len(m.ServerNames), len(m.ApplicationProtocols), len(m.DirectSourcePrefixes), len(m.SourcePrefixes), len(m.SourcePorts)} {
		if n *= max(1, k); n > maxWays {
			return n
		}
	}
	return n
}

func eachWay(m *api.FilterChainMatch, f func(way)) {
	one := way{port: m.DestinationPort, transport: m.TransportProtocol, sourceType: m.SourceType}
	for _, one.prefix = range orNone(m.Prefixes) {
		for _, one.name = range orNone(m.ServerNames) {
			// The suffix is the key: `.b` stands for `*.b`.
			if strings.HasPrefix(one.name, "*.") {
				one.name = one.name[1:]
			}
			for _, one.application = range orNone(m.ApplicationProtocols) {
				for _, one.direct = range orNone(m.DirectSourcePrefixes) {
					for _, one.source = range orNone(m.SourcePrefixes) {
						for _, one.sourcePort = range orNone(m.SourcePorts) {
							f(one)
						}
					}
				}
			}
		}
	}
}

// orNone is a criterion's values, or the one that stands for none.
func orNone[T any](values []T) []T {
	if len(values) == 0 {
		return make([]T, 1)
	}
	return values
}

// printMatch is the match as Envoy prints it: JSON, by field number.
func printMatch(m *listenerv3.FilterChainMatch) string {
	r := m.ProtoReflect()
	var set []protoreflect.FieldDescriptor
	r.Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		set = append(set, fd)
		return true
	})
	slices.SortFunc(set, func(a, b protoreflect.FieldDescriptor) int { return cmp.Compare(a.Number(), b.Number()) })
	var out bytes.Buffer
	out.WriteByte('{')
	for i, fd := range set {
		one := r.New()
		one.Set(fd, r.Get(fd))
		b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(one.Interface())
		var c bytes.Buffer
		if err = errors.Join(err, json.Compact(&c, b)); err != nil {
			return "{}"
		}
		if i > 0 {
			out.WriteByte(',')
		}
		out.Write(bytes.TrimSuffix(bytes.TrimPrefix(c.Bytes(), []byte("{")), []byte("}")))
	}
	out.WriteByte('}')
	return out.String()
}
