package bpf

import (
	"fmt"
	"sync/atomic"

	"github.com/cilium/ebpf"
)

// Plant is for tests: it brings a direction into a state that the kernel does
// not show by itself, so that what is to follow can be seen.
type Plant struct{ Slot *Slot }

// LoseWakeups has the verdict's wake-ups go nowhere, or arrive again.
func (p Plant) LoseWakeups(on bool, worker int) {
	if on {
		worker = p.Slot.splice.noRing()
	}
	atomic.StoreUint32(&p.Slot.dir().Worker, uint32(worker))
}

// Expect moves the sequence number that the verdict expects next: back, and
// bytes seem missing; forth, and they seem to come twice.
func (p Plant) Expect(by int32) { atomic.AddUint32(&p.Slot.dir().Next, uint32(by)) }

// Bound is the memory of a backlog at which the pair breaks.
func (p Plant) Bound(most uint32) { atomic.StoreUint32(&p.Slot.dir().Most, most) }

// KeepVerdicts has nothing take the verdict away in the kernel any more, as if the
// sockets were of another cgroup.
func (p Plant) KeepVerdicts() error {
	s := p.Slot.splice
	err := s.leaver.close()
	s.leaver = nil
	return err
}

// noRing is a worker that has none.
func (s *Splice) noRing() int { return int(s.objects.Rings.MaxEntries()) - 1 }

// SwapInPlace is Swap as it must not be: the entries of the table that is in
// force change one by one. Both tables have the same keys.
func (Plant) SwapInPlace(c *Capture, t *RouteTable) error {
	var live *ebpf.Map
	if err := c.objects.Tables.Lookup(uint32(0), &live); err != nil {
		return fmt.Errorf("find table: %w", err)
	}
	defer live.Close()
	c.filler.encode(t)
	return put(live, c.filler.keys, c.filler.values)
}

// GraftPlant does the same to a graft.
type GraftPlant struct{ Grafted *Grafted }

// Pass has packets of a pair at rest go to its sockets, as one does that passed the
// programs before the graft, or no more.
func (p GraftPlant) Pass(on bool) {
	from, to := GraftActive, GraftOff
	if !on {
		from, to = to, from
	}
	atomic.CompareAndSwapUint32(p.Grafted.state(), uint32(from), uint32(to))
}

// LoseEvents has the graft's events go nowhere.
func (p GraftPlant) LoseEvents() {
	atomic.StoreUint32(&p.Grafted.words().Worker, p.Grafted.owner.objects.Rings.MaxEntries()-1)
}

// Owe has the programs believe that bytes of the client are under way.
func (p GraftPlant) Owe() { atomic.AddUint32(&p.Grafted.words().Way[0].High, 1) }
