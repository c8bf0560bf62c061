package admin

import (
	"context"
	"time"

	"github.com/sluice-proxy/sluice/api/stats"
)

// Sink is told the figures at every flush, and each value of a histogram; by one
// goroutine at a time.
type Sink interface {
	Flush([]stats.Stat)
	Record(*stats.Stat, float64)
	Close()
}

// record is a value of a histogram on its way to the sinks.
type record struct {
	stat  stats.Stat
	value float64
}

// maxRecords may wait for the sinks; what comes beyond is lost.
const maxRecords = 1 << 14

// observe has values of histograms come to Flush's goroutine.
func (s *Server) observe() {
	if len(s.o.Sinks) == 0 {
		return
	}
	s.o.Stats.Observe(func(x *stats.Stat, v float64) {
		select {
		case s.records <- record{*x, v}:
		default:
		}
	})
}

// Flush closes the histograms' interval every stats_flush_interval, and tells the
// sinks, until ctx ends. With stats_flush_on_admin questions for stats do that.
func (s *Server) Flush(ctx context.Context) {
	every := defaultFlushInterval
	if d := s.o.Bootstrap.GetStatsFlushInterval().AsDuration(); d > 0 {
		every = d
	}
	t := time.NewTicker(every)
	defer t.Stop()
	if s.o.Bootstrap.GetStatsFlushOnAdmin() {
		t.Stop()
	}
	defer func() {
		for _, k := range s.o.Sinks {
			k.Close()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.o.Stats.EndInterval()
			s.flush()
		case <-s.asked:
			s.flush()
		case r := <-s.records:
			s.tell(r)
		}
	}
}

// flushOnAdmin is called when somebody asks for stats.
func (s *Server) flushOnAdmin() {
	if !s.o.Bootstrap.GetStatsFlushOnAdmin() {
		return
	}
	s.o.Stats.EndInterval()
	select {
	case s.asked <- struct{}{}:
	default:
	}
}

func (s *Server) flush() {
	if len(s.o.Sinks) == 0 {
		return
	}
	s.rendering.Lock()
	all := s.scrape()
	s.rendering.Unlock()
	for _, k := range s.o.Sinks { // they may wait for the network
		k.Flush(all)
	}
}

func (s *Server) tell(r record) {
	s.rendering.Lock()
	shown := s.view.of([]stats.Stat{r.stat})
	s.rendering.Unlock()
	for i := range shown {
		for _, k := range s.o.Sinks {
			k.Record(&shown[i], r.value)
		}
	}
}
