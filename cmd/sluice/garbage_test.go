package main

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestGarbageOfABurst(t *testing.T) {
	for _, tt := range []struct {
		name   string
		bursts []time.Duration // after the one before
		idle   time.Duration
		want   []int
	}{
		{"one response", []time.Duration{0}, 2 * time.Second, []int{400, 100}},
		{"still on", []time.Duration{0}, 900 * time.Millisecond, []int{400}},
		{"several of one push", []time.Duration{0, 900 * time.Millisecond, 900 * time.Millisecond}, 900 * time.Millisecond, []int{400}},
		{"two pushes", []time.Duration{0, 2 * time.Second}, 2 * time.Second, []int{400, 100, 400, 100}},
		{"no end", slices.Repeat([]time.Duration{900 * time.Millisecond}, 6), 900 * time.Millisecond, []int{400, 100}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var set []int
				g := &garbage{set: func(percent int) int { set = append(set, percent); return 0 }}
				for _, after := range tt.bursts {
					time.Sleep(after)
					g.burst()
				}
				time.Sleep(tt.idle)
				synctest.Wait()
				if !slices.Equal(set, tt.want) {
					t.Errorf("set %v, want %v", set, tt.want)
				}
				time.Sleep(time.Minute) // ends what is on
			})
		})
	}
}

func TestOperatorSaysHowMuchGarbage(t *testing.T) {
	t.Setenv("GOGC", "50")
	g := newGarbage()
	if g != nil {
		t.Fatal("GOGC is not kept")
	}
	g.burst()
}
