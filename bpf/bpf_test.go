package bpf

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(programEnv); role != "" {
		programMain(role)
		return
	}
	goleak.VerifyTestMain(m)
}

func TestLoadAttachesAndLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	s, err := Load(2)
	if err != nil {
		t.Fatal(err)
	}
	counted, err := s.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if len(counted) != len(exitNames)-1+len(eventNames) {
		t.Errorf("%d counters, want %d", len(counted), len(exitNames)-1+len(eventNames))
	}
	for name, n := range counted {
		if n != 0 {
			t.Errorf("%s is %d before the first segment", name, n)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestSlotsRestBeforeTheyAreUsedAgain(t *testing.T) {
	var q slotQueue
	q.init(2)
	now := time.Now()
	a, _ := q.take(now)
	b, _ := q.take(now)
	if a == b {
		t.Fatal("one slot given twice")
	}
	if _, ok := q.take(now); ok {
		t.Error("a third of two slots")
	}
	q.put(a, now)
	q.put(b, now.Add(time.Millisecond))
	if _, ok := q.take(now.Add(slotRest - 1)); ok {
		t.Error("a slot that a verdict may still write to was given out")
	}
	if got, ok := q.take(now.Add(slotRest)); !ok || got != a {
		t.Errorf("took %d, %v, want the one that rested longest", got, ok)
	}
}
