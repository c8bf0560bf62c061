// Package outlier takes hosts out of the choice that fail while they serve, for
// a time: Envoy's outlier detection as it applies to TCP
// (source/common/upstream/outlier_detection_impl.cc; what moves when was
// measured on Envoy 1.40).
//
// A connection that stands is a success, one that is refused or takes too long a
// failure. What happens to it later does not count. Workers report by counters;
// who is ejected is decided off the loops.
package outlier

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/clock"
)

// Options are what all detectors share.
type Options struct {
	Stats   *stats.Store
	Runtime *runtime.Runtime // may be nil
	Clock   clock.Clock
	// Log takes the lines of the event log; nil is none.
	Log interface{ Write(line []byte) }
	// Rand yields uniform numbers; rand.Uint64 if nil.
	Rand func() uint64
}

// Host is what a detector watches.
type Host interface {
	comparable
	// Address is what the event log calls it.
	Address() string
}

// Detector watches the hosts of one cluster. It is safe for concurrent use.
type Detector[H Host] struct {
	o      Options
	config *api.OutlierDetection
	name   string // the cluster's
	told   func(H)
	stats  *figures

	mu       sync.Mutex
	monitors map[H]*Monitor
	hosts    map[*Monitor]H
	active   int // hosts that are ejected
	rates    [origins]rates
	timer    clock.Timer
	closed   bool
}

// New watches the hosts of c, which are given by SetHosts. told is called when a
// host is ejected or comes back, without a lock; the host's monitor says which.
func New[H Host](c *api.Cluster, o Options, told func(H)) *Detector[H] {
	if o.Rand == nil {
		o.Rand = rand.Uint64
	}
	d := &Detector[H]{o: o, config: c.Outlier, name: c.Name, told: told, stats: newFigures(o.Stats, c.StatName()), monitors: map[H]*Monitor{}, hosts: map[*Monitor]H{}}
	d.rates = noRates()
	d.mu.Lock()
	d.armLocked()
	d.mu.Unlock()
	return d
}

// Config is what the detector was made for.
func (d *Detector[H]) Config() *api.OutlierDetection { return d.config }

// number reads a number of the configuration, which the runtime may override.
func (d *Detector[H]) number(key string, configured uint32) uint64 {
	return d.o.Runtime.Number("outlier_detection."+key, uint64(configured))
}

func (d *Detector[H]) duration(key string, configured time.Duration) time.Duration {
	return time.Duration(d.o.Runtime.Number("outlier_detection."+key, uint64(configured/time.Millisecond))) * time.Millisecond
}

func (d *Detector[H]) armLocked() {
	d.timer = d.o.Clock.AfterFunc(d.duration("interval_ms", d.config.Interval), d.tick)
}

// SetHosts says which hosts there are; those that stay keep what is known of
// them.
func (d *Detector[H]) SetHosts(hosts []H) {
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := make(map[H]bool, len(hosts))
	for _, h := range hosts {
		seen[h] = true
		if d.monitors[h] == nil {
			m := d.newMonitor()
			d.monitors[h], d.hosts[m] = m, h
		}
	}
	for h, m := range d.monitors {
		if seen[h] {
			continue
		}
		if m.Ejected() {
			d.activeLocked(-1)
		}
		delete(d.monitors, h)
		delete(d.hosts, m)
	}
}

// Monitor is what reports of h go to.
func (d *Detector[H]) Monitor(h H) *Monitor {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.monitors[h]
}

func (d *Detector[H]) activeLocked(by int) {
	d.active += by
	d.stats.active.Add(int64(by))
}

// tripped takes over that a counter of m has reached its threshold.
func (d *Detector[H]) tripped(m *Monitor, k kind) {
	d.mu.Lock()
	h, known := d.hosts[m]
	if !known || d.closed || m.Ejected() {
		d.mu.Unlock()
		return
	}
	d.stats.detected[k].Inc()
	ejected := d.ejectLocked(h, m, k)
	switch k {
	case consecutive5xx:
		d.stats.consecutive5xx.Inc()
		m.consecutive5xx.Store(0)
	case consecutiveGateway:
		m.gateway.Store(0)
	case consecutiveLocal:
		m.local.Store(0)
	}
	d.mu.Unlock()
	if ejected {
		d.told(h)
	}
}

// ejectLocked ejects h, unless too many are, or the kind is not enforced.
func (d *Detector[H]) ejectLocked(h H, m *Monitor, k kind) bool {
	limit := min(100, d.number("max_ejection_percent", d.config.MaxEjectionPercent))
	within := 100*float64(d.active+1)/float64(len(d.monitors)) <= float64(limit)
	if !within && !(d.config.AlwaysEjectOneHost && d.active == 0) {
		d.stats.overflow.Inc()
		return false
	}
	if k == consecutive5xx || k == successRate {
		d.stats.total.Inc()
	}
	enforced := runtime.Chance(d.enforcing(k), d.o.Rand)
	now := d.o.Clock.Now()
	if enforced {
		d.activeLocked(1)
		d.stats.enforcedTotal.Inc()
		d.stats.enforced[k].Inc()
		m.ejected.Store(true)
		m.ejections++
		base := d.duration("base_ejection_time_ms", d.config.BaseEjectionTime)
		if time.Duration(m.backoff)*base < d.longest()+base {
			m.backoff++
		}
		m.jitter = 0
		if j := uint64(d.duration("max_ejection_time_jitter_ms", d.config.MaxEjectionTimeJitter) / time.Millisecond); j > 0 {
			m.jitter = time.Duration(d.o.Rand()%(j+1)) * time.Millisecond
		}
	}
	d.logEjection(h, m, k, enforced, now)
	if enforced {
		m.ejectedAt = now
	}
	return enforced
}

func (d *Detector[H]) longest() time.Duration {
	return d.duration("max_ejection_time_ms", d.config.MaxEjectionTime)
}

// tick lets hosts back whose time is over, and judges rates.
func (d *Detector[H]) tick() {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return
	}
	now := d.o.Clock.Now()
	var moved []H
	for h, m := range d.monitors {
		switch {
		case m.Ejected():
			base := d.duration("base_ejection_time_ms", d.config.BaseEjectionTime)
			if min(base*time.Duration(m.backoff), d.longest())+m.jitter <= now.Sub(m.ejectedAt) {
				d.unejectLocked(h, m, now)
				moved = append(moved, h)
			}
		case m.backoff > 0:
			m.backoff--
		}
		m.turn()
	}
	for o := range origins {
		moved = append(moved, d.judgeLocked(o)...)
	}
	d.armLocked()
	d.mu.Unlock()
	for _, h := range moved {
		d.told(h)
	}
}

func (d *Detector[H]) unejectLocked(h H, m *Monitor, now time.Time) {
	d.activeLocked(-1)
	m.ejected.Store(false)
	m.consecutive5xx.Store(0)
	m.gateway.Store(0)
	m.local.Store(0)
	d.logReturn(h, m, now)
	m.returnedAt = now
}

// Passed says that an active check of h went well, and that no other fails: the
// host comes back.
func (d *Detector[H]) Passed(h H) {
	if !d.config.UnejectOnHealthCheck {
		return
	}
	d.mu.Lock()
	m := d.monitors[h]
	back := m != nil && m.Ejected() && !d.closed
	if back {
		d.unejectLocked(h, m, d.o.Clock.Now())
	}
	d.mu.Unlock()
	if back {
		d.told(h)
	}
}

// Close ends the watch; nobody is told anything more.
func (d *Detector[H]) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.closed = true
	d.timer.Stop()
	d.activeLocked(-d.active)
	d.stats.scope.Release()
}
