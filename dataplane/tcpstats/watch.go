package tcpstats

import (
	"syscall"
	"time"
	"unsafe"

	"github.com/sluice-proxy/sluice/dataplane/loop"
	"golang.org/x/sys/unix"
)

type info struct{ unix.TCPInfo }

// read tells whether fd is a socket of TCP.
func (i *info) read(fd int) bool {
	size := uint32(unsafe.Sizeof(*i))
	_, _, err := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO, uintptr(unsafe.Pointer(i)), uintptr(unsafe.Pointer(&size)), 0)
	return err == 0
}

// Watch looks at one socket, on its worker's thread. A nil Watch looks at none.
type Watch struct {
	stats  *Stats
	worker *loop.Worker
	fd     int
	timer  loop.Timer
	// told is what the figures say, seen what the last look saw.
	told, seen info
	sees       bool
}

// Watch begins to look at fd when it is let go of, and as Every says. End has to be
// called when it is closed, before its number can be another's.
func (s *Stats) Watch(w *loop.Worker, fd int) *Watch {
	if s == nil {
		return nil
	}
	o := &Watch{stats: s, worker: w, fd: fd}
	stayAwake(fd)
	w.OnLeave(fd, o.Look)
	return o
}

// Every brings the figures up to date in every period from now on; 0: not.
func (o *Watch) Every(period time.Duration) {
	if o == nil || period == 0 {
		return
	}
	o.timer.F = func() {
		if o.Look(); o.sees {
			o.record()
		}
		o.worker.After(&o.timer, period)
	}
	o.worker.After(&o.timer, period)
}

// maxIdle is the most that TCP_KEEPIDLE takes.
const maxIdle = 32767

// stayAwake gives a socket without keep-alive one that asks after nine hours: what is
// grafted passes its TCP by, and a socket with keep-alive is not grafted. It is asked
// for once, and a socket that is none of TCP does without.
func stayAwake(fd int) {
	if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE); err != nil || on != 0 {
		return
	}
	if unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, maxIdle) == nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	}
}

// Look takes down how the socket is, for the end.
func (o *Watch) Look() {
	if o != nil {
		o.sees = o.seen.read(o.fd) || o.sees
	}
}

func (o *Watch) record() {
	o.stats.record(&o.told, &o.seen)
	o.told = o.seen
}

// End counts what the last look saw.
func (o *Watch) End() {
	if o == nil {
		return
	}
	o.worker.Stop(&o.timer)
	o.worker.OnLeave(o.fd, nil)
	if o.sees {
		o.record()
		o.stats.left(&o.told, &info{})
	}
}
