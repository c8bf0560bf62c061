package match

import (
	"testing"

	"github.com/sluice-proxy/sluice/api"
)

func to(name string) api.OnMatch { return api.OnMatch{Action: name} }

func input(k api.MatchInputKind) api.MatchInput { return api.MatchInput{Kind: k} }

func is(k api.MatchInputKind, kind api.StringMatchKind, v string) api.Predicate {
	return api.Predicate{Single: &api.SinglePredicate{Input: input(k), Value: &api.StringMatch{Kind: kind, Value: v}}}
}

func exact(k api.MatchInputKind, m map[string]*api.OnMatch) *api.Matcher {
	return &api.Matcher{Tree: &api.MatcherTree{Input: input(k), Exact: m}}
}

func ptr[T any](v T) *T { return &v }

func TestTree(t *testing.T) {
	plain := from("192.0.2.1:1000", "198.51.100.1:80")
	hello := tls("a.b.c", "h2", "http/1.1")
	state := plain
	state.FilterState = func(key, field string) (string, bool) { return "v:" + field, key == "k" }
	list := func(p api.Predicate, then api.OnMatch, more ...api.FieldMatcher) *api.Matcher {
		return &api.Matcher{List: append([]api.FieldMatcher{{Predicate: p, OnMatch: then}}, more...)}
	}
	always := api.FieldMatcher{Predicate: api.Predicate{And: []api.Predicate{}}, OnMatch: to("last")}
	ranges := func(r ...api.RangeMatcher) *api.Matcher {
		return &api.Matcher{Tree: &api.MatcherTree{Input: input(api.InputSourceIP), Ranges: r}}
	}
	never := api.OnMatch{Matcher: &api.Matcher{}}
	for _, tt := range []struct {
		name string
		m    *api.Matcher
		c    Connection
		want string // empty: no match
	}{
		{"nothing", &api.Matcher{}, plain, ""},
		{"on_no_match", &api.Matcher{OnNoMatch: ptr(to("x"))}, plain, "x"},
		{"destination port", exact(api.InputDestinationPort, map[string]*api.OnMatch{"80": ptr(to("x"))}), plain, "x"},
		{"destination address", exact(api.InputDestinationIP, map[string]*api.OnMatch{"198.51.100.1": ptr(to("x"))}), plain, "x"},
		{"source port", exact(api.InputSourcePort, map[string]*api.OnMatch{"1000": ptr(to("x"))}), plain, "x"},
		{"direct source", exact(api.InputDirectSourceIP, map[string]*api.OnMatch{"192.0.2.1": ptr(to("x"))}), plain, "x"},
		{"an external source has no type", exact(api.InputSourceType, map[string]*api.OnMatch{"local": ptr(to("x")), "": ptr(to("y"))}), plain, ""},
		{"a local source", exact(api.InputSourceType, map[string]*api.OnMatch{"local": ptr(to("x"))}), from("127.0.0.1:1", "127.0.0.1:2"), "x"},
		{"a server name", exact(api.InputServerName, map[string]*api.OnMatch{"a.b.c": ptr(to("x"))}), hello, "x"},
		{"no server name is no empty one", exact(api.InputServerName, map[string]*api.OnMatch{"": ptr(to("x"))}), plain, ""},
		{"transport protocol", exact(api.InputTransportProtocol, map[string]*api.OnMatch{"tls": ptr(to("x"))}), hello, "x"},
		{"raw_buffer by default", exact(api.InputTransportProtocol, map[string]*api.OnMatch{"raw_buffer": ptr(to("x"))}), plain, "x"},
		{"application protocols are quoted", exact(api.InputApplicationProtocol, map[string]*api.OnMatch{"'h2','http/1.1'": ptr(to("x"))}), hello, "x"},
		{"filter state", &api.Matcher{Tree: &api.MatcherTree{Input: api.MatchInput{Kind: api.InputFilterState, Key: "k", Field: "f"}, Exact: map[string]*api.OnMatch{"v:f": ptr(to("x"))}}}, state, "x"},
		{"no filter state", &api.Matcher{Tree: &api.MatcherTree{Input: api.MatchInput{Kind: api.InputFilterState, Key: "k"}, Exact: map[string]*api.OnMatch{"v:": ptr(to("x"))}}}, plain, ""},
		{"what is not known yet is absent", exact(api.InputURISAN, map[string]*api.OnMatch{"": ptr(to("x"))}), hello, ""},
		{"a Unix socket has no address", exact(api.InputSourceIP, map[string]*api.OnMatch{"": ptr(to("x")), "invalid AddrPort": ptr(to("y"))}), Connection{}, ""},

		{"the longest prefix", &api.Matcher{Tree: &api.MatcherTree{Input: input(api.InputServerName), Prefix: map[string]*api.OnMatch{"a.": ptr(to("x")), "a.b": ptr(to("y")), "b": ptr(to("z"))}}}, hello, "y"},
		{"a shorter prefix if the longest leads nowhere", &api.Matcher{Tree: &api.MatcherTree{Input: input(api.InputServerName), Prefix: map[string]*api.OnMatch{"a.": ptr(to("x")), "a.b": &never}}}, hello, "x"},

		{"the longest range", ranges(api.RangeMatcher{Prefixes: pre("192.0.0.0/8"), OnMatch: to("8")}, api.RangeMatcher{Prefixes: pre("192.0.2.0/24"), OnMatch: to("24")}), plain, "24"},
		{"a shorter range if the longest leads nowhere", ranges(api.RangeMatcher{Prefixes: pre("192.0.0.0/8"), OnMatch: to("8")}, api.RangeMatcher{Prefixes: pre("192.0.2.0/24"), OnMatch: never}), plain, "8"},
		{"not so if the shorter is exclusive", ranges(api.RangeMatcher{Prefixes: pre("192.0.0.0/8"), OnMatch: to("8"), Exclusive: true}, api.RangeMatcher{Prefixes: pre("192.0.2.0/24"), OnMatch: never}), plain, ""},
		{"an exclusive range that is the longest", ranges(api.RangeMatcher{Prefixes: pre("192.0.0.0/8"), OnMatch: to("8"), Exclusive: true}), plain, "8"},
		{"a range of the other family", ranges(api.RangeMatcher{Prefixes: pre("::/0"), OnMatch: to("x")}), plain, ""},

		{"a domain", &api.Matcher{Tree: &api.MatcherTree{Input: input(api.InputServerName), Domains: []api.DomainMatcher{{Domains: []string{"a.b.c"}, OnMatch: to("x")}, {Domains: []string{"*"}, OnMatch: to("y")}}}}, hello, "x"},
		{"the longest domain", &api.Matcher{Tree: &api.MatcherTree{Input: input(api.InputServerName), Domains: []api.DomainMatcher{{Domains: []string{"*.c"}, OnMatch: to("x")}, {Domains: []string{"*.b.c"}, OnMatch: to("y")}}}}, hello, "y"},
		{"any domain", &api.Matcher{Tree: &api.MatcherTree{Input: input(api.InputServerName), Domains: []api.DomainMatcher{{Domains: []string{"*.d"}, OnMatch: to("x")}, {Domains: []string{"*"}, OnMatch: to("y")}}}}, hello, "y"},

		{"a list takes the first that holds", list(is(api.InputDestinationPort, api.MatchExact, "80"), to("x"), always), plain, "x"},
		{"a list goes on if the first leads nowhere", list(is(api.InputDestinationPort, api.MatchExact, "80"), never, always), plain, "last"},
		{"keep_matching goes on", list(is(api.InputDestinationPort, api.MatchExact, "80"), api.OnMatch{Action: "x", KeepMatching: true}, always), plain, "last"},
		{"prefix", list(is(api.InputServerName, api.MatchPrefix, "a."), to("x")), hello, "x"},
		{"suffix", list(is(api.InputServerName, api.MatchSuffix, ".c"), to("x")), hello, "x"},
		{"contains", list(is(api.InputServerName, api.MatchContains, ".b."), to("x")), hello, "x"},
		{"a regular expression holds for the whole", list(is(api.InputServerName, api.MatchRegex, "a.b"), to("x"), always), hello, "last"},
		{"a regular expression", list(is(api.InputServerName, api.MatchRegex, "a|a.b.c"), to("x")), hello, "x"},
		{"a broken one never holds", list(is(api.InputServerName, api.MatchRegex, "(a"), to("x")), hello, ""},
		{"not", list(api.Predicate{Not: ptr(is(api.InputServerName, api.MatchExact, "x"))}, to("x")), hello, "x"},
		{"not of what is absent", list(api.Predicate{Not: ptr(is(api.InputServerName, api.MatchExact, "x"))}, to("x")), plain, "x"},
		{"or", list(api.Predicate{Or: []api.Predicate{is(api.InputSourcePort, api.MatchExact, "1"), is(api.InputSourcePort, api.MatchExact, "1000")}}, to("x")), plain, "x"},
		{"and", list(api.Predicate{And: []api.Predicate{is(api.InputSourcePort, api.MatchExact, "1"), is(api.InputSourcePort, api.MatchExact, "1000")}}, to("x")), plain, ""},
		{"ignore case", list(api.Predicate{Single: &api.SinglePredicate{Input: input(api.InputServerName), Value: &api.StringMatch{Value: "A.B.C", IgnoreCase: true}}}, to("x")), hello, "x"},
		{"address in a range", list(api.Predicate{Single: &api.SinglePredicate{Input: input(api.InputSourceIP), Prefixes: pre("10.0.0.0/8", "192.0.2.0/24")}}, to("x")), plain, "x"},
		{"address in no range", list(api.Predicate{Single: &api.SinglePredicate{Input: input(api.InputSourceIP), Prefixes: pre("10.0.0.0/8")}}, to("x")), plain, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := NewTree(tt.m).Match(&tt.c)
			if got != tt.want || ok != (tt.want != "") {
				t.Errorf("matched %q, %t, want %q", got, ok, tt.want)
			}
		})
	}
}

func TestAMatcherFindsChainsByName(t *testing.T) {
	c := from("192.0.2.1:1000", "198.51.100.1:80")
	chains := []*api.FilterChain{chain("a", fcm{DestinationPort: 1})}
	for _, tt := range []struct{ name, action, want string }{
		{"whatever its match says", "a", "a"},
		{"a name that no chain has is no match, and no default", "b", ""},
	} {
		x := New(&api.Listener{FilterChains: chains, DefaultFilterChain: chain("default", fcm{}), Matcher: &api.Matcher{OnNoMatch: ptr(to(tt.action))}})
		got := ""
		if f := x.Find(&c); f != nil {
			got = f.Name
		}
		if got != tt.want {
			t.Errorf("%s: found %q, want %q", tt.name, got, tt.want)
		}
	}
	if x := New(&api.Listener{FilterChains: chains, DefaultFilterChain: chain("default", fcm{}), Matcher: &api.Matcher{}}); x.Find(&c).Name != "default" {
		t.Error("no match does not fall to the default")
	}
}
