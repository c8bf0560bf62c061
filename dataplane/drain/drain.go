// Package drain decides when connections are to end because what they came in by
// goes away: the whole process (/drain_listeners, /healthcheck/fail), a listener,
// or a filter chain. The rules are those of Envoy's DrainManagerImpl; only the
// ends at the end of the drain time are spread out, where Envoy's come together.
package drain

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// DefaultTime is --drain-time-s unless given.
const DefaultTime = 600 * time.Second

// Strategy is --drain-strategy: how soon a connection that asks is told to end.
type Strategy uint8

// The strategies.
const (
	// Gradual ends a growing share: all when the drain time is over.
	Gradual Strategy = iota
	// Immediate ends whoever asks.
	Immediate
)

// ParseStrategy reads a strategy as the flag has it.
func ParseStrategy(s string) (Strategy, error) {
	switch s {
	case "gradual":
		return Gradual, nil
	case "immediate":
		return Immediate, nil
	}
	return 0, fmt.Errorf("read --drain-strategy: %q is none of gradual, immediate", s)
}

// Manager knows what drains. It is safe for concurrent use.
type Manager struct {
	Time     time.Duration
	Strategy Strategy
	// Now is the clock; nil is time.Now.
	Now func() time.Time

	failed       atomic.Bool
	all, inbound since
}

// since is when a drain began, in nanoseconds since 1970; 0 is not yet.
type since struct{ atomic.Int64 }

// FailHealthChecks says whether /healthcheck/fail is in force.
func (m *Manager) FailHealthChecks(fail bool) { m.failed.Store(fail) }

// HealthChecksFail says whether it is.
func (m *Manager) HealthChecksFail() bool { return m.failed.Load() }

// Start begins the drain of all listeners, or of the inbound ones. It returns
// false if one of them drains already.
func (m *Manager) Start(inboundOnly bool) bool {
	if m.all.Load() != 0 || m.inbound.Load() != 0 {
		return false
	}
	what := &m.all
	if inboundOnly {
		what = &m.inbound
	}
	return what.CompareAndSwap(0, m.now())
}

func (m *Manager) now() int64 {
	if m.Now != nil {
		return m.Now().UnixNano()
	}
	return time.Now().UnixNano()
}

// Family is the drain of all versions of a listener, from when its name comes to
// when it goes.
type Family struct {
	manager *Manager
	began   since
}

// Family makes the drain of a listener that is new.
func (m *Manager) Family() *Family { return &Family{manager: m} }

// Start begins the drain of every version.
func (f *Family) Start() { f.began.CompareAndSwap(0, f.manager.now()) }

// Listener is the drain of one version of a listener.
type Listener struct {
	manager *Manager
	family  *Family
	inbound bool
	checks  bool // heeds health checks that are made to fail
	began   since
}

// Listener makes the drain of a version of the listener, which does not drain yet.
func (f *Family) Listener(l *api.Listener) *Listener {
	return &Listener{manager: f.manager, family: f, inbound: l.Direction == api.Inbound, checks: l.DrainType == api.DrainDefault}
}

// Start begins the drain of this version alone.
func (l *Listener) Start() { l.began.CompareAndSwap(0, l.manager.now()) }

// Due decides whether a connection of the listener that asks now is to end.
func (l *Listener) Due() bool {
	m := l.manager
	if l.checks && m.failed.Load() {
		return true
	}
	first := cmp.Or(l.began.Load(), l.family.began.Load(), m.all.Load())
	if first == 0 && l.inbound {
		first = m.inbound.Load()
	}
	switch {
	case first == 0:
		return false
	case m.Strategy == Immediate || m.Time <= 0:
		return true
	}
	return rand.Int64N(int64(m.Time)) < m.now()-first
}

// window is the part of the drain time, at its end, over which connections are
// ended: so that those who come again do not all come at once.
const window = 10

// Window is when the ends begin, counted from the start of the drain, and how
// long they go on: until the drain time is over.
func (m *Manager) Window() (begin, length time.Duration) {
	length = m.Time / window
	return m.Time - length, length
}

// Spread gives the i-th of n connections its time in the window: one after the
// other, none at a round time.
func Spread(i, n int, length time.Duration) time.Duration {
	return time.Duration((float64(i) + rand.Float64()) / float64(max(n, 1)) * float64(length))
}
