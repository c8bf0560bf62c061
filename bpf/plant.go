package bpf

import "sync/atomic"

// Plant is for tests: it brings a direction into a state that the kernel does
// not show by itself, so that what is to follow can be seen.
type Plant struct{ Slot *Slot }

// LoseWakeups has the verdict's wake-ups go nowhere, or arrive again.
func (p Plant) LoseWakeups(on bool, worker int) {
	if on {
		worker = p.Slot.splice.noRing()
	}
	atomic.StoreUint32(&p.Slot.dir.Worker, uint32(worker))
}

// Expect moves the sequence number that the verdict expects next: back, and
// bytes seem missing; forth, and they seem to come twice.
func (p Plant) Expect(by int32) { atomic.AddUint32(&p.Slot.dir.Next, uint32(by)) }

// noRing is a worker that has none.
func (s *Splice) noRing() int { return int(s.objects.Rings.MaxEntries()) - 1 }
