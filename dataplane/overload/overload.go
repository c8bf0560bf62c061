package overload

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/api/stats"
)

// Options are what a Manager is made with.
type Options struct {
	// Config may be nil: nothing is measured, and no figure but Envoy's histogram of
	// delays is shown.
	Config *api.Overload
	Stats  *stats.Store
	// Runtime is asked for the heap's maximum; it may be nil.
	Runtime *runtime.Runtime
	// Connections is how many downstream connections count against their limit.
	Connections func() uint64
	// Changed is called, on the manager's goroutine, when an action's state is another
	// one.
	Changed func()
	Log     *slog.Logger
}

// Manager measures, and answers. The zero value answers that all is well.
type Manager struct {
	o       Options
	refresh time.Duration
	delay   *stats.Histogram
	last    time.Time

	monitors []*monitored
	actions  []*action
	points   []*point
	// those with an effect; nil if they are not configured
	stop, reject, reduce *action
	minimum              *api.TimerMinimum
	accept, data, pool   *point
	shrinker             *shrinker
	// refused counts connections beyond their limit; nil without its monitor.
	refused *stats.Counter

	quit   chan struct{}
	done   sync.WaitGroup
	ending sync.Once
}

// New makes a manager that measures nothing before Start. It returns an error if this
// machine has not what a monitor measures.
func New(o Options) (*Manager, error) {
	sc := o.Stats.Scope("overload")
	o.Stats.Scope("").Counter("envoy.overload_actions.reset_high_memory_stream.count") // none is reset for its memory
	m := &Manager{o: o, delay: sc.Histogram("refresh_interval_delay"), quit: make(chan struct{})}
	if o.Config == nil {
		return m, nil
	}
	m.refresh = max(o.Config.Refresh, time.Millisecond)
	for i := range o.Config.Monitors {
		if err := m.add(&o.Config.Monitors[i], sc); err != nil {
			m.closeMonitors()
			return nil, fmt.Errorf("make resource monitor %s: %w", o.Config.Monitors[i].Name, err)
		}
	}
	for i := range o.Config.Actions {
		c := &o.Config.Actions[i]
		a := newAction(c, sc)
		m.actions = append(m.actions, a)
		switch c.Name {
		case api.StopAcceptingConnections:
			m.stop = a
		case api.RejectIncomingConnections:
			m.reject = a
		case api.ReduceTimeouts:
			m.reduce, m.minimum = a, c.ConnectTimeout
		case api.ShrinkHeap:
			m.shrinker = newShrinker(c, a, sc)
		}
	}
	for i := range o.Config.Points {
		c := &o.Config.Points[i]
		p := newPoint(c, sc)
		m.points = append(m.points, p)
		switch c.Name {
		case api.ShedAccept:
			m.accept = p
		case api.ShedData:
			m.data = p
		case api.ShedPool:
			m.pool = p
		}
	}
	return m, nil
}

// Start begins to measure: as in Envoy not where the limit of connections is all that
// there is to.
func (m *Manager) Start() {
	for _, r := range m.monitors {
		if !r.last {
			m.last = time.Now()
			m.done.Go(m.measure)
			break
		}
	}
	if m.shrinker != nil {
		m.done.Go(func() { m.shrinker.run(m.quit) })
	}
}

// Close ends it, once. It waits for a call of Changed that is under way.
func (m *Manager) Close() {
	m.ending.Do(func() {
		close(m.quit)
		m.done.Wait()
		m.closeMonitors()
	})
}

func (m *Manager) closeMonitors() {
	for _, r := range m.monitors {
		r.close()
	}
}

// measure asks the monitors at every interval.
func (m *Manager) measure() {
	t := time.NewTimer(m.refresh)
	defer t.Stop()
	for {
		select {
		case <-m.quit:
			return
		case <-t.C:
		}
		if m.round() && m.o.Changed != nil {
			m.o.Changed()
		}
		now := time.Now()
		m.delay.RecordTime(now.Sub(m.last))
		m.last = now
		t.Reset(m.refresh)
	}
}

// round asks each monitor once, and says whether the state of an action changed.
func (m *Manager) round() (changed bool) {
	for _, r := range m.monitors {
		pressure, err := r.pressure()
		if err != nil {
			m.o.Log.Info("update resource", "resource", r.name, "error", err)
			r.failed.Inc()
			continue
		}
		for _, a := range m.actions {
			changed = a.press(r.name, pressure) || changed
		}
		for _, p := range m.points {
			p.press(r.name, pressure)
		}
		r.shown.Set(uint64(pressure * 100))
	}
	return changed
}

// StopsAccepting says whether listening sockets are to be left alone.
func (m *Manager) StopsAccepting() bool { return m.stop.saturated() }

// Rejects draws whether a connection that was just accepted is to be closed.
func (m *Manager) Rejects() bool {
	return m.accept.sheds() || m.reject != nil && drawn(m.reject.load())
}

// ShedsHosts draws whether a connection to a host is not to be begun.
func (m *Manager) ShedsHosts() bool { return m.pool.sheds() }

// DataShedder draws whether a connection whose client sent bytes is to be closed; nil
// where nothing of the kind is configured, so that nobody has to see the bytes.
func (m *Manager) DataShedder() func() bool {
	if m.data == nil {
		return nil
	}
	return m.data.sheds
}

// Overflowed counts a connection beyond the limit of all.
func (m *Manager) Overflowed() {
	if m.refused != nil {
		m.refused.Inc()
	}
}

// ConnectTimeouts says how transport_socket_connect_timeout is to be scaled now.
func (m *Manager) ConnectTimeouts() Scale {
	if m.reduce == nil || m.minimum == nil {
		return Scale{}
	}
	return Scale{minimum: m.minimum, taken: float64(m.reduce.load())}
}

// Scale shortens timeouts. The zero value leaves them as they are.
type Scale struct {
	minimum *api.TimerMinimum
	taken   float64 // of what lies over the minimum
}

// Of is what becomes of a timeout.
func (s Scale) Of(d time.Duration) time.Duration {
	if s.minimum == nil {
		return d
	}
	least := min(s.minimum.Time, d)
	if s.minimum.Time < 0 {
		least = time.Duration(s.minimum.Share * float64(d))
	}
	return least + time.Duration(float64(d-least)*(1-s.taken))
}
