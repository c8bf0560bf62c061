package assemble

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Unix(1000, 0)

func raw(format string, args ...any) *anypb.Any {
	return &anypb.Any{TypeUrl: "t", Value: fmt.Appendf(nil, format, args...)}
}

// eds is cluster name, filled by EDS under service; v makes versions differ.
func eds(name, service string, v int) Resource[api.Cluster] {
	return Resource[api.Cluster]{
		Name: name, Version: fmt.Sprint(v), Raw: raw("eds %s %s %d", name, service, v),
		Value: &api.Cluster{Name: name, Discovery: api.EDS, ServiceName: service, ConnectTimeout: time.Duration(v + 1)},
	}
}

func fixed(name string, v int) Resource[api.Cluster] {
	return Resource[api.Cluster]{
		Name: name, Version: fmt.Sprint(v), Raw: raw("static %s %d", name, v),
		Value: &api.Cluster{Name: name, ConnectTimeout: time.Duration(v + 1), Assignment: emptyAssignment()},
	}
}

func broken[T any](name string) Resource[T] {
	return Resource[T]{Name: name, Raw: raw("broken"), Err: errors.New("broken")}
}

func load(name string, v int) Resource[api.Assignment] {
	a := emptyAssignment()
	a.Localities = []api.Locality{{Endpoints: []api.Endpoint{{Addr: netip.AddrPortFrom(netip.IPv6Loopback(), uint16(v)), Weight: 1}}}}
	return Resource[api.Assignment]{Name: name, Version: fmt.Sprint(v), Raw: raw("load %s %d", name, v), Value: a}
}

func on(name string, port uint16) Resource[api.Listener] {
	return Resource[api.Listener]{
		Name: name, Version: fmt.Sprint(port), Raw: raw("listener %s %d", name, port),
		Value: &api.Listener{Name: name, Addresses: []api.BindAddress{{Addr: netip.AddrPortFrom(netip.IPv6Loopback(), port)}}},
	}
}

func clusters(rs ...Resource[api.Cluster]) Update[api.Cluster] {
	return Update[api.Cluster]{Resources: rs, Now: now}
}

func loads(rs ...Resource[api.Assignment]) Update[api.Assignment] {
	return Update[api.Assignment]{Resources: rs, Now: now}
}

func listeners(rs ...Resource[api.Listener]) Update[api.Listener] {
	return Update[api.Listener]{Resources: rs, Now: now}
}

// next publishes, with nothing refused.
func next(m *Model) *api.Snapshot {
	s := m.Snapshot()
	m.Commit(nil, now)
	return s
}

func TestFirstSnapshotIsDueEvenIfEmpty(t *testing.T) {
	m := New()
	if s := next(m); s == nil || s.Generation != 1 {
		t.Fatalf("first snapshot is %+v", s)
	}
	if s := next(m); s != nil {
		t.Fatalf("second snapshot is %+v, want none", s)
	}
}

func TestRevertWhileWarmingDropsTheWarmingVersion(t *testing.T) {
	m := New()
	m.UpdateClusters(clusters(eds("c", "one", 1)))
	m.UpdateEndpoints(loads(load("one", 1)))
	s := next(m)
	m.UpdateClusters(clusters(eds("c", "two", 1)))
	if got := m.EDSNames(); !slices.Equal(got, []string{"one", "two"}) || m.Warming() != 1 {
		t.Fatalf("EDS names %v, warming %d", got, m.Warming())
	}
	m.UpdateClusters(clusters(eds("c", "one", 1)))
	if got := m.EDSNames(); !slices.Equal(got, []string{"one"}) || m.Warming() != 0 {
		t.Fatalf("EDS names %v, warming %d after the revert", got, m.Warming())
	}
	if again := next(m); again != nil && again.Clusters.Get("c") != s.Clusters.Get("c") {
		t.Fatal("the revert changed the cluster")
	}
}

func TestEDSToStaticAndBack(t *testing.T) {
	m := New()
	m.UpdateClusters(clusters(eds("c", "", 1)))
	m.UpdateClusters(clusters(fixed("c", 1)))
	if s := next(m); s.Clusters.Get("c") == nil || len(m.EDSNames()) != 0 || m.Warming() != 0 {
		t.Fatalf("names %v, warming %d", m.EDSNames(), m.Warming())
	}
	m.UpdateClusters(clusters(eds("c", "", 2)))
	if c := func() *api.Cluster { m.GiveUp("c"); return next(m).Clusters.Get("c") }(); c.Discovery != api.EDS || c.Assignment == nil {
		t.Fatalf("cluster is %+v", c)
	}
}

