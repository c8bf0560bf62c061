package assemble

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
)

// secret is one that clusters or listeners refer to.
type secret struct {
	ref api.SecretRef
	// users counts the versions of clusters that refer to it, and one for all
	// listeners.
	users int
	// timeout is the longest that a user wants to wait; ever says for ever.
	timeout time.Duration
	ever    bool
	// current is nil until one came. A removed one stays: who uses it goes on.
	current *held[api.Secret]
	// given says that nobody waits any longer: it came, or the wait was given up.
	given  bool
	failed *Failure
}

// secretState is what the model knows of secrets.
type secretState struct {
	secrets       map[string]*secret // by key; all that are wanted, no others
	staticSecrets map[string]*held[api.Secret]
	ofListeners   map[string]api.SecretRef
	secretEpoch   uint64
	// set is what was published; unset says that it is not up to date.
	set   api.Secrets
	unset bool
}

func newSecretState() secretState {
	return secretState{secrets: map[string]*secret{}, staticSecrets: map[string]*held[api.Secret]{}, ofListeners: map[string]api.SecretRef{}}
}

// AddStaticSecret adds a secret of the bootstrap.
func (m *Model) AddStaticSecret(r Resource[api.Secret], now time.Time) {
	m.staticSecrets[api.StaticSecretKey(r.Name, r.Value.Kind())] = hold(r, now)
}

// Static is the bootstrap's secret of that name and kind, or nil.
func (m *Model) Static(name string, kind api.SecretKind) *api.Secret {
	if h := m.staticSecrets[api.StaticSecretKey(name, kind)]; h != nil {
		return h.value
	}
	return nil
}

// refer notes one more user of each.
func (m *Model) refer(refs []api.SecretRef) {
	for _, r := range refs {
		s := m.secrets[r.Key]
		if s == nil {
			s = &secret{ref: r}
			if r.Static() {
				s.current, s.given = m.staticSecrets[r.Key], true
				m.unset = true
			}
			m.secrets[r.Key] = s
			m.secretEpoch++
		}
		s.users++
		if !r.Static() {
			s.timeout = max(s.timeout, r.Source.InitialFetchTimeout)
			s.ever = s.ever || r.Source.InitialFetchTimeout == 0
		}
	}
}

// unrefer notes one user less; a secret that nobody uses is forgotten.
func (m *Model) unrefer(refs []api.SecretRef) {
	for _, r := range refs {
		s := m.secrets[r.Key]
		if s.users--; s.users == 0 {
			delete(m.secrets, r.Key)
			m.secretEpoch++
			m.unset, m.dirty = true, m.dirty || s.current != nil
		}
	}
}

