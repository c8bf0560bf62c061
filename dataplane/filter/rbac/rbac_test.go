package rbac

import (
	"net/netip"
	"testing"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/stream"
	"github.com/sluice-proxy/sluice/test/celtext"
)

func prefix(s string) *netip.Prefix { p := netip.MustParsePrefix(s); return &p }

func exact(s string) *api.StringMatch { return &api.StringMatch{Kind: api.MatchExact, Value: s} }

func yes() api.RBACRule { v := true; return api.RBACRule{Const: &v} }
func no() api.RBACRule  { v := false; return api.RBACRule{Const: &v} }

func known() *stream.Info {
	i := stream.New(1, &stream.Listener{}, netip.MustParseAddrPort("172.16.0.1:6000"), netip.MustParseAddrPort("10.0.0.1:443"))
	i.RestoreRemote(netip.MustParseAddrPort("192.168.7.9:5000"))
	i.Found().ServerName = "Db.Example.com"
	i.SetState("text", stream.Object{Value: "v1"})
	i.SetState("looks like one", stream.Object{Value: "10.0.0.7:0"})
	i.SetState("address", stream.Object{Value: "[fd00::7]:80", Address: true})
	for key, v := range map[string]any{"s": "text", "n": 2.5, "b": true, "null": nil, "list": []any{"x", 1.0}, "deep": map[string]any{"down": map[string]any{"here": "found"}}} {
		i.SetMetadata("f", key, v)
	}
	return i
}

