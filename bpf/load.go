package bpf

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Errors that callers may tell apart.
var (
	// ErrNoSlot means that as many directions are spliced as the maps have room for.
	ErrNoSlot = errors.New("no free slot")
	// ErrHalfClosed means that the socket is not in ESTABLISHED any more, so
	// the kernel takes it into no map (sock_map_sk_state_allowed).
	ErrHalfClosed = errors.New("socket is half-closed")
)

// directionSize is the stride of the directions map in bytes.
const directionSize = unsafe.Sizeof(spliceDirection{})

// Splice owns the maps and the verdict of the guarded splice. Its methods are
// safe for concurrent use; the Slots it hands out are each for one worker.
type Splice struct {
	// read-only after Load
	objects spliceObjects
	attach  *link.RawLink
	leaver  *leaver
	words   []byte // the directions map, mapped for life
	budget  []byte // the budgets map
	rings   []*Ring

	mu   sync.Mutex
	free slotQueue
}

// Load loads the programs, attaches the verdict and makes one ring for each of
// so many workers. It needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (the verdict
// reads tcp_sock), BTF, the kfunc bpf_cast_to_kern_ctx (Linux 6.2), and what
// newLeaver needs.
func Load(workers int) (s *Splice, err error) {
	spec, err := loadSplice()
	if err != nil {
		return nil, fmt.Errorf("read splice object: %w", err)
	}
	if got := spec.Maps[spliceMapDirections].ValueSize; uintptr(got) != directionSize {
		return nil, fmt.Errorf("check splice object: a direction has %d bytes in C and %d in Go", got, directionSize)
	}
	if limit := spec.Maps[spliceMapRings].MaxEntries; workers > int(limit) {
		return nil, fmt.Errorf("load splice: %d workers, but only %d rings", workers, limit)
	}
	// Before Linux 5.11 maps count against RLIMIT_MEMLOCK; where they do not,
	// this does nothing. A refusal shows as the load's own error.
	_ = rlimit.RemoveMemlock()

	s = new(Splice)
	defer func() {
		if err != nil {
			s.Close()
			s = nil
		}
	}()
	if err := spec.LoadAndAssign(&s.objects, nil); err != nil {
		return s, fmt.Errorf("load splice: %w", err)
	}
	s.attach, err = link.AttachRawLink(link.RawLinkOptions{
		Target:  s.objects.Intercepted.FD(),
		Program: s.objects.Splice,
		Attach:  ebpf.AttachSkSKBStreamVerdict,
	})
	if err != nil {
		// Sockmap links came with Linux 6.10; the attachment without one lasts
		// as long as the map.
		if err := link.RawAttachProgram(link.RawAttachProgramOptions{
			Target:  s.objects.Intercepted.FD(),
			Program: s.objects.Splice,
			Attach:  ebpf.AttachSkSKBStreamVerdict,
		}); err != nil {
			return s, fmt.Errorf("attach splice: %w", err)
		}
		s.attach = nil
	}
	if s.leaver, err = newLeaver(&s.objects); err != nil {
		return s, err
	}
	size := int(s.objects.Directions.MaxEntries()) * int(directionSize)
	s.words, err = unix.Mmap(s.objects.Directions.FD(), 0, pageAlign(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return s, fmt.Errorf("map directions: %w", err)
	}
	s.budget, err = unix.Mmap(s.objects.Budgets.FD(), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return s, fmt.Errorf("map budget: %w", err)
	}
	s.SetBudget(math.MaxInt64)
	for i := range workers {
		r, err := newRing(spec.Maps[spliceMapRings].InnerMap)
		if err != nil {
			return s, fmt.Errorf("make ring %d: %w", i, err)
		}
		s.rings = append(s.rings, r)
		if err := s.objects.Rings.Put(uint32(i), r.ring); err != nil {
			return s, fmt.Errorf("put ring %d: %w", i, err)
		}
	}
	s.free.init(s.objects.Directions.MaxEntries())
	return s, nil
}

// Ring returns the wake-ups of one worker.
func (s *Splice) Ring(worker int) *Ring { return s.rings[worker] }

// Close takes the verdict away and frees the maps. Sockets that are still
// intercepted keep the verdict until they are closed; close them first.
func (s *Splice) Close() error {
	var errs []error
	if s.leaver != nil {
		errs = append(errs, s.leaver.close())
	}
	if s.attach != nil {
		errs = append(errs, s.attach.Close())
	}
	for _, r := range s.rings {
		errs = append(errs, r.close())
	}
	if s.words != nil {
		errs = append(errs, unix.Munmap(s.words))
		s.words = nil
	}
	if s.budget != nil {
		errs = append(errs, unix.Munmap(s.budget))
		s.budget = nil
	}
	errs = append(errs, s.objects.Close())
	return errors.Join(errs...)
}

func (s *Splice) direction(slot uint32) *spliceDirection {
	return (*spliceDirection)(unsafe.Pointer(&s.words[uintptr(slot)*directionSize]))
}

func pageAlign(n int) int {
	page := os.Getpagesize()
	return (n + page - 1) &^ (page - 1)
}
