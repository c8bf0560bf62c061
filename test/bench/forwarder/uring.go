package forwarder

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// linux/io_uring.h
const (
	opSend    = 26
	opRecv    = 27
	linkFlag  = 1 << 2 // IOSQE_IO_LINK: what follows waits for this one
	getEvents = 1
	offSQ     = 0
	offCQ     = 0x8000000
	offSQEs   = 0x10000000
	waitAll   = unix.MSG_WAITALL // a short send is finished by the kernel
)

type uringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sq                                                                     struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

type sqe struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off, addr     uint64
	length, msg   uint32
	data          uint64
	_             [24]byte
}

type cqe struct {
	data  uint64
	res   int32
	flags uint32
}

type ring struct {
	fd     int
	p      uringParams
	sq, cq []byte
	sqes   []byte
	tail   uint32
}

func newRing() (r *ring, err error) {
	r = new(ring)
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 8, uintptr(unsafe.Pointer(&r.p)), 0)
	if e != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", e)
	}
	r.fd = int(fd)
	m := func(off int64, n uint32) []byte {
		b, e := unix.Mmap(r.fd, off, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
		if e != nil && err == nil {
			err = fmt.Errorf("map ring: %w", e)
		}
		return b
	}
	r.sq = m(offSQ, r.p.sq.array+r.p.sqEntries*4)
	r.cq = m(offCQ, r.p.cq.cqes+r.p.cqEntries*uint32(unsafe.Sizeof(cqe{})))
	r.sqes = m(offSQEs, r.p.sqEntries*uint32(unsafe.Sizeof(sqe{})))
	return r, err
}

func (r *ring) close() {
	for _, b := range [][]byte{r.sq, r.cq, r.sqes} {
		_ = unix.Munmap(b)
	}
	unix.Close(r.fd)
}

func word(b []byte, off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&b[off])) }

func (r *ring) push(s sqe) {
	i := r.tail & *word(r.sq, r.p.sq.mask)
	*(*sqe)(unsafe.Pointer(&r.sqes[uintptr(i)*unsafe.Sizeof(s)])) = s
	*word(r.sq, r.p.sq.array+4*i) = i
	r.tail++
	atomic.StoreUint32(word(r.sq, r.p.sq.tail), r.tail)
}

func (r *ring) pop() (cqe, bool) {
	head := word(r.cq, r.p.cq.head)
	h := *head
	if h == atomic.LoadUint32(word(r.cq, r.p.cq.tail)) {
		return cqe{}, false
	}
	i := h & *word(r.cq, r.p.cq.mask)
	c := *(*cqe)(unsafe.Pointer(&r.cq[uintptr(r.p.cq.cqes)+uintptr(i)*unsafe.Sizeof(cqe{})]))
	atomic.StoreUint32(head, h+1)
	return c, true
}

// uring: one call a message, which sends the last one, waits for the next, and
// for both to be done.
func uring(from, to int) error {
	r, err := newRing()
	if err != nil {
		return err
	}
	defer r.close()
	bufs := [2][]byte{make([]byte, bufferSize), make([]byte, bufferSize)}
	out := 0
	for turn := 0; ; turn++ {
		n := uintptr(1)
		if out > 0 {
			last := uint64(uintptr(unsafe.Pointer(&bufs[(turn+1)%2][0])))
			r.push(sqe{opcode: opSend, flags: linkFlag, fd: int32(to), addr: last, length: uint32(out), msg: waitAll | unix.MSG_NOSIGNAL, data: opSend})
			n++
		}
		r.push(sqe{opcode: opRecv, fd: int32(from), addr: uint64(uintptr(unsafe.Pointer(&bufs[turn%2][0]))), length: bufferSize, data: opRecv})
		if _, e := call(unix.SYS_IO_URING_ENTER, uintptr(r.fd), n, n, getEvents); e != 0 {
			return outcome("io_uring_enter", e)
		}
		sent := out
		out = 0
		for range n {
			c, ok := r.pop()
			for !ok { // interrupted after it had submitted
				if _, e := call(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 0, 1, getEvents); e != 0 {
					return outcome("io_uring_enter", e)
				}
				c, ok = r.pop()
			}
			switch {
			case c.res < 0:
				return outcome("io_uring", unix.Errno(-c.res))
			case c.data == opRecv:
				out = int(c.res)
			case int(c.res) != sent:
				return fmt.Errorf("io_uring: %d of %d bytes sent", c.res, sent)
			}
		}
		if out == 0 {
			return nil
		}
	}
}
