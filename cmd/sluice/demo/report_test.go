package demo

import (
	"testing"
	"time"
)

func TestQuantiles(t *testing.T) {
	var of []time.Duration
	for i := 100; i >= 1; i-- {
		of = append(of, time.Duration(i)*time.Millisecond)
	}
	if got, want := quantiles(of), "p50 51.0 ms, p99 100.0 ms, max 100.0 ms"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := quantiles(nil); got != "n/a" {
		t.Errorf("of none: %q", got)
	}
}

func TestCostPerMessage(t *testing.T) {
	for want, c := range map[string]cost{
		"0.2500 (1 for 4 messages that the kernel handed on)": {messages: 4, calls: 1},
		"n/a (not root)":               {why: "not root", messages: 4, calls: 1},
		"n/a (no message was counted)": {calls: 1},
	} {
		if got := c.per(c.calls); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestDiffers(t *testing.T) {
	if got := differs([]byte("same"), []byte("same")); got != -1 {
		t.Errorf("equal messages differ at %d", got)
	}
	if got := differs([]byte("same"), []byte("sane")); got != 2 {
		t.Errorf("got %d, want 2", got)
	}
}
