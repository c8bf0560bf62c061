package drain

import (
	"slices"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

func share(l *Listener) float64 {
	n := 0
	for range 10000 {
		if l.Due() {
			n++
		}
	}
	return float64(n) / 10000
}

func TestWhatIsDue(t *testing.T) {
	for _, tt := range []struct {
		name     string
		strategy Strategy
		listener api.Listener
		do       func(*Manager, *Listener)
		after    time.Duration
		want     float64
	}{
		{name: "nothing drains", after: time.Hour},
		{name: "a listener, at once", strategy: Immediate, do: func(_ *Manager, l *Listener) { l.Start() }, want: 1},
		{name: "all versions of a listener", strategy: Immediate, do: func(_ *Manager, l *Listener) { l.family.Start() }, want: 1},
		{name: "a listener, gradually, at its start", do: func(_ *Manager, l *Listener) { l.Start() }},
		{name: "a listener, gradually, at a quarter", do: func(_ *Manager, l *Listener) { l.Start() }, after: 25 * time.Second, want: .25},
		{name: "a listener, gradually, at the end", do: func(_ *Manager, l *Listener) { l.Start() }, after: 100 * time.Second, want: 1},
		{name: "a second start changes nothing", do: func(m *Manager, l *Listener) {
			l.Start()
			at := m.now() + int64(50*time.Second)
			m.Now = func() time.Time { return time.Unix(0, at) }
			l.Start()
		}, want: .5},
		{name: "all", strategy: Immediate, do: func(m *Manager, _ *Listener) { m.Start(false) }, want: 1},
		{name: "inbound, and it is", strategy: Immediate, listener: api.Listener{Direction: api.Inbound}, do: func(m *Manager, _ *Listener) { m.Start(true) }, want: 1},
		{name: "inbound, and it is not", strategy: Immediate, listener: api.Listener{Direction: api.Outbound}, do: func(m *Manager, _ *Listener) { m.Start(true) }},
		{name: "inbound, and it has no direction", strategy: Immediate, do: func(m *Manager, _ *Listener) { m.Start(true) }},
		{name: "health checks fail", do: func(m *Manager, _ *Listener) { m.FailHealthChecks(true) }, want: 1},
		{name: "health checks fail no more", do: func(m *Manager, _ *Listener) { m.FailHealthChecks(true); m.FailHealthChecks(false) }},
		{name: "health checks fail, which it does not heed", listener: api.Listener{DrainType: api.DrainModifyOnly}, do: func(m *Manager, _ *Listener) { m.FailHealthChecks(true) }},
		{name: "all, which it heeds", strategy: Immediate, listener: api.Listener{DrainType: api.DrainModifyOnly}, do: func(m *Manager, _ *Listener) { m.Start(false) }, want: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := time.Unix(1000, 0)
			m := &Manager{Time: 100 * time.Second, Strategy: tt.strategy, Now: func() time.Time { return now }}
			l := m.Family().Listener(&tt.listener)
			if tt.do != nil {
				tt.do(m, l)
			}
			now = now.Add(tt.after)
			if got := share(l); got < tt.want-.03 || got > tt.want+.03 {
				t.Errorf("%.2f of those who ask are told to end, want %.2f", got, tt.want)
			}
		})
	}
}

func TestOnlyOneDrainOfTheProcessAtATime(t *testing.T) {
	m := &Manager{Time: time.Second}
	if !m.Start(true) || m.Start(true) || m.Start(false) {
		t.Error("the first was refused, or a second begun")
	}
}

func TestEndsAreSpreadOverTheEndOfTheDrainTime(t *testing.T) {
	m := &Manager{Time: 600 * time.Second}
	begin, length := m.Window()
	if begin != 540*time.Second || length != 60*time.Second {
		t.Fatalf("window is %v from %v", length, begin)
	}
	var at []time.Duration
	for i := range 100 {
		at = append(at, Spread(i, 100, length))
	}
	if !slices.IsSorted(at) || at[0] < 0 || at[99] > length {
		t.Errorf("%v", at)
	}
	for i := range 98 {
		if at[i+2]-at[i] < length/100 {
			t.Errorf("three connections end within %v", at[i+2]-at[i])
		}
	}
}
