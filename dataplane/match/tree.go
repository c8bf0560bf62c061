package match

import (
	"cmp"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-proxy/sluice/api"
)

// Tree is an api.Matcher made ready. It is immutable.
type Tree struct {
	list      []field
	look      lookup // nil without a tree
	input     api.MatchInput
	onNoMatch *outcome
}

type field struct {
	holds   predicate
	onMatch *outcome
}

type outcome struct {
	tree   *Tree
	action string
	keep   bool
}

type (
	predicate func(*Connection) bool
	// lookup is a matcher tree's map: it tries the entries for value, the most
	// specific first, until one leads to an action.
	lookup func(value string, try func(*outcome) bool)
)

// NewTree makes a matcher ready. A regular expression that does not compile
// never holds (xds refuses it).
func NewTree(m *api.Matcher) *Tree {
	t := &Tree{onNoMatch: newOutcome(m.OnNoMatch)}
	for i := range m.List {
		t.list = append(t.list, field{newPredicate(&m.List[i].Predicate), newOutcome(&m.List[i].OnMatch)})
	}
	if m.Tree != nil {
		t.input, t.look = m.Tree.Input, newLookup(m.Tree)
	}
	return t
}

func newOutcome(o *api.OnMatch) *outcome {
	if o == nil {
		return nil
	}
	out := &outcome{action: o.Action, keep: o.KeepMatching}
	if o.Matcher != nil {
		out.tree = NewTree(o.Matcher)
	}
	return out
}

// Match returns the action for a connection; ok is false if there is none.
func (t *Tree) Match(c *Connection) (action string, ok bool) {
	try := func(o *outcome) bool {
		a, found := o.follow(c)
		if !found || o.keep {
			return false
		}
		action, ok = a, true
		return true
	}
	for i := range t.list {
		if t.list[i].holds(c) && try(t.list[i].onMatch) {
			return action, ok
		}
	}
	if t.look != nil {
		if v, there := value(c, &t.input); there {
			t.look(v, try)
		}
		if ok {
			return action, ok
		}
	}
	if t.onNoMatch != nil {
		try(t.onNoMatch)
	}
	return action, ok
}

func (o *outcome) follow(c *Connection) (string, bool) {
	if o.tree != nil {
		return o.tree.Match(c)
	}
	return o.action, true
}

func newLookup(t *api.MatcherTree) lookup {
	switch {
	case t.Exact != nil:
		m := outcomes(t.Exact)
		return func(v string, try func(*outcome) bool) {
			if o := m[v]; o != nil {
				try(o)
			}
		}
	case t.Prefix != nil:
		m, longest := outcomes(t.Prefix), 0
		for k := range m {
			longest = max(longest, len(k))
		}
		return func(v string, try func(*outcome) bool) {
			for n := min(len(v), longest); n >= 0; n-- {
				if o := m[v[:n]]; o != nil && try(o) {
					return
				}
			}
		}
	case t.Ranges != nil:
		return newRanges(t.Ranges)
	case t.Domains != nil:
		return newDomains(t.Domains)
	}
	return func(string, func(*outcome) bool) {}
}

func outcomes(in map[string]*api.OnMatch) map[string]*outcome {
	out := make(map[string]*outcome, len(in))
	for k, o := range in {
		out[k] = newOutcome(o)
	}
	return out
}

func newRanges(in []api.RangeMatcher) lookup {
	type ranged struct {
		*outcome
		exclusive bool
	}
	var t prefixes[[]ranged]
	by := map[netip.Prefix][]ranged{}
	for i := range in {
		r := ranged{newOutcome(&in[i].OnMatch), in[i].Exclusive}
		for _, p := range in[i].Prefixes {
			by[p] = append(by[p], r)
		}
	}
	for p, rs := range by {
		t.add(p, rs)
	}
	t.seal()
	return func(v string, try func(*outcome) bool) {
		a, err := netip.ParseAddr(v)
		if err != nil {
			return
		}
		bits := t.bits6
		if a.Is4() {
			bits = t.bits4
		}
		tried := false
		for _, n := range bits {
			p, err := a.Prefix(int(n))
			if err != nil {
				return
			}
			rs, ok := t.entries.get(p)
			if !ok {
				continue
			}
			for _, r := range *rs {
				if tried && r.exclusive {
					continue
				}
				if try(r.outcome) {
					return
				}
				tried = true
			}
		}
	}
}

