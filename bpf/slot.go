package bpf

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// slotRest is how long a slot rests before it is used again: a verdict that was
// running when its socket was closed may still write to it.
const slotRest = 250 * time.Millisecond

// Slot is one direction of a pair in the kernel: the words that user space and
// the verdict share. It is a small value, for every direction has one. Methods
// that write are for the worker that owns the pair.
type Slot struct {
	// read-only after Splice.NewSlot
	splice *Splice
	source uint64 // cookie
	index  uint32
	fd     int32
}

// NewSlot takes a free slot for the direction from the socket source to the
// one whose cookie is target. A backlog at the destination of more than limit
// bytes of memory has the worker called, one of more than most breaks the slot.
// Returns ErrNoSlot if all are taken.
func (s *Splice) NewSlot(worker int, source int, target uint64, limit, most uint32) (Slot, error) {
	cookie, err := Cookie(source)
	if err != nil {
		return Slot{}, err
	}
	s.mu.Lock()
	index, ok := s.free.take(time.Now())
	s.mu.Unlock()
	if !ok {
		return Slot{}, ErrNoSlot
	}
	dir := s.direction(index)
	generation := atomic.LoadUint32(&dir.Generation) + 1
	s.settle(dir)
	*dir = spliceDirection{Target: target, Limit: limit, Most: most, Worker: uint32(worker), Generation: generation}
	slot := Slot{splice: s, index: index, source: cookie, fd: int32(source)}
	if err := s.objects.Slots.Put(cookie, index); err != nil {
		s.release(index)
		return Slot{}, fmt.Errorf("put slot: %w", err)
	}
	return slot, nil
}

// Taken says that there is a slot: the zero value is none.
func (s *Slot) Taken() bool { return s.splice != nil }

func (s *Slot) dir() *spliceDirection { return s.splice.direction(s.index) }

// Free gives the slot back. The source must be closed, or never have been
// intercepted.
func (s *Slot) Free() error {
	s.Settle()
	err := s.splice.objects.Slots.Delete(s.source)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = nil
	}
	s.splice.release(s.index)
	return err
}

func (s *Splice) release(index uint32) {
	s.mu.Lock()
	s.free.put(index, time.Now())
	s.mu.Unlock()
}

// Cookie is the kernel's name for a socket, unique until the next boot.
func Cookie(fd int) (uint64, error) {
	c, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("read socket cookie: %w", err)
	}
	return c, nil
}

// Adopt makes a socket a target, for as long as it is open. It fails with
// ErrHalfClosed unless the socket is in ESTABLISHED.
func (s *Splice) Adopt(fd int) error {
	cookie, err := Cookie(fd)
	if err != nil {
		return err
	}
	return insertError("adopt socket", s.objects.Targets.Update(cookie, uint64(fd), ebpf.UpdateNoExist))
}

// Intercept puts the verdict between the source and its reader. The kernel does
// not look at what is queued already: the caller kicks the socket after.
func (s *Slot) Intercept() error {
	if err := insertError("intercept socket", s.splice.objects.Intercepted.Update(s.source, uint64(s.fd), ebpf.UpdateNoExist)); err != nil {
		return err
	}
	// It has the source looked at whenever it sends, from now on (leave.bpf.c).
	var at unix.RawSockaddrAny
	size := uint32(unsafe.Sizeof(at))
	unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(s.fd), uintptr(unsafe.Pointer(&at)), uintptr(unsafe.Pointer(&size)))
	return nil
}

// Recall has the verdict taken away the next time that the source sends, be it
// no byte. The socket stays a target, so that no backlog of the other direction
// is lost. Left tells.
func (s *Slot) Recall() { atomic.StoreUint32(&s.dir().Recalled, 1) }

// Left says that the verdict has been taken away since the last Rebase, after a
// Recall or because the backlog overflowed.
func (s *Slot) Left() bool {
	return atomic.LoadUint32((*uint32)(&s.dir().Called)) == uint32(spliceCallCALL_LEFT)
}

