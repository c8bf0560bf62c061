package overload

import (
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
)

// shrinker gives memory back to the kernel while its action is active.
type shrinker struct {
	api.HeapShrinking
	action *action
	count  *stats.Counter
	free   func() // debug.FreeOSMemory
}

func newShrinker(c *api.OverloadAction, a *action, sc *stats.Scope) *shrinker {
	return &shrinker{HeapShrinking: *c.Shrink, action: a, count: sc.Counter(c.Name + ".shrink_count"), free: debug.FreeOSMemory}
}

func (s *shrinker) run(quit <-chan struct{}) {
	t := time.NewTicker(s.Every)
	defer t.Stop()
	for {
		select {
		case <-quit:
			return
		case <-t.C:
			s.once()
		}
	}
}

// once counts, as Envoy does, also when there was too little to give back.
func (s *shrinker) once() {
	if !s.action.saturated() {
		return
	}
	if kept() >= s.MaxUnfreed {
		s.free()
	}
	s.count.Inc()
}

// kept is the memory that the runtime holds and nobody uses.
func kept() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() + samples[1].Value.Uint64()
}