func TestBrokenResourceCountsAsPresent(t *testing.T) {
	m := New()
	u := clusters(fixed("a", 1), fixed("b", 1))
	m.UpdateClusters(u)
	l := listeners(on("x", 1), on("y", 2))
	m.UpdateListeners(l)
	s := next(m)
	u = clusters(broken[api.Cluster]("a"))
	u.Whole = true
	if r := m.UpdateClusters(u); r.Removed != 1 || len(r.Problems) != 1 || r.Problems[0].Name != "a" {
		t.Fatalf("result %+v", r)
	}
	l = listeners(broken[api.Listener]("x"))
	l.Whole = true
	if r := m.UpdateListeners(l); r.Removed != 1 || len(r.Problems) != 1 || r.Problems[0].Name != "x" {
		t.Fatalf("result %+v", r)
	}
	after := next(m)
	if after.Clusters.Get("a") != s.Clusters.Get("a") || after.Listener("x") != s.Listener("x") || after.Clusters.Len() != 1 || len(after.Listeners) != 1 {
		t.Fatalf("snapshot %+v", after)
	}
}

func TestNewListenerThatIsRefusedLeavesItsAddressFree(t *testing.T) {
	m := New()
	m.UpdateListeners(listeners(on("x", 1)))
	m.Snapshot()
	if p := m.Commit(map[string]error{"x": errors.New("no")}, now); len(p) != 1 || p[0].Undone != Added {
		t.Fatalf("problems %+v", p)
	}
	if r := m.UpdateListeners(listeners(on("y", 1))); len(r.Problems) != 0 {
		t.Fatalf("the address of a refused listener is taken: %+v", r.Problems)
	}
	if s := next(m); s.Listener("x") != nil || s.Listener("y") == nil {
		t.Fatalf("snapshot %+v", s)
	}
}

// FuzzModel plays random updates and holds the model to what must always be so.
func FuzzModel(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		g := &game{T: t, m: New(), r: rand.New(rand.NewPCG(seed, 1)), last: &api.Snapshot{}}
		for range 200 {
			g.step()
			g.check()
		}
	})
}

type game struct {
	*testing.T
	m    *Model
	r    *rand.Rand
	last *api.Snapshot
}

func (g *game) name() string { return string(rune('a' + g.r.IntN(4))) }

func (g *game) step() {
	switch g.r.IntN(4) {
	case 0:
		u := Update[api.Cluster]{Whole: g.r.IntN(2) == 0, Now: now}
		for range g.r.IntN(4) {
			switch name, v := g.name(), g.r.IntN(3); g.r.IntN(5) {
			case 0:
				u.Resources = append(u.Resources, broken[api.Cluster](name))
			case 1:
				u.Resources = append(u.Resources, fixed(name, v))
			default:
				u.Resources = append(u.Resources, eds(name, "s"+g.name(), v))
			}
		}
		if !u.Whole && g.r.IntN(3) == 0 {
			u.Removed = []string{g.name()}
		}
		g.m.UpdateClusters(u)
	case 1:
		u := loads()
		for range g.r.IntN(3) {
			u.Resources = append(u.Resources, load("s"+g.name(), g.r.IntN(3)))
		}
		g.m.UpdateEndpoints(u)
	case 2:
		g.m.GiveUp("s" + g.name())
	case 3:
		u := Update[api.Listener]{Whole: g.r.IntN(2) == 0, Now: now}
		for range g.r.IntN(4) {
			u.Resources = append(u.Resources, on(g.name(), uint16(g.r.IntN(4))))
		}
		g.m.UpdateListeners(u)
	}
}

