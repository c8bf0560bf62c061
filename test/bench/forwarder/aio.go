package forwarder

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// linux/aio_abi.h
const (
	iocbRead  = 0
	iocbWrite = 1
)

type iocb struct {
	data           uint64
	key            uint32
	rwFlags        uint32
	opcode         uint16
	priority       int16
	fd             uint32
	buf            uint64
	length         uint64
	offset         int64
	_              uint64
	flags, eventFD uint32
}

type ioEvent struct {
	data, obj uint64
	res, res2 int64
}

// aioRing is what a context's id points to (fs/aio.c): the events can be taken
// without a call.
type aioRing struct {
	id, size                                   uint32
	head, tail                                 uint32
	magic, compatible, incompatible, headerLen uint32
	events                                     [128]ioEvent
}

const aioMagic = 0xa10a10a1

// aio: one call a message, which sends the last one and waits for the next:
// io_submit works its list off in order, and blocks on blocking sockets.
func aio(from, to int) error {
	var ctx uint64
	if _, e := call(unix.SYS_IO_SETUP, 64, uintptr(unsafe.Pointer(&ctx))); e != 0 {
		return fmt.Errorf("io_setup: %w", e)
	}
	defer call(unix.SYS_IO_DESTROY, uintptr(ctx))
	ring := *(**aioRing)(unsafe.Pointer(&ctx))
	if ring.magic != aioMagic {
		return fmt.Errorf("io_setup: ring has magic %#x", ring.magic)
	}
	// Two buffers in turn: one goes out while the other is filled.
	bufs := [2][]byte{make([]byte, bufferSize), make([]byte, bufferSize)}
	in, out := iocb{opcode: iocbRead, fd: uint32(from)}, iocb{opcode: iocbWrite, fd: uint32(to)}
	for turn := 0; ; turn++ {
		in.buf, in.length = uint64(uintptr(unsafe.Pointer(&bufs[turn%2][0]))), bufferSize
		list := []*iocb{&out, &in}
		if out.length == 0 {
			list = list[1:]
		}
		sent := out.length
		for len(list) > 0 {
			n, e := call(unix.SYS_IO_SUBMIT, uintptr(ctx), uintptr(len(list)), uintptr(unsafe.Pointer(&list[0])))
			if e != 0 {
				return outcome("io_submit", e)
			}
			list = list[n:]
		}
		var got int64
		again := false
		for range map[bool]int{true: 2, false: 1}[sent > 0] {
			ev, ok := ring.take()
			switch {
			case !ok:
				return fmt.Errorf("io_submit: no event, though sockets block")
			case ev.res == -int64(unix.EINTR) && ev.obj == uint64(uintptr(unsafe.Pointer(&in))):
				// Go's scheduler interrupts threads; see GODEBUG=asyncpreemptoff=1.
				again = true
			case ev.res < 0:
				return outcome("io_submit", unix.Errno(-ev.res))
			case ev.obj == uint64(uintptr(unsafe.Pointer(&in))):
				got = ev.res
			case ev.res != int64(sent):
				return fmt.Errorf("io_submit: %d of %d bytes sent", ev.res, sent)
			}
		}
		if again {
			out.length = 0
			continue
		}
		if got == 0 {
			return nil
		}
		out.buf, out.length = in.buf, uint64(got)
	}
}

func (r *aioRing) take() (ioEvent, bool) {
	head := r.head
	if head == atomic.LoadUint32(&r.tail) {
		return ioEvent{}, false
	}
	ev := *(*ioEvent)(unsafe.Add(unsafe.Pointer(r), uintptr(r.headerLen)+uintptr(head)*unsafe.Sizeof(ioEvent{})))
	atomic.StoreUint32(&r.head, (head+1)%r.size)
	return ev, true
}
