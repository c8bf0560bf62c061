package bpf

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
)

// errParting is why the halves of a pair cannot part, beside partingWaits.
var errParting = errors.New("part a grafted pair")

var partingNames = [partPartingPARTING_MAX]string{
	partPartingPARTING_DONE:    "done",
	partPartingPARTING_WAITS:   "waits",
	partPartingPARTING_REQUEST: "request",
	partPartingPARTING_STATE:   "state",
	partPartingPARTING_SOCKETS: "sockets",
}

func (g *Graft) loadPart() error {
	spec, err := loadPart()
	if err != nil {
		return fmt.Errorf("read part object: %w", err)
	}
	if err := spec.LoadAndAssign(&g.parting, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		graftMapGrafts: g.objects.Grafts,
	}}); err != nil {
		return fmt.Errorf("load part: %w", err)
	}
	return nil
}

// partRequest is struct request of part.bpf.c.
type partRequest struct {
	_                [16]byte
	Slot, Generation uint32
}

// Part begins to take a pair at rest apart: what is new from now on is kept back, what
// is under way comes to its end. False says that the pair is in no state for it.
func (p *Grafted) Part() bool {
	p.grace = p.owner.grace.begin()
	return atomic.CompareAndSwapUint32(p.state(), uint32(GraftActive), uint32(GraftParting))
}

// Parted tells whether the pair has come apart, after Part: its sockets are those of
// two connections again, and may be closed in order. An error says that they never
// will. It has to be called from the namespace of the pair.
func (p *Grafted) Parted() (bool, error) {
	if !p.Settled() {
		return false, nil
	}
	q := partRequest{Slot: p.slot, Generation: p.generation}
	code, err := p.owner.parting.Part.Run(&ebpf.RunOptions{Data: unsafe.Slice((*byte)(unsafe.Pointer(&q)), unsafe.Sizeof(q)), Repeat: 1})
	switch {
	case err != nil:
		return false, fmt.Errorf("run part: %w", err)
	case code == uint32(partPartingPARTING_WAITS):
		return false, nil
	case code != uint32(partPartingPARTING_DONE):
		return false, fmt.Errorf("%w: %s", errParting, partingNames[code])
	}
	return true, nil
}
