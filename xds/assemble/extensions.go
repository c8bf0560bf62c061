package assemble

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
)

// extension is the configuration of a discovered filter, by its key.
type extension struct {
	name   string
	source api.ConfigSource
	// listener says that it is a listener filter's.
	listener bool
	// current is nil until one came, and after it was removed.
	current *held[api.Extension]
	// given says that nobody waits any longer: it came, or the wait was given up.
	given  bool
	failed *Failure
}

// Discoveries calls f for every discovered filter of l.
func Discoveries(l *api.Listener, f func(name string, d *api.FilterDiscovery)) {
	for i := range l.ListenerFilters {
		if d := l.ListenerFilters[i].Discovery; d != nil {
			f(l.ListenerFilters[i].Name, d)
		}
	}
	chains := l.FilterChains
	if l.DefaultFilterChain != nil {
		chains = append(slices.Clip(chains), l.DefaultFilterChain)
	}
	for _, c := range chains {
		for i := range c.Filters {
			if d := c.Filters[i].Discovery; d != nil {
				f(c.Filters[i].Name, d)
			}
		}
	}
}

// waits tells whether a listener has to wait for the configuration of a filter, or
// for a secret.
func (m *Model) waits(l *api.Listener) (wait bool) {
	if m.lacks(l.SecretRefs()) {
		return true
	}
	Discoveries(l, func(name string, d *api.FilterDiscovery) {
		if e := m.extensions[d.Key(name)]; !d.WithoutWarming && (e == nil || !e.given) {
			wait = true
		}
	})
	return wait
}

// wantExtensions takes stock of the extensions, and the secrets, that listeners
// want.
func (m *Model) wantExtensions() {
	m.wantListenerSecrets()
	wanted := map[string]bool{}
	for _, name := range m.listenersInOrder() {
		l := m.listeners[name]
		for _, h := range []*held[api.Listener]{l.active, l.warming, l.before} {
			if h == nil {
				continue
			}
			Discoveries(h.value, func(name string, d *api.FilterDiscovery) {
				key := d.Key(name)
				wanted[key] = true
				if m.extensions[key] == nil {
					m.extensions[key] = &extension{name: name, source: d.Source, listener: d.Listener}
					m.extensionKeys = append(m.extensionKeys, key)
					m.extensionEpoch++
				}
			})
		}
	}
	m.extensionKeys = slices.DeleteFunc(m.extensionKeys, func(key string) bool {
		if !wanted[key] {
			delete(m.extensions, key)
			m.extensionEpoch++
		}
		return !wanted[key]
	})
}

