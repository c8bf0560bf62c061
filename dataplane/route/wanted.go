package route

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
)

// Wanted are the routes that the listeners in force ask for, kept by listener: a
// change of one costs what that one has, however many there are. Not safe for
// concurrent use.
type Wanted struct {
	policy    *Policy
	listeners map[string]*entry // those that routes are made of
	// catchers are the listeners that could take what is captured; catch is the
	// one that does, or nil.
	catchers map[string]*entry
	catch    *entry
	// claims are the listeners that serve a place, by name; the last one has it.
	claims map[place][]*entry

	names, clusters, policies numbers
	version                   uint64 // of the newest policy
	// changed says that Build would not give what it last gave.
	changed bool
}

// place is what a route is of.
type place struct {
	prefix netip.Prefix
	port   uint16 // 0: any
}

// entry is what a listener is to routes.
type entry struct {
	name string
	// places are those that it serves without a socket.
	places []place
	// rank is how much it may take what is captured: 0 not at all.
	rank    int
	targets [2]netip.AddrPort // IPv4, IPv6
	cluster string
	// rules are, by chain, the filters that say who may connect.
	rules [][]api.Filter

	number, clusterNumber, policyNumber uint32
}

// NewWanted has no listener yet.
func NewWanted(p *Policy) *Wanted {
	return &Wanted{
		policy: p, listeners: map[string]*entry{}, catchers: map[string]*entry{}, claims: map[place][]*entry{},
		names: newNumbers(), clusters: newNumbers(), policies: newNumbers(), changed: true,
	}
}

// Set takes down a listener, or a new version of it.
func (w *Wanted) Set(l *Listener) {
	e, have := w.describe(l), w.listeners[l.Name]
	if have == nil && !e.matters() || have != nil && have.equal(e) {
		return
	}
	if e.matters() {
		w.add(e, have)
	} else {
		delete(w.listeners, l.Name)
	}
	if have != nil {
		w.drop(have)
	}
	w.choose()
}

// Remove forgets a listener.
func (w *Wanted) Remove(name string) {
	if have := w.listeners[name]; have != nil {
		delete(w.listeners, name)
		w.drop(have)
		w.choose()
	}
}

func (w *Wanted) describe(l *Listener) *entry {
	e := &entry{name: l.Name, cluster: onlyCluster(l.Listener), rules: rules(l.Listener)}
	if !l.HandedOnly {
		// Its socket can be reached without us.
		if targets := targetsOf(l); l.UseOriginalDst && l.Direction != api.Inbound && targets != ([2]netip.AddrPort{}) {
			e.rank, e.targets = 1, targets
			if l.Direction == api.Outbound {
				e.rank = 2
			}
		}
		return e
	}
	for i := range l.Addresses {
		a := l.Addresses[i].Addr
		if !a.IsValid() || a.Port() == 0 || !w.policy.serves(a.Port()) {
			continue
		}
		if p := (place{prefixOf(a.Addr()), a.Port()}); !slices.Contains(e.places, p) {
			e.places = append(e.places, p)
		}
	}
	return e
}

func (e *entry) matters() bool { return e.rank > 0 || len(e.places) > 0 }

func (e *entry) equal(o *entry) bool {
	return e.rank == o.rank && e.targets == o.targets && e.cluster == o.cluster &&
		slices.Equal(e.places, o.places) && reflect.DeepEqual(e.rules, o.rules)
}

// add puts e in the place of have, which may be nil and is dropped after: what
// both have keeps its number.
func (w *Wanted) add(e, have *entry) {
	w.listeners[e.name] = e
	e.number, e.clusterNumber = w.names.take(e.name, e.name), w.clusters.take(e.cluster, e.cluster)
	switch kinds := kindsOf(e.rules); {
	case kinds == "":
	case have != nil && reflect.DeepEqual(have.rules, e.rules):
		e.policyNumber = w.policies.again(have.policyNumber)
	default: // other rules are another policy, though they read alike
		w.version++
		e.policyNumber = w.policies.take(kinds, w.version)
	}
	if e.rank > 0 {
		w.catchers[e.name] = e
	}
	for _, p := range e.places {
		c := w.claims[p]
		i, _ := slices.BinarySearchFunc(c, e.name, func(o *entry, name string) int { return strings.Compare(o.name, name) })
		if i < len(c) && c[i] == have {
			i++ // after the version that goes
		}
		w.claims[p] = slices.Insert(c, i, e)
		w.touch(i == len(c))
	}
}

