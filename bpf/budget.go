package bpf

import (
	"sync/atomic"
	"unsafe"
)

// SetBudget bounds the memory of all backlogs together, in bytes: past it a
// direction with a backlog is called back, and one over its own limit breaks.
// Load sets no bound.
func (s *Splice) SetBudget(bytes uint64) { atomic.StoreUint64(&s.budgetWords().Limit, bytes) }

// Budget is the bound, and how much of it is charged now. A charge stays until
// the direction's next segment, or until Settle.
func (s *Splice) Budget() (limit, charged uint64) {
	b := s.budgetWords()
	return atomic.LoadUint64(&b.Limit), uint64(max(0, int64(atomic.LoadUint64(&b.Charged))))
}

func (s *Splice) budgetWords() *spliceBudget { return (*spliceBudget)(unsafe.Pointer(&s.budget[0])) }

// settle takes back what a direction is charged. The verdict exchanges the same
// word, so that nothing is taken back twice.
func (s *Splice) settle(dir *spliceDirection) {
	if had := atomic.SwapUint64(&dir.Charged, 0); had != 0 {
		atomic.AddUint64(&s.budgetWords().Charged, -had)
	}
}

// Charged is the memory that the direction's backlog held when the verdict last
// looked, in bytes.
func (s *Slot) Charged() uint64 { return atomic.LoadUint64(&s.dir().Charged) }

// Settle takes the charge back, once the backlog is known to be empty.
func (s *Slot) Settle() { s.splice.settle(s.dir()) }