func (g *game) check() {
	m := g.m
	warming, active, wanted := 0, 0, map[string]bool{}
	for name, c := range m.clusters {
		for _, h := range []*held[api.Cluster]{c.active, c.warming} {
			if h != nil && h.value.Discovery == api.EDS {
				wanted[h.value.EDSKey()] = true
			}
		}
		if c.warming != nil {
			warming++
			if !m.Waiting(c.warming.value.EDSKey()) {
				g.Fatalf("cluster %s warms for %s, which is known", name, c.warming.value.EDSKey())
			}
		}
		if c.active != nil {
			active++
		}
	}
	if warming != m.Warming() || active != m.ActiveClusters() {
		g.Fatalf("counts %d warming, %d active; are %d and %d", m.Warming(), m.ActiveClusters(), warming, active)
	}
	for _, name := range m.EDSNames() {
		if !wanted[name] {
			g.Fatalf("EDS name %s is asked for, nobody wants it", name)
		}
		delete(wanted, name)
	}
	if len(wanted) != 0 {
		g.Fatalf("EDS names %v are wanted, not asked for", wanted)
	}
	s := m.Snapshot()
	refused := map[string]error{}
	if s != nil && g.r.IntN(4) == 0 {
		refused[g.name()] = errors.New("refused")
	}
	if s == nil {
		return
	}
	for _, p := range m.Commit(refused, now) {
		if s.Listener(p.Name) == nil {
			g.Fatalf("refusal of %s, which is not in the snapshot", p.Name)
		}
	}
	if s.Generation != g.last.Generation+1 {
		g.Fatalf("generation %d after %d", s.Generation, g.last.Generation)
	}
	g.addresses(s)
	for c := range s.Clusters.All() {
		if c.Assignment == nil {
			g.Fatalf("cluster %s is published without endpoints", c.Name)
		}
		if c.Discovery == api.EDS && !c.Assignment.Equal(g.m.endpoints[c.EDSKey()].current.value) {
			g.Fatalf("cluster %s is published with other endpoints than those of %s", c.Name, c.EDSKey())
		}
	}
	g.kept()
	g.last = s
}

// kept holds what the model keeps from update to update to what its resources say.
func (g *game) kept() {
	active, warming, clusters := 0, 0, 0
	for _, l := range g.m.listeners {
		if l.active != nil {
			active++
		}
		if l.warming != nil {
			warming++
		}
	}
	if a, w := g.m.ActiveListeners(), g.m.WarmingListeners(); a != active || w != warming {
		g.Fatalf("%d listeners counted active and %d warming, want %d and %d", a, w, active, warming)
	}
	for name, c := range g.m.clusters {
		if c.active == nil {
			continue
		}
		clusters++
		if g.m.published.Get(name) != c.joined {
			g.Fatalf("cluster %s is not published as it is", name)
		}
	}
	if g.m.published.Len() != clusters {
		g.Fatalf("%d clusters are published, want %d", g.m.published.Len(), clusters)
	}
	for _, v := range g.m.listed {
		if l := g.m.listeners[v.Name]; l == nil || l.active == nil || l.resolved == nil && l.active.value != v || l.resolved != nil && l.resolved != v {
			g.Fatalf("listener %s is not listed as it is", v.Name)
		}
	}
}

// addresses holds the snapshot to one live listener per address. It must hold for
// what is in the model too, after refusals.
func (g *game) addresses(s *api.Snapshot) {
	all := slices.Clone(s.Listeners)
	one := func(all []*api.Listener) {
		taken := map[uint16]string{}
		for _, l := range all {
			if p := l.Addresses[0].Addr.Port(); p != 0 {
				if taken[p] != "" {
					g.Fatalf("%s and %s are both on port %d", taken[p], l.Name, p)
				}
				taken[p] = l.Name
			}
		}
	}
	one(all)
	all = all[:0]
	for _, l := range g.m.listeners {
		if l.active != nil {
			all = append(all, l.active.value)
		}
	}
	one(all)
}

func TestListenerGivesWayToOneThatFallsBackToItsAddress(t *testing.T) {
	m := New()
	m.UpdateListeners(listeners(on("b", 3)))
	next(m)
	m.UpdateListeners(listeners(on("b", 2), on("c", 3)))
	m.Snapshot()
	if p := m.Commit(map[string]error{"b": errors.New("in use")}, now); len(p) != 2 || p[1].Name != "c" || p[1].Undone != Added {
		t.Fatalf("problems %+v, want b and c", p)
	}
	s := next(m)
	if s == nil || s.Listener("c") != nil || s.Listener("b").Addresses[0].Addr.Port() != 3 {
		t.Fatalf("snapshot %+v, want b back and c gone", s)
	}
}
