package runtime

import (
	"errors"
	"maps"
	"slices"
	"testing"
)

func TestLaterLayersOverrideAndTheAdminsCanBeChanged(t *testing.T) {
	r, err := New([]Layer{{Name: "base", Values: map[string]string{"a": "1", "b": "x"}}, {Name: "over", Values: map[string]string{"a": "2"}}, {Name: "admin", Admin: true}})
	if err != nil {
		t.Fatal(err)
	}
	changes := 0
	r.OnChange(func() { changes++; r.Values() }) // may read
	want := func(what string, values map[string]string, a []string) {
		t.Helper()
		if got := r.Values(); !maps.Equal(got, values) || !slices.Equal(r.Entries()["a"], a) {
			t.Errorf("%s: %v, %v", what, got, r.Entries())
		}
	}
	want("at the start", map[string]string{"a": "2", "b": "x"}, []string{"1", "2", ""})
	if err := r.Modify(map[string]string{"a": "5", "q": "hello", "b": ""}); err != nil {
		t.Fatal(err)
	}
	want("changed", map[string]string{"a": "5", "b": "x", "q": "hello"}, []string{"1", "2", "5"})
	if err := r.Modify(map[string]string{"a": ""}); err != nil {
		t.Fatal(err)
	}
	want("taken back", map[string]string{"a": "2", "b": "x", "q": "hello"}, []string{"1", "2", ""})
	if changes != 2 || !slices.Equal(r.Layers(), []string{"base", "over", "admin"}) {
		t.Error(changes, r.Layers())
	}
}

func TestLayersThatEnvoyRefuses(t *testing.T) {
	if _, err := New([]Layer{{Name: "a"}, {Name: "a"}}); err == nil || err.Error() != "Duplicate layer name: a" {
		t.Error(err)
	}
	if _, err := New([]Layer{{Name: "a", Admin: true}, {Name: "b", Admin: true}}); err == nil {
		t.Error("two admin layers")
	}
	r, err := New([]Layer{{Name: "a"}})
	if err != nil || !errors.Is(r.Modify(map[string]string{"a": "1"}), ErrNoAdmin) {
		t.Error(err)
	}
	var none *Runtime
	if !errors.Is(none.Modify(nil), ErrNoAdmin) || len(none.Values())+len(none.Entries())+len(none.Layers()) != 0 {
		t.Error("a nil runtime")
	}
}

// As measured of Envoy 1.40, whose /runtime_modify reads YAML.
func TestWhatABoolIs(t *testing.T) {
	r, err := New([]Layer{{Name: "a", Admin: true}})
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string][2]bool{ // where it is off by default, and on
		"true": {true, true}, "TRUE": {true, true}, "True": {true, true}, "yes": {true, true}, "on": {true, true}, "1": {true, true}, "2.0": {true, true},
		"false": {false, false}, "FALSE": {false, false}, "no": {false, false}, "off": {false, false}, "0": {false, false},
		"tRuE": {false, true}, "hello": {false, true}, "": {false, true},
	} {
		if err := r.Modify(map[string]string{"k": value}); err != nil {
			t.Fatal(err)
		}
		if got := [2]bool{r.On(Flag{Key: "k", Off: true}), r.On(Flag{Key: "k"})}; got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}