func (m *Model) listenersInOrder() []string {
	out := make([]string, 0, len(m.listeners))
	for name := range m.listeners {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// ExtensionRef is a subscription to the configuration of a filter.
type ExtensionRef struct {
	Key, Name string
	Source    api.ConfigSource
	Listener  bool
}

// ExtensionRefs are what to ask ECDS for, in the order in which they were first
// wanted.
func (m *Model) ExtensionRefs() []ExtensionRef {
	out := make([]ExtensionRef, 0, len(m.extensionKeys))
	for _, key := range m.extensionKeys {
		e := m.extensions[key]
		out = append(out, ExtensionRef{Key: key, Name: e.name, Source: e.source, Listener: e.listener})
	}
	return out
}

// ExtensionEpoch changes whenever ExtensionRefs does.
func (m *Model) ExtensionEpoch() uint64 { return m.extensionEpoch }

// WarmingListeners is how many listeners wait for an extension or a secret.
func (m *Model) WarmingListeners() int {
	m.list()
	return m.warmingListeners
}

// ExtensionTimeout is the longest that a listener wants to wait for key.
func (m *Model) ExtensionTimeout(key string) (longest time.Duration) {
	ever := false
	m.users(key, func(d *api.FilterDiscovery) {
		ever = ever || d.Timeout == 0
		longest = max(longest, d.Timeout)
	})
	if ever {
		return 0
	}
	return longest
}

// users calls f for every filter that wants the extension of key.
func (m *Model) users(key string, f func(*api.FilterDiscovery)) {
	for _, l := range m.listeners {
		for _, h := range []*held[api.Listener]{l.active, l.warming} {
			if h != nil {
				Discoveries(h.value, func(n string, d *api.FilterDiscovery) {
					if d.Key(n) == key {
						f(d)
					}
				})
			}
		}
	}
}

// HasExtension tells whether raw is what the model has.
func (m *Model) HasExtension(key string, raw *anypb.Any) bool {
	e := m.extensions[key]
	return e != nil && e.current.same(raw)
}

// WantsExtension tells whether a listener wants the extension of key.
func (m *Model) WantsExtension(key string) bool { return m.extensions[key] != nil }

// UpdateExtensions takes over an ECDS response, by keys. Those that nobody wants are
// ignored. Where one was removed its filter falls back to its default.
func (m *Model) UpdateExtensions(u Update[api.Extension]) Result {
	var res Result
	for _, r := range u.Resources {
		e := m.extensions[r.Name]
		if e == nil || r.Err == nil && r.Raw == nil {
			continue
		}
		err := r.Err
		if err == nil && r.Value != nil {
			m.users(r.Name, func(d *api.FilterDiscovery) {
				if why := d.Fits(e.name, r.Value); why != nil {
					err = why
				}
			})
		}
		if err != nil {
			res.Problems = append(res.Problems, Problem{Name: r.Name, Err: err})
			e.failed = &Failure{Attempted: r.Raw, Version: r.Version, At: u.Now, Err: err}
			continue
		}
		e.failed, e.given = nil, true
		if !r.Same && !e.current.same(r.Raw) {
			e.current = hold(r, u.Now)
			res.Changed = append(res.Changed, r.Name)
			m.dirty, m.unlisted = true, true
		}
	}
	for _, name := range u.Removed {
		if e := m.extensions[name]; e != nil {
			e.given = true
			e.current = nil
			res.Changed = append(res.Changed, name)
			m.dirty, m.unlisted = true, true
		}
	}
	m.warmed(u.Now)
	return res
}

// GiveUpExtension stops the wait for key.
func (m *Model) GiveUpExtension(key string, now time.Time) {
	if e := m.extensions[key]; e != nil {
		e.given = true
	}
	m.warmed(now)
}

// warmed activates the listeners that need not wait any longer.
func (m *Model) warmed(now time.Time) {
	for _, name := range m.listenersInOrder() {
		l := m.listeners[name]
		if w := l.warming; w != nil && !m.waits(w.value) {
			l.warming, m.unlisted = nil, true
			m.setListener(l, w)
		}
	}
	m.wantExtensions()
}

// resolved is l as it is published: discovered filters replaced by what came, or
// by their default. A chain for whose filter there is neither has no filters,
// which closes its connections (Envoy counts network_extension_config_missing).
func (m *Model) resolved(l *listener) *api.Listener {
	found := false
	Discoveries(l.active.value, func(string, *api.FilterDiscovery) { found = true })
	if !found {
		l.resolved = nil
		return l.active.value
	}
	cp := *l.active.value
	cp.ListenerFilters = slices.Clone(cp.ListenerFilters)
	for i := range cp.ListenerFilters {
		m.resolveListenerFilter(&cp.ListenerFilters[i])
	}
	cp.FilterChains = slices.Clone(cp.FilterChains)
	for i, c := range cp.FilterChains {
		cp.FilterChains[i] = m.resolvedChain(c)
	}
	if cp.DefaultFilterChain != nil {
		cp.DefaultFilterChain = m.resolvedChain(cp.DefaultFilterChain)
	}
	if l.resolved == nil || !l.resolved.Equal(&cp) {
		l.resolved = &cp
	}
	return l.resolved
}

func (m *Model) resolveListenerFilter(f *api.ListenerFilter) {
	d := f.Discovery
	if d == nil {
		return
	}
	was := *f
	switch e := m.extensions[d.Key(f.Name)]; {
	case e != nil && e.current != nil:
		*f = *e.current.value.Listener
	case d.DefaultListener != nil:
		*f = *d.DefaultListener
	default:
		*f = api.ListenerFilter{Missing: true}
	}
	f.Name, f.Disabled = was.Name, was.Disabled
}

func (m *Model) resolvedChain(c *api.FilterChain) *api.FilterChain {
	cp := *c
	cp.Filters = nil
	for _, f := range c.Filters {
		if f.Discovery == nil {
			cp.Filters = append(cp.Filters, f)
			continue
		}
		e := m.extensions[f.Discovery.Key(f.Name)]
		switch {
		case e != nil && e.current != nil && e.current.value.Empty:
		case e != nil && e.current != nil:
			one := e.current.value.Filter
			one.Name = f.Name
			cp.Filters = append(cp.Filters, one)
		case f.Discovery.Default != nil:
			if f.Discovery.Default.Name != "" {
				cp.Filters = append(cp.Filters, *f.Discovery.Default)
			}
		default:
			cp.Filters = nil
			return &cp
		}
	}
	return &cp
}

// Extensions lists all extensions that came, by name.
func (m *Model) Extensions() []View {
	out := make([]View, 0, len(m.extensions))
	for _, e := range m.extensions {
		if e.current != nil || e.failed != nil {
			out = append(out, view[api.Extension](e.name, false, e.current, nil, e.failed))
		}
	}
	return sortViews(out)
}

// Unready are what Envoy calls the things that a warming listener waits for, by the listener's name.
func (m *Model) Unready() map[string][]string {
	out := map[string][]string{}
	for name, l := range m.listeners {
		if l.warming == nil {
			continue
		}
		for _, r := range l.warming.value.SecretRefs() {
			if m.lacks([]api.SecretRef{r}) {
				out[name] = append(out[name], "SdsApi "+r.Name)
			}
		}
		Discoveries(l.warming.value, func(n string, d *api.FilterDiscovery) {
			if e := m.extensions[d.Key(n)]; !d.WithoutWarming && (e == nil || !e.given) {
				out[name] = append(out[name], "FilterConfigSubscription init "+n)
			}
		})
	}
	return out
}
