package bpf

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Layout of a ring buffer record (include/uapi/linux/bpf.h).
const (
	ringBusy    = 1 << 31
	ringDiscard = 1 << 30
	ringHeader  = 8
)

// Ring carries the wake-ups of one worker. Its file descriptor becomes readable
// when there is one, so that it can stand in the worker's own epoll set beside
// the sockets: the library's reader would want a goroutine of its own and two
// more context switches per wake-up.
type Ring struct {
	ring     *ebpf.Map
	consumer []byte // one page: the position we have read to
	producer []byte // one page: the position written to; then the data, twice
	mask     uint64
}

func newRing(spec *ebpf.MapSpec) (*Ring, error) {
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, err
	}
	page := os.Getpagesize()
	r := &Ring{ring: m, mask: uint64(m.MaxEntries()) - 1}
	if r.consumer, err = unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		m.Close()
		return nil, fmt.Errorf("map consumer page: %w", err)
	}
	// The kernel maps the data twice in a row, so that no record wraps.
	size := page + 2*int(m.MaxEntries())
	if r.producer, err = unix.Mmap(m.FD(), int64(page), size, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		unix.Munmap(r.consumer)
		m.Close()
		return nil, fmt.Errorf("map data pages: %w", err)
	}
	return r, nil
}

// FD is readable while wake-ups wait.
func (r *Ring) FD() int { return r.ring.FD() }

// Drain calls f for every wake-up that waits. Only for the ring's worker.
func (r *Ring) Drain(f func(slot, generation uint32)) {
	cpos := (*uint64)(unsafe.Pointer(&r.consumer[0]))
	ppos := (*uint64)(unsafe.Pointer(&r.producer[0]))
	data := r.producer[os.Getpagesize():]
	pos := atomic.LoadUint64(cpos)
	for pos < atomic.LoadUint64(ppos) {
		at := pos & r.mask
		head := atomic.LoadUint32((*uint32)(unsafe.Pointer(&data[at])))
		if head&ringBusy != 0 {
			return // being written now; its submit makes the ring readable again
		}
		length := uint64(head &^ (ringBusy | ringDiscard))
		if head&ringDiscard == 0 && length == 8 {
			record := *(*uint64)(unsafe.Pointer(&data[at+ringHeader]))
			f(uint32(record), uint32(record>>32))
		}
		pos += (length + ringHeader + 7) &^ 7
		atomic.StoreUint64(cpos, pos)
	}
}

func (r *Ring) close() error {
	unix.Munmap(r.consumer)
	unix.Munmap(r.producer)
	return r.ring.Close()
}
