package assemble

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
)

// listener is one name in all its versions.
type listener struct {
	name   string
	number uint64 // the order in which listeners came
	static bool
	active *held[api.Listener]
	// warming replaces active once the extensions and secrets that it waits for are
	// there.
	warming *held[api.Listener]
	// resolved is active as it was published, if it has discovered filters.
	resolved *api.Listener
	// before is what active falls back to if the plane refuses it; it has a
	// meaning only while the listener is tentative.
	before    *held[api.Listener]
	tentative bool
	failed    *Failure
}

// latest is the version that a new one is compared with.
func (l *listener) latest() *held[api.Listener] {
	if l.warming != nil {
		return l.warming
	}
	return l.active
}

// HasListener tells whether raw is the newest version.
func (m *Model) HasListener(name string, raw *anypb.Any) bool {
	l := m.listeners[name]
	return l != nil && !l.static && l.latest().same(raw)
}

// UpdateListeners takes over an LDS response: removals first, so that a new
// listener can take the address of one that goes (Envoy's lds_api), then the
// rest in order. A static listener is neither replaced nor removed, and that is
// no error (Envoy 1.40: ACKed).
func (m *Model) UpdateListeners(u Update[api.Listener]) Result {
	var res Result
	if u.Whole {
		named := make(map[string]bool, len(u.Resources))
		for _, r := range u.Resources {
			named[r.Name] = true
		}
		for name, l := range m.listeners {
			if !named[name] && m.removeListener(l) {
				res.Removed++
			}
		}
	}
	for _, name := range u.Removed {
		if l := m.listeners[name]; l != nil && m.removeListener(l) {
			res.Removed++
		}
	}
	owners := m.owners()
	seen := make(map[string]bool, len(u.Resources))
	for _, r := range u.Resources {
		if seen[r.Name] && r.Name != "" {
			res.Problems = append(res.Problems, Problem{Name: r.Name, Err: fmt.Errorf("duplicate listener %s found", r.Name)})
			continue
		}
		seen[r.Name] = true
		m.updateListener(r, u.Now, owners, &res)
	}
	m.wantExtensions()
	return res
}

func (m *Model) updateListener(r Resource[api.Listener], now time.Time, owners map[string]*listener, res *Result) {
	l := m.listeners[r.Name]
	if r.Err == nil && (r.Raw == nil || l != nil && l.static) {
		return
	}
	if l == nil {
		l = &listener{name: r.Name, number: m.number()}
		m.listeners[r.Name] = l
	}
	if r.Err == nil && (r.Same || l.latest().same(r.Raw)) {
		l.failed = nil
		return
	}
	err := r.Err
	if err == nil && l.active != nil && l.active.value.ReusePort != r.Value.ReusePort {
		err = fmt.Errorf("Listener %s: reuse port cannot be changed during an update", r.Name) // Envoy's words
	}
	if err == nil {
		err = clash(l, r.Value, owners)
	}
	if err != nil {
		res.Problems = append(res.Problems, Problem{Name: r.Name, Err: err})
		l.failed = &Failure{Attempted: r.Raw, Version: r.Version, At: now, Err: err}
		return
	}
	l.failed = nil
	if h := l.latest(); h != nil && h.value.Equal(r.Value) {
		// Other bytes, same meaning: only the dump changes.
		h.raw, h.version, h.updated = r.Raw, r.Version, now
		return
	}
	if l.latest() == nil {
		res.Added++
	} else {
		res.Modified++
		if l.active != nil && l.active.value.EqualButChains(r.Value) {
			res.InPlace++
			r.Version = l.active.version // as in Envoy, the dump goes on with the older one
		}
		for a, o := range owners {
			if o == l {
				delete(owners, a)
			}
		}
	}
	for _, a := range r.Value.Addresses {
		owners[a.String()] = l
	}
	m.takeListener(l, hold(r, now))
}

// takeListener lets h serve, or wait for its extensions first.
func (m *Model) takeListener(l *listener, h *held[api.Listener]) {
	l.warming, m.unlisted = nil, true
	if m.waits(h.value) {
		l.warming = h
		return
	}
	m.setListener(l, h)
}