// Restore takes the verdict away at once, without the source's lock: one that
// runs meanwhile loses what it has in hand. Only for a source that is silent.
func (s *Slot) Restore() error {
	if err := s.splice.objects.Intercepted.Delete(s.source); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("restore socket: %w", err)
	}
	atomic.StoreUint32((*uint32)(&s.dir().Called), uint32(spliceCallCALL_LEFT))
	return nil
}

func insertError(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%s: %w", what, ErrHalfClosed)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Index and Generation name the slot in a wake-up.
func (s *Slot) Index() uint32      { return s.index }
func (s *Slot) Generation() uint32 { return s.dir().Generation }

// Rebase makes the next verdict learn its sequence numbers anew, and call again
// at the limit. Only while the source is not intercepted.
func (s *Slot) Rebase() {
	atomic.StoreUint32(&s.dir().Recalled, 0)
	atomic.StoreUint32((*uint32)(&s.dir().Basis), uint32(spliceBasisBASIS_NONE))
	atomic.StoreUint32((*uint32)(&s.dir().Called), uint32(spliceCallCALL_NONE))
}

// Redirected are the bytes that the verdict gave to the destination.
func (s *Slot) Redirected() uint64 { return atomic.LoadUint64(&s.dir().Redirected) }

// Segments are the redirected skbs; the count wraps.
func (s *Slot) Segments() uint32 { return atomic.LoadUint32(&s.dir().Segments) }

// Overflowed says that the destination's backlog was beyond its limit, or all
// backlogs together beyond theirs, since the last Rebase: the direction is to be
// taken back.
func (s *Slot) Overflowed() bool {
	return atomic.LoadUint32((*uint32)(&s.dir().Called)) != uint32(spliceCallCALL_NONE)
}

// Broken says that the pair must be reset, and why: bytes are missing, or could
// not be handed on.
func (s *Slot) Broken() (why string, broken bool) {
	e := spliceExit(atomic.LoadUint32((*uint32)(&s.dir().Broken)))
	if e == spliceExitEXIT_NONE {
		return "", false
	}
	return brokenBy[e], true
}

var brokenBy = [spliceExitEXIT_MAX]string{
	spliceExitEXIT_GAP:       "bytes are missing before a segment",
	spliceExitEXIT_UNTRIMMED: "a repeated head would not come off",
	spliceExitEXIT_NO_SEQ:    "the source's sequence could not be read",
	spliceExitEXIT_NO_TARGET: "the destination is not among the targets",
	spliceExitEXIT_FULL:      "the backlog reached its bound before the worker came",
	spliceExitEXIT_REFUSED:   "a redirect was refused",
}

// Last is when the last segment came, in nanoseconds of CLOCK_MONOTONIC, exact
// to a tick; 0 if none came.
func (s *Slot) Last() int64 { return int64(atomic.LoadUint64(&s.dir().Last)) }

// MaxBacklog is the highest payload seen in the destination's backlog, in bytes.
func (s *Slot) MaxBacklog() uint32 { return atomic.LoadUint32(&s.dir().MaxBacklog) }

// slotQueue hands slots out first in, first out, so that a stale word is as old
// as can be.
type slotQueue struct {
	fresh, limit uint32 // never used yet: fresh..limit
	rested       []restedSlot
	head         int
}

type restedSlot struct {
	index uint32
	since time.Time
}

func (q *slotQueue) init(n uint32) { q.limit = n }

func (q *slotQueue) take(now time.Time) (uint32, bool) {
	if q.head < len(q.rested) && now.Sub(q.rested[q.head].since) >= slotRest {
		index := q.rested[q.head].index
		if q.head++; q.head == len(q.rested) {
			q.rested, q.head = q.rested[:0], 0
		} else if q.head > 1024 && q.head > len(q.rested)/2 {
			q.rested = append(q.rested[:0], q.rested[q.head:]...)
			q.head = 0
		}
		return index, true
	}
	if q.fresh < q.limit {
		q.fresh++
		return q.fresh - 1, true
	}
	return 0, false
}

func (q *slotQueue) put(index uint32, now time.Time) {
	q.rested = append(q.rested, restedSlot{index, now})
}

// InUse is the number of slots that are taken.
func (s *Splice) InUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int(s.free.fresh) - (len(s.free.rested) - s.free.head)
}
