package route

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/api"
)

// scratch makes the routes of listeners at once, as the doc has it: everything
// goes to the catcher, then come the listeners without a socket by name, then
// what is excluded.
func scratch(ls []Listener, p *Policy) map[place]api.RouteStatus {
	var catch *Listener
	for i := range ls {
		l := &ls[i]
		if l.HandedOnly || !l.UseOriginalDst || l.Direction == api.Inbound || targetsOf(l) == ([2]netip.AddrPort{}) {
			continue
		}
		if catch == nil || l.Direction == api.Outbound && catch.Direction != api.Outbound {
			catch = l
		}
	}
	out := map[place]api.RouteStatus{}
	if catch == nil {
		return out
	}
	capture := func(prefix netip.Prefix, port uint16, l *Listener) {
		target := targetsOf(catch)[0]
		if prefix.Addr().Is6() {
			target = targetsOf(catch)[1]
		}
		if target.IsValid() && !slices.Contains(p.ExcludePorts, port) {
			out[place{prefix, port}] = api.RouteStatus{Prefix: prefix, Port: port, Verdict: "capture", Listener: l.Name, Cluster: onlyCluster(l.Listener), Policy: kindsOf(rules(l.Listener)), Target: target}
		}
	}
	ports := p.Ports
	if p.All {
		ports = []uint16{0}
	}
	for _, port := range ports {
		capture(all4, port, catch)
		capture(all6, port, catch)
	}
	for i := range ls {
		for _, a := range ls[i].Addresses {
			if ls[i].HandedOnly && a.Addr.Port() != 0 && (len(p.Ports) == 0 || slices.Contains(p.Ports, a.Addr.Port())) {
				capture(prefixOf(a.Addr.Addr()), a.Addr.Port(), &ls[i])
			}
		}
	}
	for _, port := range p.ExcludePorts {
		for _, prefix := range []netip.Prefix{all4, all6} {
			out[place{prefix, port}] = api.RouteStatus{Prefix: prefix, Port: port, Verdict: "pass"}
		}
	}
	return out
}

// edit makes a version of a listener of a few bytes; names, places and rules
// collide often.
func edit(b []byte) Listener {
	names := []string{"a", "b", "c", "d", "e", "f"}
	addrs := []string{"10.0.0.1:80", "10.0.0.2:80", "0.0.0.0:80", "[2001:db8::1]:80", "[::]:81", "10.0.0.1:22", "10.0.0.1:443", "[::ffff:10.0.0.1]:80"}
	l := Listener{Listener: &api.Listener{Name: names[int(b[0])%len(names)], HandedOnly: b[1]&1 != 0, UseOriginalDst: b[1]&2 != 0, Direction: api.TrafficDirection(b[1] >> 2 % 3)}}
	for i := range 1 + int(b[2])%3 {
		a := netip.MustParseAddrPort(addrs[(int(b[2])/3+i)%len(addrs)])
		l.Addresses = append(l.Addresses, api.BindAddress{Addr: a, IPv4Compat: b[2]&64 != 0})
		if b[2]&128 == 0 {
			l.Bound = append(l.Bound, a)
		}
	}
	chain := &api.FilterChain{}
	for i := range int(b[3]) % 3 {
		chain.Filters = append(chain.Filters, api.Filter{RBAC: &api.RBAC{StatPrefix: fmt.Sprint(int(b[3])/3%2 + i)}})
	}
	if b[3]&64 != 0 {
		chain.Filters = append(chain.Filters, api.Filter{ExtAuthz: &api.ExtAuthz{}})
	}
	chain.Filters = append(chain.Filters, api.Filter{TCPProxy: &api.TCPProxy{Cluster: fmt.Sprint("cluster", b[3]>>3%4)}})
	l.FilterChains = []*api.FilterChain{chain}
	return l
}

