package outlier

import (
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// Result is what became of a connection that was to be opened to a host.
type Result uint8

// The results.
const (
	Connected Result = iota
	Refused          // or reset, or unreachable
	TimedOut
)

// origin is where an error came from: a server of TCP says nothing, so that with
// split_external_local_origin_errors everything is of local origin.
type origin uint8

const (
	external origin = iota
	local
	origins = 2
)

// Monitor watches one host. Put and Ejected are for any goroutine.
type Monitor struct {
	config *api.OutlierDetection
	number func(key string, configured uint32) uint64
	trip   func(*Monitor, kind)

	consecutive5xx, gateway, local atomic.Uint32
	buckets                        [origins]bucket
	ejected                        atomic.Bool

	// What follows belongs to the detector's lock.
	ejections  int
	backoff    int // how many base times the next ejection lasts
	jitter     time.Duration
	ejectedAt  time.Time
	returnedAt time.Time
	last       [origins]struct{ total, good uint64 }
	rate       [origins]float64
}

// bucket counts what happened in the interval that is running.
type bucket struct{ total, good atomic.Uint64 }

func (d *Detector[H]) newMonitor() *Monitor {
	return &Monitor{config: d.config, number: d.number, rate: [origins]float64{-1, -1},
		// Workers are not to wait for the decision.
		trip: func(m *Monitor, k kind) { go d.tripped(m, k) }}
}

// Ejected tells whether the host is out of the choice.
func (m *Monitor) Ejected() bool { return m.ejected.Load() }

// Put reports a result.
func (m *Monitor) Put(r Result) {
	o := external
	if m.config.SplitExternalLocalOriginErrors {
		o = local
	}
	b := &m.buckets[o]
	b.total.Add(1)
	if r == Connected {
		b.good.Add(1)
		for _, n := range []*atomic.Uint32{&m.consecutive5xx, &m.gateway, &m.local} {
			if n.Load() != 0 {
				n.Store(0)
			}
		}
		return
	}
	if o == local {
		m.count(&m.local, "consecutive_local_origin_failure", m.config.ConsecutiveLocalOriginFailure, consecutiveLocal)
		return
	}
	// To Envoy a refused connect is a 503, and one that timed out a 504: both are
	// errors of a gateway too.
	m.count(&m.gateway, "consecutive_gateway_failure", m.config.ConsecutiveGatewayFailure, consecutiveGateway)
	m.count(&m.consecutive5xx, "consecutive_5xx", m.config.Consecutive5xx, consecutive5xx)
}

func (m *Monitor) count(n *atomic.Uint32, key string, configured uint32, k kind) {
	if uint64(n.Add(1)) == m.number(key, configured) {
		m.trip(m, k)
	}
}

// turn begins a new interval.
func (m *Monitor) turn() {
	for o := range m.buckets {
		b := &m.buckets[o]
		m.last[o].total, m.last[o].good = b.total.Swap(0), b.good.Swap(0)
		m.rate[o] = -1
	}
}
