package bpf

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// kernelIDs are objects in the kernel, as bpftool would list them.
type kernelIDs []kernelID

type kernelID struct {
	kind string
	id   uint32
}

// idsOf lists the links, programs and maps of a capture.
func idsOf(t *testing.T, c *Capture) (out kernelIDs) {
	t.Helper()
	for _, l := range c.links {
		info, err := l.Info()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, kernelID{"link", uint32(info.ID)})
	}
	for _, h := range c.hooks("x", "x") {
		info, err := h.program.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		out = append(out, kernelID{"program", uint32(id)})
	}
	for _, m := range c.pinned() {
		info, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		out = append(out, kernelID{"map", uint32(id)})
	}
	return out
}

// left are those that still are in the kernel.
func (ids kernelIDs) left() (out kernelIDs) {
	for _, k := range ids {
		var err error
		switch k.kind {
		case "link":
			var l link.Link
			if l, err = link.NewFromID(link.ID(k.id)); err == nil {
				l.Close()
			}
		case "program":
			var p *ebpf.Program
			if p, err = ebpf.NewProgramFromID(ebpf.ProgramID(k.id)); err == nil {
				p.Close()
			}
		case "map":
			var m *ebpf.Map
			if m, err = ebpf.NewMapFromID(ebpf.MapID(k.id)); err == nil {
				m.Close()
			}
		}
		if !errors.Is(err, os.ErrNotExist) {
			out = append(out, k)
		}
	}
	return out
}

// gone waits until none is listed: the kernel frees programs and maps a little
// later.
func (ids kernelIDs) gone(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for left := ids.left(); len(left) > 0; left = ids.left() {
		if time.Now().After(deadline) {
			t.Errorf("left in the kernel: %s", fmt.Sprint(left))
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