// play applies edits of five bytes each, and compares with what is made from
// scratch after each.
func play(t *testing.T, p *Policy, edits []byte) {
	w, have := NewWanted(p), map[string]Listener{}
	var last map[place]api.RouteStatus
	policies := map[string]uint32{} // by listener, of the last table
	for ; len(edits) >= 5; edits = edits[5:] {
		l, was := edit(edits), have[edit(edits).Name]
		if edits[4]%4 == 0 {
			w.Remove(l.Name)
			delete(have, l.Name)
		} else {
			w.Set(&l)
			have[l.Name] = l
		}
		want := scratch(slices.SortedFunc(maps.Values(have), func(a, b Listener) int { return cmpNames(a.Name, b.Name) }), p)
		changed := w.changed
		if !changed && last != nil && !maps.Equal(want, last) {
			t.Fatalf("%s changed routes, and was not noticed:\n%s", l.Name, cmp.Diff(last, want, places))
		}
		if edits[4]&64 != 0 { // and again: never a change by itself
			w.Build(1)
			if l, ok := have[l.Name]; ok {
				w.Set(&l)
			}
			if w.changed {
				t.Fatalf("%s changed routes by coming again", l.Name)
			}
		}
		table := w.Build(1)
		got := map[place]api.RouteStatus{}
		for _, r := range table.routes() {
			k := place{r.Prefix, r.Port}
			if _, twice := got[k]; twice {
				t.Fatalf("two routes of %v", k)
			}
			got[k] = r
		}
		if !maps.Equal(want, got) {
			t.Fatalf("after %s, -from scratch +kept:\n%s", l.Name, cmp.Diff(want, got, places))
		}
		if e := w.listeners[l.Name]; e != nil {
			same := was.Listener != nil && cmp.Equal(rules(was.Listener), rules(l.Listener))
			if before, known := policies[l.Name]; known && was.Listener != nil && kindsOf(e.rules) != "" && same != (before == e.policyNumber) {
				t.Fatalf("%s: policy %d after %d, and rules the same: %v", l.Name, e.policyNumber, before, same)
			}
		}
		policies = map[string]uint32{}
		for name, e := range w.listeners {
			policies[name] = e.policyNumber
		}
		last = want
	}
	for name := range have {
		w.Remove(name)
	}
	for _, n := range []numbers{w.names, w.clusters, w.policies} {
		if len(n.byKey) != 0 || len(n.free) != len(n.texts)-1 {
			t.Errorf("numbers are held that nobody needs: %v", n.byKey)
		}
	}
	if len(w.claims)+len(w.catchers)+len(w.listeners) != 0 {
		t.Errorf("left after all went: %v %v %v", w.claims, w.catchers, w.listeners)
	}
}

func cmpNames(a, b string) int {
	if a < b {
		return -1
	}
	return 1
}

var places = cmp.Options{
	cmp.AllowUnexported(place{}),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

func policies(t testing.TB) []*Policy {
	var out []*Policy
	for _, flags := range [][3]string{{"all", "", ""}, {"listeners", "22", ""}, {"80,22,9", "22", "10.0.0.2"}} {
		p, err := ParsePolicy(flags[0], flags[1], flags[2])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, &p)
	}
	return out
}

func TestRoutesKeptAreThoseMadeFromScratch(t *testing.T) {
	random := rand.NewChaCha8([32]byte{8})
	for i := range 300 {
		edits := make([]byte, 5*60)
		random.Read(edits)
		p := policies(t)[i%3]
		t.Run(fmt.Sprint(i), func(t *testing.T) { play(t, p, edits) })
	}
}

func FuzzRoutesKept(f *testing.F) {
	f.Add([]byte{0, 6, 0, 0, 1, 1, 1, 3, 1, 65, 1, 1, 3, 4, 65})
	f.Fuzz(func(t *testing.T, edits []byte) {
		for _, p := range policies(t) {
			play(t, p, edits[:min(len(edits), 500)])
		}
	})
}

func TestAnotherClusterOrRuleIsAChangeAndAnotherLogIsNone(t *testing.T) {
	w := NewWanted(&Policy{All: true})
	catch := listener("all", "0.0.0.0:15001", catches)
	w.Set(&catch)
	version := func(cluster, rule, prefix string) *Listener {
		l := listener("db", "10.0.0.1:5432", handed(cluster))
		l.FilterChains[0].Filters = append([]api.Filter{{RBAC: &api.RBAC{Enforced: &api.RBACEngine{Policies: []api.RBACPolicy{{Name: rule}}}}}}, l.FilterChains[0].Filters...)
		l.StatPrefix = prefix
		return &l
	}
	w.Set(version("a", "x", ""))
	w.Build(1)
	for _, tt := range []struct {
		name string
		to   *Listener
		want bool
	}{
		{"the same", version("a", "x", ""), false}, {"another stat prefix", version("a", "x", "p"), false},
		{"another cluster", version("b", "x", ""), true}, {"another rule", version("b", "y", ""), true},
	} {
		if w.Set(tt.to); w.changed != tt.want {
			t.Errorf("%s: changed %v, want %v", tt.name, w.changed, tt.want)
		}
		w.Build(2)
	}
}

// One change costs what that listener has: the work of it is the same in a table
// of a thousand and in one of ten thousand.
func BenchmarkOneListenerChanges(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := NewWanted(&Policy{All: true})
			catch := listener("all", "0.0.0.0:15001", catches)
			w.Set(&catch)
			for i := range n {
				l := listener(fmt.Sprint("l", i), fmt.Sprintf("10.0.%d.%d:80", i>>8, i&255), handed("c"))
				w.Set(&l)
			}
			versions := []Listener{listener("l7", "10.0.0.7:80", handed("x")), listener("l7", "10.0.0.7:80", handed("y"))}
			for i := 0; b.Loop(); i++ {
				w.Set(&versions[i%2])
			}
		})
	}
}
