package bpf

import (
	"errors"
	"os"
	"testing"
)

// The kernels that this is tested on have everything.
func TestEveryFeatureIsFound(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	for _, p := range Probes() {
		if p.Err != nil {
			t.Errorf("%s: %v", p.Name, p.Err)
		}
	}
	if err := TryCapture(); err != nil {
		t.Error(err)
	}
	if err := haveKfunc("bpf_no_such_kfunc"); err == nil {
		t.Error("a kfunc was found that there is not")
	}
}

func TestPinsAreCheckedBeforeTheyAreUsed(t *testing.T) {
	w := newPinnedWorld(t, ExitKeep)
	if err := CheckPins(w.options.Pin); !errors.Is(err, ErrPinsInUse) {
		t.Errorf("of a process that lives: %v", err)
	}
	w.kill()
	if err := CheckPins(w.options.Pin); err != nil {
		t.Errorf("of a dead process: %v", err)
	}
	if err := CheckPins(w.options.Pin + "-none"); err != nil {
		t.Errorf("of nobody: %v", err)
	}
	if err := CheckPins(t.TempDir()); !errors.Is(err, ErrNoBPFFS) {
		t.Errorf("elsewhere: %v", err)
	}
}
