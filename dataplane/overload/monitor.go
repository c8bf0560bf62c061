package overload

import (
	"runtime/metrics"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
)

// monitored is a resource monitor with its figures.
type monitored struct {
	name     string
	pressure func() (float64, error)
	close    func()
	// last: it is asked after the others, and not by itself (Envoy's proactive ones).
	last   bool
	shown  *stats.Gauge
	failed *stats.Counter
}

// add makes a monitor of the configuration.
func (m *Manager) add(c *api.ResourceMonitor, sc *stats.Scope) (err error) {
	r := &monitored{name: c.Name, close: func() {}, shown: sc.Gauge(c.Name + ".pressure"), failed: sc.Counter(c.Name + ".failed_updates")}
	switch {
	case c.Heap != nil:
		r.pressure = heap(func() uint64 {
			if c.Heap.RuntimeKey == "" {
				return c.Heap.Max
			}
			return m.o.Runtime.Number(c.Heap.RuntimeKey, c.Heap.Max)
		})
	case c.Cgroup != nil:
		r.pressure, err = cgroupMemory("/", c.Cgroup.Max)
	case c.CPU != nil:
		r.pressure, err = processors("/", c.CPU.Container)
	case c.Injected != nil:
		r.pressure, r.close, err = injected(c.Injected.Path)
	case c.Connections != nil:
		r.last, m.refused = true, r.failed
		r.pressure = func() (float64, error) {
			return float64(m.o.Connections()) / float64(c.Connections.Max), nil
		}
	}
	if err != nil {
		return err
	}
	if !r.last {
		sc.Counter(c.Name + ".skipped_updates") // none takes longer than it is waited for
	}
	m.monitors = append(m.monitors, r)
	for i := len(m.monitors) - 1; i > 0 && m.monitors[i-1].last; i-- {
		m.monitors[i-1], m.monitors[i] = m.monitors[i], m.monitors[i-1]
	}
	return nil
}

// heap is what Envoy's fixed_heap measures of tcmalloc, of Go's: memory that is mapped
// and was not given back.
func heap(most func() uint64) func() (float64, error) {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	return func() (float64, error) {
		metrics.Read(samples)
		return float64(samples[0].Value.Uint64()-samples[1].Value.Uint64()) / float64(max(most(), 1)), nil
	}
}