func newDomains(in []api.DomainMatcher) lookup {
	m := map[string]*outcome{}
	for i := range in {
		o := newOutcome(&in[i].OnMatch)
		for _, d := range in[i].Domains {
			m[strings.ToLower(d)] = o
		}
	}
	return func(v string, try func(*outcome) bool) {
		v = strings.ToLower(v)
		if o := m[v]; o != nil && try(o) {
			return
		}
		for i := range len(v) {
			if v[i] == '.' {
				if o := m["*"+v[i:]]; o != nil && try(o) {
					return
				}
			}
		}
		if o := m["*"]; o != nil {
			try(o)
		}
	}
}

func newPredicate(p *api.Predicate) predicate {
	switch {
	case p.Single != nil:
		return newSingle(p.Single)
	case p.Not != nil:
		inner := newPredicate(p.Not)
		return func(c *Connection) bool { return !inner(c) }
	case p.Or != nil:
		all := newPredicates(p.Or)
		return func(c *Connection) bool {
			return slices.ContainsFunc(all, func(holds predicate) bool { return holds(c) })
		}
	default:
		all := newPredicates(p.And)
		return func(c *Connection) bool {
			return !slices.ContainsFunc(all, func(holds predicate) bool { return !holds(c) })
		}
	}
}

func newPredicates(in []api.Predicate) []predicate {
	out := make([]predicate, len(in))
	for i := range in {
		out[i] = newPredicate(&in[i])
	}
	return out
}

func newSingle(p *api.SinglePredicate) predicate {
	input := p.Input
	var holds func(string) bool
	if p.Value != nil {
		holds = NewString(p.Value)
	} else {
		within := slices.SortedFunc(slices.Values(p.Prefixes), func(a, b netip.Prefix) int { return cmp.Compare(a.Bits(), b.Bits()) })
		holds = func(v string) bool {
			a, err := netip.ParseAddr(v)
			return err == nil && slices.ContainsFunc(within, func(p netip.Prefix) bool { return p.Contains(a) })
		}
	}
	return func(c *Connection) bool {
		v, ok := value(c, &input)
		return ok && holds(v)
	}
}

// NewString makes a string matcher ready.
func NewString(m *api.StringMatch) func(string) bool {
	want := m.Value
	if m.Kind == api.MatchRegex {
		re, err := regexp.Compile(`\A(?:` + want + `)\z`)
		if err != nil {
			return func(string) bool { return false }
		}
		return re.MatchString
	}
	compare := map[api.StringMatchKind]func(v, want string) bool{
		api.MatchExact:    func(v, want string) bool { return v == want },
		api.MatchPrefix:   strings.HasPrefix,
		api.MatchSuffix:   strings.HasSuffix,
		api.MatchContains: strings.Contains,
	}[m.Kind]
	if !m.IgnoreCase {
		return func(v string) bool { return compare(v, want) }
	}
	want = strings.ToLower(want)
	return func(v string) bool { return compare(strings.ToLower(v), want) }
}

// value reads an input, as Envoy's network inputs render it.
func value(c *Connection, in *api.MatchInput) (string, bool) {
	switch in.Kind {
	case api.InputDestinationIP:
		return ip(c.Local)
	case api.InputDestinationPort:
		return port(c.Local)
	case api.InputSourceIP:
		return ip(c.Remote)
	case api.InputSourcePort:
		return port(c.Remote)
	case api.InputDirectSourceIP:
		return ip(c.Direct)
	case api.InputSourceType:
		if isLocal(c) {
			return "local", true
		}
	case api.InputServerName:
		return c.ServerName, c.ServerName != ""
	case api.InputTransportProtocol:
		return cmp.Or(c.TransportProtocol, api.TransportRawBuffer), true
	case api.InputApplicationProtocol:
		if len(c.ApplicationProtocols) > 0 {
			return "'" + strings.Join(c.ApplicationProtocols, "','") + "'", true
		}
	case api.InputFilterState:
		if c.FilterState != nil {
			return c.FilterState(in.Key, in.Field)
		}
	}
	if c.Peer != nil {
		switch in.Kind {
		case api.InputURISAN:
			return unlessEmpty(strings.Join(c.Peer.PeerURIs(), ","))
		case api.InputDNSSAN:
			return unlessEmpty(strings.Join(c.Peer.PeerDNSNames(), ","))
		case api.InputSubject:
			return unlessEmpty(c.Peer.PeerSubject())
		}
	}
	// The rest is known only later, or never: of another network namespace.
	return "", false
}

func unlessEmpty(s string) (string, bool) { return s, s != "" }

func ip(a netip.AddrPort) (string, bool) {
	if !a.IsValid() {
		return "", false
	}
	return a.Addr().String(), true
}

func port(a netip.AddrPort) (string, bool) {
	if !a.IsValid() {
		return "", false
	}
	return strconv.Itoa(int(a.Port())), true
}