func TestRules(t *testing.T) {
	meta := func(v api.ValueMatch, path ...string) api.RBACRule {
		return api.RBACRule{Metadata: &api.MetadataMatch{Filter: "f", Path: path, Value: v}}
	}
	inverted := func(r api.RBACRule) api.RBACRule { r.Metadata.Invert = true; return r }
	is, isNot := true, false
	text := func(s string) api.ValueMatch { return api.ValueMatch{String: exact(s)} }
	for _, tt := range []struct {
		what string
		rule api.RBACRule
		want bool
	}{
		{"any", yes(), true},
		{"never", no(), false},
		{"nothing said", api.RBACRule{}, false},
		{"and", api.RBACRule{And: []api.RBACRule{yes(), yes()}}, true},
		{"and, one not", api.RBACRule{And: []api.RBACRule{yes(), no()}}, false},
		{"or", api.RBACRule{Or: []api.RBACRule{no(), yes()}}, true},
		{"or, none", api.RBACRule{Or: []api.RBACRule{no(), no()}}, false},
		{"not", api.RBACRule{Not: &api.RBACRule{Or: []api.RBACRule{no()}}}, true},
		{"local address", api.RBACRule{Local: prefix("10.0.0.0/30")}, true},
		{"local address of others", api.RBACRule{Local: prefix("10.0.0.2/31")}, false},
		{"remote address", api.RBACRule{Remote: prefix("192.168.0.0/16")}, true},
		{"remote address is not the direct one", api.RBACRule{Remote: prefix("172.16.0.0/16")}, false},
		{"direct address", api.RBACRule{Direct: prefix("172.16.0.0/16")}, true},
		{"direct address is not the remote one", api.RBACRule{Direct: prefix("192.168.0.0/16")}, false},
		{"IPv4 is in no IPv6 range", api.RBACRule{Remote: prefix("::/0")}, false},
		{"port", api.RBACRule{LocalPorts: &api.PortRange{First: 443, Last: 443}}, true},
		{"port before", api.RBACRule{LocalPorts: &api.PortRange{First: 0, Last: 442}}, false},
		{"port after", api.RBACRule{LocalPorts: &api.PortRange{First: 444, Last: 65535}}, false},
		{"server name", api.RBACRule{ServerName: &api.StringMatch{Kind: api.MatchSuffix, Value: ".EXAMPLE.com", IgnoreCase: true}}, true},
		{"server name, case counts", api.RBACRule{ServerName: &api.StringMatch{Kind: api.MatchSuffix, Value: ".EXAMPLE.com"}}, false},
		{"server name by the whole expression", api.RBACRule{ServerName: &api.StringMatch{Kind: api.MatchRegex, Value: "Db|Example"}}, false},
		{"filter state", api.RBACRule{FilterState: &api.FilterStateMatch{Key: "text", Value: &api.StringMatch{Kind: api.MatchPrefix, Value: "v"}}}, true},
		{"filter state that is absent", api.RBACRule{FilterState: &api.FilterStateMatch{Key: "other", Value: &api.StringMatch{Kind: api.MatchContains}}}, false},
		{"filter state by address", api.RBACRule{FilterState: &api.FilterStateMatch{Key: "address", Ranges: []netip.Prefix{*prefix("fd00::/8")}}}, true},
		{"filter state by address, inverted", api.RBACRule{FilterState: &api.FilterStateMatch{Key: "address", Ranges: []netip.Prefix{*prefix("fd00::/8")}, Invert: true}}, false},
		{"filter state that only looks like an address", api.RBACRule{FilterState: &api.FilterStateMatch{Key: "looks like one", Ranges: []netip.Prefix{*prefix("10.0.0.0/8")}}}, false},
		{"filter state that is no address", api.RBACRule{FilterState: &api.FilterStateMatch{Key: "text", Ranges: []netip.Prefix{*prefix("0.0.0.0/0")}, Invert: true}}, false},
		{"metadata text", meta(text("text"), "s"), true},
		{"metadata other text", meta(text("x"), "s"), false},
		{"metadata inverted", inverted(meta(text("x"), "s")), true},
		{"metadata deep", meta(text("found"), "deep", "down", "here"), true},
		{"metadata too deep", meta(api.ValueMatch{Present: &is}, "s", "down"), false},
		{"metadata absent", meta(api.ValueMatch{Present: &is}, "other"), false},
		{"metadata absent is never not present", meta(api.ValueMatch{Present: &isNot}, "other"), false},
		{"metadata present", meta(api.ValueMatch{Present: &is}, "null"), true},
		{"metadata null", meta(api.ValueMatch{Null: true}, "null"), true},
		{"metadata that is not null", meta(api.ValueMatch{Null: true}, "s"), false},
		{"metadata bool", meta(api.ValueMatch{Bool: &is}, "b"), true},
		{"metadata false", meta(api.ValueMatch{Bool: &isNot}, "b"), false},
		{"metadata number", meta(api.ValueMatch{Number: &api.NumberMatch{Exact: true, Start: 2.5}}, "n"), true},
		{"metadata range holds its start", meta(api.ValueMatch{Number: &api.NumberMatch{Start: 2.5, End: 3}}, "n"), true},
		{"metadata range without its end", meta(api.ValueMatch{Number: &api.NumberMatch{Start: 0, End: 2.5}}, "n"), false},
		{"metadata text is no number", meta(api.ValueMatch{Number: &api.NumberMatch{Start: -1, End: 9}}, "s"), false},
		{"metadata list", meta(api.ValueMatch{OneOf: &api.ValueMatch{String: exact("x")}}, "list"), true},
		{"metadata list without it", meta(api.ValueMatch{OneOf: &api.ValueMatch{String: exact("y")}}, "list"), false},
		{"metadata or", meta(api.ValueMatch{Or: []api.ValueMatch{text("x"), text("text")}}, "s"), true},
	} {
		t.Run(tt.what, func(t *testing.T) {
			if got := newRule(&tt.rule)(known()); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// A client on a unix socket has no address: it is in no range, also not in that
// of all, and at no port.
func TestWithoutAddressesNothingHolds(t *testing.T) {
	for what, r := range map[string]api.RBACRule{
		"range": {Remote: prefix("0.0.0.0/0")}, "range of IPv6": {Direct: prefix("::/0")}, "port": {LocalPorts: &api.PortRange{Last: 65535}},
	} {
		if newRule(&r)(stream.New(1, &stream.Listener{Pipe: "/run/s"}, netip.AddrPort{}, netip.AddrPort{})) {
			t.Errorf("%s holds", what)
		}
	}
}

func TestEngine(t *testing.T) {
	policies := func(hold bool) []api.RBACPolicy {
		p := yes()
		if !hold {
			p = no()
		}
		return []api.RBACPolicy{{Name: "a", Permissions: []api.RBACRule{yes()}, Principals: []api.RBACRule{no()}}, {Name: "b", Permissions: []api.RBACRule{p}, Principals: []api.RBACRule{no(), yes()}}}
	}
	for _, tt := range []struct {
		what   string
		engine api.RBACEngine
		want   verdict
		hint   any
	}{
		{"allow who matches", api.RBACEngine{Policies: policies(true)}, verdict{true, "b"}, nil},
		{"allow nobody else", api.RBACEngine{Policies: policies(false)}, verdict{false, ""}, nil},
		{"deny who matches", api.RBACEngine{Action: api.RBACDeny, Policies: policies(true)}, verdict{false, "b"}, nil},
		{"deny nobody else", api.RBACEngine{Action: api.RBACDeny, Policies: policies(false)}, verdict{true, ""}, nil},
		{"log who matches", api.RBACEngine{Action: api.RBACLog, Policies: policies(true)}, verdict{true, "b"}, true},
		{"log nobody else", api.RBACEngine{Action: api.RBACLog, Policies: policies(false)}, verdict{true, ""}, false},
		{"no policies", api.RBACEngine{}, verdict{false, ""}, nil},
		{"a matcher that finds nothing", api.RBACEngine{Matcher: &api.Matcher{}}, verdict{false, ""}, nil},
		{"a matcher that denies", api.RBACEngine{Matcher: &api.Matcher{OnNoMatch: &api.OnMatch{Action: api.RBACVerdict(api.RBACDeny, "a name")}}}, verdict{false, "a name"}, nil},
		{"a matcher that allows", api.RBACEngine{Matcher: &api.Matcher{OnNoMatch: &api.OnMatch{Action: api.RBACVerdict(api.RBACAllow, "n")}}}, verdict{true, "n"}, nil},
		{"a matcher that logs", api.RBACEngine{Matcher: &api.Matcher{OnNoMatch: &api.OnMatch{Action: api.RBACVerdict(api.RBACLog, "n")}}}, verdict{true, "n"}, true},
		{"a matcher that would have logged others", api.RBACEngine{Matcher: &api.Matcher{
			Tree:      &api.MatcherTree{Input: api.MatchInput{Kind: api.InputSourceIP}, Exact: map[string]*api.OnMatch{"1.1.1.1": {Action: api.RBACVerdict(api.RBACLog, "l")}}},
			OnNoMatch: &api.OnMatch{Action: api.RBACVerdict(api.RBACAllow, "n")}}}, verdict{true, "n"}, false},
		{"a matcher with an action of no verb", api.RBACEngine{Matcher: &api.Matcher{OnNoMatch: &api.OnMatch{Action: "x"}}}, verdict{false, ""}, nil},
	} {
		t.Run(tt.what, func(t *testing.T) {
			i := known()
			if got := newEngine(&tt.engine).ask(i); got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
			if got := i.Metadata()["envoy.common"]["access_log_hint"]; got != tt.hint {
				t.Errorf("hint %v, want %v", got, tt.hint)
			}
		})
	}
	if newEngine(nil) != nil {
		t.Error("an engine that is absent decides")
	}
}

func TestConditions(t *testing.T) {
	for text, want := range map[string]bool{"source.port == 5000": true, "source.port == 1": false, "nope": false, "5": false} {
		p := api.RBACPolicy{Name: "p", Permissions: []api.RBACRule{yes()}, Principals: []api.RBACRule{yes()}, Condition: celtext.Expression(t, text)}
		if got := newEngine(&api.RBACEngine{Policies: []api.RBACPolicy{p}}).ask(known()); got.allowed != want {
			t.Errorf("%s: %+v", text, got)
		}
		if got := newEngine(&api.RBACEngine{Action: api.RBACDeny, Policies: []api.RBACPolicy{p}}).ask(known()); got.allowed == want {
			t.Errorf("%s denies: %+v", text, got)
		}
	}
}

func TestAConditionThatCannotRunLetsNobodyIn(t *testing.T) {
	for _, action := range []api.RBACAction{api.RBACAllow, api.RBACDeny, api.RBACLog} {
		p := api.RBACPolicy{Name: "p", Permissions: []api.RBACRule{yes()}, Principals: []api.RBACRule{yes()}}
		p.Condition.Tree = "\xff"
		if got := newEngine(&api.RBACEngine{Action: action, Policies: []api.RBACPolicy{{Name: "a"}, p}}).ask(known()); got.allowed {
			t.Errorf("%v: %+v", action, got)
		}
	}
}

func TestDetails(t *testing.T) {
	for policy, want := range map[string]string{"": "[none]", "p": "[p]", "a b\tc": "[a_b_c]"} {
		if got := details(policy); got != "rbac_access_denied_matched_policy"+want {
			t.Errorf("%q: %s", policy, got)
		}
	}
}
