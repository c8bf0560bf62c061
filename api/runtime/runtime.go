// Package runtime is Envoy's layered runtime: values by key, in layers of which a
// later one overrides an earlier one, and of which one may be changed while the
// process runs. Limits are read from it; the admin server shows and changes it.
package runtime

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// ErrNoAdmin is Envoy's answer to a change when no layer is the admin server's.
var ErrNoAdmin = errors.New("No admin layer specified")

// Layer is a set of values. That of an admin layer is empty at the start.
type Layer struct {
	Name   string
	Admin  bool
	Disk   Disk
	Values map[string]string
}

// Disk says how it is with the directory that a layer is read from.
type Disk uint8

const (
	// NoDisk is for layers that have no directory.
	NoDisk Disk = iota
	// DiskRead: it was read.
	DiskRead
	// DiskMissing and DiskBroken: there is no such directory, or it could not be
	// read. Such a layer is not shown, as if it were not there.
	DiskMissing
	DiskBroken
)

func (l Layer) hidden() bool { return l.Disk == DiskMissing || l.Disk == DiskBroken }

// Runtime is all layers. A nil Runtime has none. Its methods may be called from
// any goroutine.
type Runtime struct {
	version atomic.Uint64
	mu      sync.Mutex
	layers  []Layer
	changed []func()
}

// Version is another one after every change.
func (r *Runtime) Version() uint64 {
	if r == nil {
		return 0
	}
	return r.version.Load()
}

// New takes over the layers, the first of which is the weakest. It returns
// Envoy's errors for a name used twice and for a second admin layer.
func New(layers []Layer) (*Runtime, error) {
	names, admin := map[string]bool{}, false
	for _, l := range layers {
		if names[l.Name] {
			return nil, fmt.Errorf("Duplicate layer name: %s", l.Name)
		}
		if l.Admin && admin {
			return nil, errors.New("Too many admin layers specified in LayeredRuntime, at most one may be specified")
		}
		names[l.Name], admin = true, admin || l.Admin
	}
	return &Runtime{layers: layers}, nil
}

// OnChange has f called after every change.
func (r *Runtime) OnChange(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changed = append(r.changed, f)
}

// Layers are the names, in order.
func (r *Runtime) Layers() []string {
	names := []string{}
	if r == nil {
		return names
	}
	for _, l := range r.shown() {
		names = append(names, l.Name)
	}
	return names
}

func (r *Runtime) shown() []Layer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.layers), Layer.hidden)
}

// Entries has for every key its value in each layer, "" where it has none.
func (r *Runtime) Entries() map[string][]string {
	out := map[string][]string{}
	if r == nil {
		return out
	}
	layers := r.shown()
	for i, l := range layers {
		for key, v := range l.Values {
			if out[key] == nil {
				out[key] = make([]string, len(layers))
			}
			out[key][i] = v
		}
	}
	return out
}

// Values has the value that counts for every key.
func (r *Runtime) Values() map[string]string {
	out := map[string]string{}
	if r == nil {
		return out
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.layers {
		maps.Copy(out, l.Values)
	}
	return out
}

// Overridden says whether the admin layer holds a value.
func (r *Runtime) Overridden() bool {
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.layers {
		if l.Admin && len(l.Values) > 0 {
			return true
		}
	}
	return false
}

// Number is the value of key, or def where it has none or it is no number.
func (r *Runtime) Number(key string, def uint64) uint64 {
	v, _ := r.value(key)
	if n, ok := Uint(v); ok {
		return n
	}
	return def
}

// Flag is what is on unless it is Off, and what Key may turn on and off.
type Flag struct {
	Key string
	Off bool
}

// On says whether f is on now. What counts are YAML's bools, and numbers (Envoy 1.40).
func (r *Runtime) On(f Flag) bool {
	v, _ := r.value(f.Key)
	v = strings.TrimSpace(v)
	if n, err := strconv.ParseFloat(v, 64); err == nil {
		return n != 0
	}
	switch lower := strings.ToLower(v); {
	case v != lower && v != strings.ToUpper(v) && v != strings.ToUpper(v[:1])+lower[1:]:
	case slices.Contains([]string{"true", "yes", "on"}, lower):
		return true
	case slices.Contains([]string{"false", "no", "off"}, lower):
		return false
	}
	return !f.Off
}

// value is that of the strongest layer that has one.
func (r *Runtime) value(key string) (string, bool) {
	if r == nil || key == "" {
		return "", false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.layers) - 1; i >= 0; i-- {
		if v, ok := r.layers[i].Values[key]; ok {
			return v, true
		}
	}
	return "", false
}

// Chance draws whether a feature that is on in so many percent of cases is on
// now.
func Chance(percent uint64, rng func() uint64) bool {
	return percent >= 100 || rng()%100 < percent
}

// Uint reads a value as Envoy reads a number of its runtime.
func Uint(value string) (uint64, bool) {
	n, err := strconv.ParseUint(value, 10, 64)
	return n, err == nil
}

// Disks says whether a layer was read from a directory, and whether one could not
// be.
func (r *Runtime) Disks() (read, broken bool) {
	if r == nil {
		return false, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.layers {
		read, broken = read || l.Disk == DiskRead, broken || l.Disk == DiskBroken
	}
	return read, broken
}

// Replace has the layer of l's name be l from now on.
func (r *Runtime) Replace(l Layer) {
	r.mu.Lock()
	for i := range r.layers {
		if r.layers[i].Name == l.Name {
			r.layers[i] = l
		}
	}
	r.version.Add(1)
	told := r.changed
	r.mu.Unlock()
	for _, f := range told {
		f()
	}
}

// Modify sets values in the admin layer; an empty one takes the key out of it.
func (r *Runtime) Modify(values map[string]string) error {
	if r == nil {
		return ErrNoAdmin
	}
	r.mu.Lock()
	for i := range r.layers {
		if !r.layers[i].Admin {
			continue
		}
		now := maps.Clone(r.layers[i].Values)
		if now == nil {
			now = map[string]string{}
		}
		for key, v := range values {
			if now[key] = v; v == "" {
				delete(now, key)
			}
		}
		r.layers[i].Values = now
		r.version.Add(1)
		told := r.changed
		r.mu.Unlock()
		for _, f := range told {
			f()
		}
		return nil
	}
	r.mu.Unlock()
	return ErrNoAdmin
}