// wantListenerSecrets takes stock of the secrets that listeners refer to.
func (m *Model) wantListenerSecrets() {
	now := map[string]api.SecretRef{}
	for _, l := range m.listeners {
		for _, h := range []*held[api.Listener]{l.active, l.warming, l.before} {
			if h == nil {
				continue
			}
			for _, r := range h.value.SecretRefs() {
				now[r.Key] = r
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(now)) {
		if _, ok := m.ofListeners[key]; !ok {
			m.refer([]api.SecretRef{now[key]})
		}
	}
	for key, r := range m.ofListeners {
		if _, ok := now[key]; !ok {
			m.unrefer([]api.SecretRef{r})
		}
	}
	m.ofListeners = now
}

// lacks tells whether one of these is waited for still.
func (m *Model) lacks(refs []api.SecretRef) bool {
	for _, r := range refs {
		if s := m.secrets[r.Key]; (s == nil || !s.given) && !r.Static() {
			return true
		}
	}
	return false
}

// SecretRefs are the secrets to ask for, by key.
func (m *Model) SecretRefs() map[string]api.SecretRef {
	out := map[string]api.SecretRef{}
	for key, s := range m.secrets {
		if !s.ref.Static() {
			out[key] = s.ref
		}
	}
	return out
}

// SecretEpoch changes whenever SecretRefs does.
func (m *Model) SecretEpoch() uint64 { return m.secretEpoch }

// SecretTimeout is how long to wait for the secret of this key, 0 is for ever.
func (m *Model) SecretTimeout(key string) time.Duration {
	if s := m.secrets[key]; s != nil && !s.ever {
		return s.timeout
	}
	return 0
}

// HasSecret tells whether raw is what the model has.
func (m *Model) HasSecret(key string, raw *anypb.Any) bool {
	s := m.secrets[key]
	return s != nil && s.failed == nil && s.current.same(raw)
}

// WantsSecret tells whether anybody refers to the secret of this key.
func (m *Model) WantsSecret(key string) bool { return m.secrets[key] != nil }

// SecretRaw is the secret of this key as it came last, nil if none did.
func (m *Model) SecretRaw(key string) (raw *anypb.Any, version string) {
	s := m.secrets[key]
	if s == nil || s.current == nil {
		return nil, ""
	}
	return s.current.raw, s.current.version
}

// UpdateSecrets takes over an SDS response, whose resources are named by key. Keys
// that nobody refers to are ignored. A secret that is no good leaves the last good
// one in force, and ends the wait for the first; a removed one stays.
func (m *Model) UpdateSecrets(u Update[api.Secret]) Result {
	var res Result
	for _, r := range u.Resources {
		s := m.secrets[r.Name]
		if s == nil || s.ref.Static() || r.Err == nil && r.Raw == nil {
			continue
		}
		s.given = true
		err := r.Err
		if err == nil && r.Value != nil && r.Value.Kind() != s.ref.Kind {
			err = fmt.Errorf("secret is no %s but a %s", words[s.ref.Kind], words[r.Value.Kind()])
		}
		if err != nil {
			res.Problems = append(res.Problems, Problem{Name: r.Name, Err: err})
			s.failed = &Failure{Attempted: r.Raw, Version: r.Version, At: u.Now, Err: err}
			continue
		}
		s.failed = nil
		if r.Same {
			continue
		}
		h := hold(r, u.Now)
		if s.current != nil && s.current.value.Equal(h.value) {
			h.value = s.current.value // the pointer tells users that nothing changed
		} else {
			m.unset, m.dirty = true, true
			res.Changed = append(res.Changed, r.Name)
		}
		s.current = h
	}
	m.ripe(u.Now)
	return res
}

var words = map[api.SecretKind]string{
	api.CertificateSecret: "tls_certificate", api.ValidationSecret: "validation_context",
	api.TicketKeysSecret: "session_ticket_keys", api.GenericSecretKind: "generic_secret",
}

// GiveUpSecret stops the wait for the secret of this key, or for all if it is
// empty.
func (m *Model) GiveUpSecret(key string, now time.Time) {
	for k, s := range m.secrets {
		if key == "" || k == key {
			s.given = true
		}
	}
	m.ripe(now)
}

// ripe puts in force what need not wait any longer.
func (m *Model) ripe(now time.Time) {
	if m.warming > 0 {
		for _, c := range m.clusters {
			if w := c.warming; w != nil && w.fed && c.checking == nil {
				m.settle(c, w)
			}
		}
	}
	m.warmed(now)
}

// secretSet is what is published.
func (m *Model) secretSet() api.Secrets {
	if !m.unset {
		return m.set
	}
	m.unset = false
	set := api.Secrets{}
	for key, s := range m.secrets {
		if s.current != nil {
			set[key] = s.current.value
		}
	}
	if !maps.Equal(set, m.set) {
		m.set = set
	}
	return m.set
}

// Secrets lists the bootstrap's secrets, and those that are wanted, by name; one
// that did not come yet has no version at all.
func (m *Model) Secrets() []View {
	out := make([]View, 0, len(m.secrets)+len(m.staticSecrets))
	for _, h := range m.staticSecrets {
		out = append(out, view(h.value.Name, true, h, nil, nil))
	}
	for _, s := range m.secrets {
		if !s.ref.Static() {
			out = append(out, view[api.Secret](s.ref.Name, false, s.current, nil, s.failed))
		}
	}
	return sortViews(out)
}
