package overload

import (
	"math"
	"math/rand/v2"
	"sync/atomic"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
)

// level is a state between 0 and 1, as coarse as Envoy's UnitFloat, with which its
// figures are computed.
type level float32

// percent is cut off, not rounded, as in Envoy.
func (l level) percent() uint64 { return uint64(float32(l) * 100) }

// trigger is one trigger of an action or a point, and the level that it is at.
type trigger struct {
	api.Trigger
	at level
}

// update says whether the level changed.
func (t *trigger) update(pressure float64) bool {
	was := t.at
	switch {
	case !t.Scaled && pressure >= t.Threshold, t.Scaled && pressure >= t.Saturation && pressure > t.Threshold:
		t.at = 1
	case !t.Scaled || pressure <= t.Threshold:
		t.at = 0
	default:
		t.at = level((pressure - t.Threshold) / (t.Saturation - t.Threshold))
	}
	return t.at != was
}

// triggers are those of one action or point, by resource.
type triggers map[string]*trigger

func newTriggers(list []api.Trigger) triggers {
	ts := triggers{}
	for _, t := range list {
		ts[t.Resource] = &trigger{Trigger: t}
	}
	return ts
}

// highest is the level that counts.
func (ts triggers) highest() (top level) {
	for _, t := range ts {
		top = max(top, t.at)
	}
	return top
}

// state is a level that anybody may read.
type state struct{ bits atomic.Uint32 }

func (s *state) load() level { return level(math.Float32frombits(s.bits.Load())) }

// store says whether the level is another one now.
func (s *state) store(l level) bool {
	n := math.Float32bits(float32(l))
	return s.bits.Swap(n) != n
}

// action is an overload action.
type action struct {
	triggers triggers
	state
	active, scale *stats.Gauge
}

func newAction(c *api.OverloadAction, sc *stats.Scope) *action {
	a := &action{triggers: newTriggers(c.Triggers), active: sc.Gauge(c.Name + ".active"), scale: sc.Gauge(c.Name + ".scale_percent")}
	a.active.Set(0)
	a.scale.Set(0)
	return a
}

// press tells the action of a pressure; true: its state changed. The figures are the
// last trigger's that moved and not the highest, as in Envoy.
func (a *action) press(resource string, pressure float64) bool {
	t := a.triggers[resource]
	if t == nil || !t.update(pressure) {
		return false
	}
	a.active.Set(0)
	if t.at == 1 {
		a.active.Set(1)
	}
	a.scale.Set(t.at.percent())
	return a.store(a.triggers.highest())
}

// saturated is what actions that know no half measures ask for. A nil action is not.
func (a *action) saturated() bool { return a != nil && a.load() == 1 }

// point is a load shed point.
type point struct {
	triggers triggers
	state
	scale *stats.Gauge
	shed  *stats.Counter
}

func newPoint(c *api.LoadShedPoint, sc *stats.Scope) *point {
	return &point{triggers: newTriggers(c.Triggers), scale: sc.Gauge(c.Name + ".scale_percent"), shed: sc.Counter(c.Name + ".shed_load_count")}
}

func (p *point) press(resource string, pressure float64) {
	t := p.triggers[resource]
	if t == nil {
		return
	}
	t.update(pressure)
	p.store(p.triggers.highest())
	p.scale.Set(p.load().percent())
}

// sheds draws, and counts. A nil point never sheds.
func (p *point) sheds() bool {
	if p == nil || !drawn(p.load()) {
		return false
	}
	p.shed.Inc()
	return true
}

// drawn is true in as many cases as l says.
func drawn(l level) bool { return l > 0 && (l == 1 || rand.Float32() < float32(l)) }