func (m *Model) setListener(l *listener, h *held[api.Listener]) {
	if !l.tentative {
		l.tentative, l.before = true, l.active
		m.tentative = append(m.tentative, l)
	}
	l.active = h
	m.dirty, m.unlisted = true, true
}

func (m *Model) removeListener(l *listener) bool {
	if l.static {
		return false
	}
	delete(m.listeners, l.name)
	m.unlisted = true
	if l.active != nil {
		m.dirty = true
	}
	return l.latest() != nil
}

// owners is who has which address.
func (m *Model) owners() map[string]*listener {
	out := make(map[string]*listener, len(m.listeners))
	for _, l := range m.listeners {
		for _, h := range []*held[api.Listener]{l.active, l.warming} {
			if h == nil {
				continue
			}
			for _, a := range h.value.Addresses {
				out[a.String()] = l
			}
		}
	}
	return out
}

// clash refuses an address that another live listener has, in the words of
// Envoy 1.40. Port 0 does not clash, as the kernel chooses, unless nothing is
// bound.
func clash(l *listener, v *api.Listener, owners map[string]*listener) error {
	for _, a := range v.Addresses {
		chosen := a.Path == "" && a.Addr.Port() == 0 && !v.HandedOnly
		if o := owners[a.String()]; o != nil && o != l && !chosen {
			return fmt.Errorf("error adding listener: '%s' has duplicate address '%s' as existing listener, "+
				"to check if the listener has duplicated addresses with other listeners or "+
				"'enable_reuse_port' is set to 'false' for the listener", v.Name, &a)
		}
	}
	return nil
}

// Commit says what became of the last snapshot. A listener that was refused goes
// back to the version before, or away if there was none; it is tried again when
// it is sent again, not before. A listener that had taken the address which it
// goes back to must give way: it falls too, in Envoy's words for a duplicate
// address, and another Snapshot is due. Commit returns all that fell, in the
// order of the update; refusals of other listeners are none of its business.
func (m *Model) Commit(refused map[string]error, now time.Time) []Problem {
	fell := map[*listener]error{}
	old := map[string]*listener{} // what the fallen hold again
	for again := true; again; {
		again = false
		for _, l := range m.tentative {
			if fell[l] != nil {
				continue
			}
			err := refused[l.name]
			if err == nil {
				if err = clash(l, l.active.value, old); err == nil {
					continue
				}
				m.dirty = true
			}
			fell[l], again = err, true
			if l.before != nil {
				for _, a := range l.before.value.Addresses {
					old[a.String()] = l
				}
			}
		}
	}
	var out []Problem
	for _, l := range m.tentative {
		if err := fell[l]; err != nil {
			undone := Modified
			if l.before == nil {
				undone = Added
			}
			out = append(out, Problem{Name: l.name, Err: err, Undone: undone})
			l.failed = &Failure{Attempted: l.active.raw, Version: l.active.version, At: now, Err: err}
			l.active, m.unlisted = l.before, true
		}
		l.tentative, l.before = false, nil
	}
	m.tentative = m.tentative[:0]
	if len(m.extensions)+len(m.secrets) > 0 {
		m.wantExtensions()
	}
	return out
}

// AddStaticListener adds a listener of the bootstrap.
func (m *Model) AddStaticListener(r Resource[api.Listener], now time.Time) error {
	if m.listeners[r.Name] != nil {
		return fmt.Errorf("listener %s: duplicate name", r.Name)
	}
	l := &listener{name: r.Name, static: true, number: m.number()}
	if err := clash(l, r.Value, m.owners()); err != nil {
		return fmt.Errorf("listener %s: %w", r.Name, err)
	}
	m.listeners[r.Name] = l
	m.takeListener(l, hold(r, now))
	m.wantExtensions()
	return nil
}

// Listeners lists all listeners in the order in which they came.
func (m *Model) Listeners() []View {
	out := make([]View, 0, len(m.listeners))
	for _, l := range slices.SortedFunc(maps.Values(m.listeners), inOrder) {
		out = append(out, view(l.name, l.static, l.active, l.warming, l.failed))
	}
	return out
}

func (m *Model) number() uint64 {
	m.listenersMade++
	return m.listenersMade
}

func inOrder(a, b *listener) int { return cmp.Compare(a.number, b.number) }