// drop undoes add; a newer version may be in its place.
func (w *Wanted) drop(e *entry) {
	w.names.give(e.number)
	w.clusters.give(e.clusterNumber)
	w.policies.give(e.policyNumber)
	if w.catchers[e.name] == e {
		delete(w.catchers, e.name)
	}
	for _, p := range e.places {
		c := w.claims[p]
		i := slices.Index(c, e)
		w.touch(i == len(c)-1)
		if c = slices.Delete(c, i, i+1); len(c) > 0 {
			w.claims[p] = c
		} else {
			delete(w.claims, p)
		}
	}
}

// touch notes a change of routes, which there are none of while nobody takes
// what is captured.
func (w *Wanted) touch(changed bool) {
	w.changed = w.changed || changed && (w.catch != nil || w.policy.RefuseIdle)
}

// choose finds the listener that takes what is captured: the outbound one, else
// the first by name.
func (w *Wanted) choose() {
	var best *entry
	for _, e := range w.catchers {
		if best == nil || e.rank > best.rank || e.rank == best.rank && e.name < best.name {
			best = e
		}
	}
	if best != w.catch {
		w.catch, w.changed = best, true
	}
}

// nobody takes what is captured: no socket can have that port.
var nobody = &entry{targets: [2]netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), 0), netip.AddrPortFrom(netip.IPv6Unspecified(), 0)}}

// Build makes the table of all routes, and forgets that there was a change.
func (w *Wanted) Build(generation uint64) *Table {
	w.changed = false
	ports := w.policy.ports()
	t, catch := w.begin(generation, len(w.claims)+2*len(ports))
	if catch == nil {
		return t
	}
	w.captureWherever(t, catch, ports)
	for p, c := range w.claims {
		t.capture(p, c[len(c)-1])
	}
	return t
}

// Coarse makes a table that needs no room for each listener. Where all of a port
// is captured it decides like Build's, and only does not name the listener; where
// listeners say what is captured it captures everything, or nothing.
func (w *Wanted) Coarse(generation uint64) *Table {
	ports := w.policy.ports()
	if w.policy.ByListener {
		ports = []uint16{0}
	}
	t, catch := w.begin(generation, 2*len(ports))
	t.Full = fmt.Sprintf("the routes of %d places do not fit", len(w.claims))
	switch {
	case catch == nil:
	case w.policy.ByListener && w.policy.WhenFull == FullPass:
		t.Idle, t.kernel.Routes = t.Full+": everything passes", nil
	default:
		w.captureWherever(t, catch, ports)
	}
	return t
}

// begin makes a table of what is excluded. Without who could take what is
// captured that is all.
func (w *Wanted) begin(generation uint64, routes int) (*Table, *entry) {
	t := &Table{listeners: slices.Clone(w.names.texts), clusters: slices.Clone(w.clusters.texts), policies: slices.Clone(w.policies.texts)}
	t.kernel.Generation = generation
	t.kernel.Exclude = append(slices.Clip(local), w.policy.Exclude...)
	catch := w.catch
	if catch == nil {
		t.Idle = NoListener
		if !w.policy.RefuseIdle {
			return t, nil
		}
		t.refuses, catch = true, nobody
	}
	t.kernel.Targets = catch.targets[:]
	t.kernel.Routes = make([]bpf.Route, 0, routes+2*len(w.policy.ExcludePorts))
	for _, port := range w.policy.ExcludePorts {
		for _, prefix := range []netip.Prefix{all4, all6} {
			t.kernel.Routes = append(t.kernel.Routes, bpf.Route{Prefix: prefix, Port: port, Verdict: bpf.VerdictPass})
		}
	}
	return t, catch
}

// captureWherever captures ports whatever the address, but for those routes that
// a listener has.
func (w *Wanted) captureWherever(t *Table, catch *entry, ports []uint16) {
	for _, port := range ports {
		for _, prefix := range []netip.Prefix{all4, all6} {
			if p := (place{prefix, port}); len(w.claims[p]) == 0 || t.Full != "" {
				t.capture(p, catch)
			}
		}
	}
}

func (t *Table) capture(p place, e *entry) {
	target := 0
	if p.prefix.Addr().Is6() {
		target = 1
	}
	if !t.kernel.Targets[target].IsValid() {
		return
	}
	t.kernel.Routes = append(t.kernel.Routes, bpf.Route{
		Prefix: p.prefix, Port: p.port, Verdict: bpf.VerdictCapture, Target: uint32(target),
		Listener: e.number, Cluster: e.clusterNumber, Policy: e.policyNumber,
	})
}
