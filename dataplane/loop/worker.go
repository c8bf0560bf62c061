package loop

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BufferSize is the size of a worker's scratch buffer, and the most that is read
// or written by one raw call: a longer one would hold up the runtime's
// stop-the-world.
const BufferSize = 256 << 10

// maxEvents is what one epoll_wait takes.
const maxEvents = 256

// Handler is told of the events of one file descriptor (EPOLLIN, …), on the
// worker's thread.
type Handler interface{ Ready(events uint32) }

// Worker is one event loop. Add, Mod, Del, Park, Inherit, Forget, Now, Buffer and
// the timers are for the worker's own thread; Post, Do and Close are for everyone.
type Worker struct {
	// read-only after New
	ID     int
	log    *slog.Logger
	epfd   int
	wakefd int
	done   chan struct{}
	clock  clock

	// of the worker's thread
	handlers []registered   // by place; an event brings the place
	vacant   []int32        // places that are free
	places   []int32        // by file descriptor; 0 for none
	leaving  map[int]func() // by file descriptor; see OnLeave
	timers   timerHeap
	now      int64
	buffer   []byte
	events   [maxEvents]unix.EpollEvent
	stop     bool
	// Iterations counts returns of epoll_wait; Events what they brought.
	Iterations, Events uint64

	mu      sync.Mutex
	posted  []func()
	closing bool
}

// registered is one place. Places are not descriptors' numbers, for these are the
// whole process's: what is kept for each of them is kept by every worker, so that
// it has to be small.
type registered struct {
	h Handler
	// generation tells an event for this registration from one for a
	// descriptor that had the place before, and was closed in the same batch.
	generation int32
	// parked: the descriptor is in the epoll set and silent.
	parked bool
}

// New makes a worker; Run makes it go.
func New(id int, log *slog.Logger) (*Worker, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll set: %w", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epfd)
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	w := &Worker{ID: id, log: log, epfd: epfd, wakefd: wakefd, done: make(chan struct{}), buffer: make([]byte, BufferSize), handlers: make([]registered, 1)}
	w.clock = newClock()
	w.now = w.clock.now()
	if err := w.Add(wakefd, unix.EPOLLIN, wakeHandler{w}); err != nil {
		unix.Close(epfd)
		unix.Close(wakefd)
		return nil, err
	}
	return w, nil
}

// Run is the worker's loop; it returns after Close.
func (w *Worker) Run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(w.done)
	for !w.stop {
		n, err := epollWait(w.epfd, w.events[:], w.timers.wait(w.now))
		w.now = w.clock.now()
		if err != 0 && err != unix.EINTR {
			w.log.Error("wait for events", "worker", w.ID, "error", err)
			break
		}
		w.Iterations++
		w.Events += uint64(n)
		for i := range n {
			e := &w.events[i]
			if r := w.handlers[e.Fd]; r.h != nil && r.generation == e.Pad {
				r.h.Ready(e.Events)
			}
		}
		w.timers.fire(w.now)
	}
	unix.Close(w.epfd)
	unix.Close(w.wakefd)
}

// Close stops the loop after what was posted before, and waits for its end.
// What is still registered is not closed.
func (w *Worker) Close() {
	w.mu.Lock()
	if !w.closing {
		w.postLocked(func() { w.stop = true })
		w.closing = true
	}
	w.mu.Unlock()
	<-w.done
}

// Post has f run on the worker's thread, soon. It returns false, and f does not
// run, once the worker is closing.
func (w *Worker) Post(f func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closing {
		return false
	}
	w.postLocked(f)
	return true
}

func (w *Worker) postLocked(f func()) {
	w.posted = append(w.posted, f)
	if len(w.posted) == 1 {
		var one = [8]byte{1}
		unix.Write(w.wakefd, one[:])
	}
}

// Do runs f on the worker's thread and waits for its end. It returns false if
// the worker is closing. Never call it from a worker's thread.
func (w *Worker) Do(f func()) bool {
	ran := make(chan struct{})
	if !w.Post(func() { defer close(ran); f() }) {
		return false
	}
	select {
	case <-ran:
		return true
	case <-w.done:
		select {
		case <-ran:
			return true
		default:
			return false
		}
	}
}

type wakeHandler struct{ w *Worker }

func (h wakeHandler) Ready(uint32) {
	var b [8]byte
	unix.Read(h.w.wakefd, b[:])
	h.w.mu.Lock()
	run := h.w.posted
	h.w.posted = nil
	h.w.mu.Unlock()
	for _, f := range run {
		f()
	}
}

// Add registers a descriptor. EPOLLERR and EPOLLHUP always count as asked for.
func (w *Worker) Add(fd int, events uint32, h Handler) error {
	r := w.take(fd)
	r.generation++
	r.h = h
	if r.parked {
		r.parked = false
		// If it was closed meanwhile, another has the number, and is new.
		if w.ctl(unix.EPOLL_CTL_MOD, fd, events) == 0 {
			return nil
		}
	}
	if err := w.ctl(unix.EPOLL_CTL_ADD, fd, events); err != 0 {
		w.vacate(fd)
		return fmt.Errorf("add descriptor %d to epoll set: %w", fd, err)
	}
	return nil
}

// Mod changes what is asked for.
func (w *Worker) Mod(fd int, events uint32) error {
	if err := w.ctl(unix.EPOLL_CTL_MOD, fd, events); err != 0 {
		return fmt.Errorf("change descriptor %d in epoll set: %w", fd, err)
	}
	return nil
}

// Del forgets a descriptor that stays open.
func (w *Worker) Del(fd int) {
	if w.place(fd) != 0 {
		w.leave(fd)
		w.ctl(unix.EPOLL_CTL_DEL, fd, 0)
		w.vacate(fd)
	}
}

// Park drops the handler of a descriptor that was added with EPOLLET, or with
// EPOLLONESHOT and has had its event. It stays in the set, silent, so that the
// next Add costs no more than a Mod; it may be closed as it is.
func (w *Worker) Park(fd int) {
	w.leave(fd)
	r := &w.handlers[w.place(fd)]
	r.h, r.parked = nil, true
}

// Inherit gives a descriptor that has just been parked to another handler, with
// the events that it was added with, which costs no call. False: it is not
// parked, and has to be added.
func (w *Worker) Inherit(fd int, h Handler) bool {
	r := &w.handlers[w.place(fd)]
	if !r.parked {
		return false
	}
	r.h, r.parked = h, false
	return true
}

// Forget drops the handler of a descriptor that is about to be closed, which
// takes it out of the epoll set without a call of its own.
func (w *Worker) Forget(fd int) {
	if w.place(fd) != 0 {
		w.leave(fd)
		w.vacate(fd)
	}
}

// OnLeave has f called whenever a handler lets go of a descriptor (Del, Park, Forget):
// whoever closes it has done so before, so that this is the last time that it is sure
// to be open. nil takes that back, which has to come before the number is another's.
func (w *Worker) OnLeave(fd int, f func()) {
	if f == nil {
		delete(w.leaving, fd)
		return
	}
	if w.leaving == nil {
		w.leaving = map[int]func(){}
	}
	w.leaving[fd] = f
}

func (w *Worker) leave(fd int) {
	if len(w.leaving) == 0 { // as good as always
		return
	}
	if f := w.leaving[fd]; f != nil {
		f()
	}
}

// place is where a descriptor is registered, 0 for nowhere.
func (w *Worker) place(fd int) int32 {
	if fd >= len(w.places) {
		return 0
	}
	return w.places[fd]
}

// take returns the descriptor's place, a free one if it has none.
func (w *Worker) take(fd int) *registered {
	if fd >= len(w.places) {
		w.places = append(w.places, make([]int32, fd+1-len(w.places))...)
	}
	place := w.places[fd]
	if last := len(w.vacant) - 1; place == 0 && last >= 0 {
		place = w.vacant[last]
		w.vacant = w.vacant[:last]
	} else if place == 0 {
		place = int32(len(w.handlers))
		w.handlers = append(w.handlers, registered{})
	}
	w.places[fd] = place
	return &w.handlers[place]
}

func (w *Worker) vacate(fd int) {
	place := w.places[fd]
	w.handlers[place].h, w.handlers[place].parked = nil, false
	w.places[fd] = 0
	w.vacant = append(w.vacant, place)
}

func (w *Worker) ctl(op, fd int, events uint32) syscall.Errno {
	place := w.place(fd)
	e := unix.EpollEvent{Events: events, Fd: place, Pad: w.handlers[place].generation}
	_, _, err := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(w.epfd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&e)), 0, 0)
	return err
}

// Now is the time at which this round of events began, in nanoseconds of
// CLOCK_MONOTONIC (the verdict's clock).
func (w *Worker) Now() int64 { return w.now }

// Buffer is the worker's scratch space, BufferSize long; it is anyone's between
// two calls of a handler.
func (w *Worker) Buffer() []byte { return w.buffer }

// clock reads CLOCK_MONOTONIC without a system call: Go's own monotonic reading
// is of that clock, by the vDSO, but only differences of it can be had.
type clock struct {
	base int64
	at   time.Time
}

func newClock() clock {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return clock{base: ts.Nano(), at: time.Now()}
}

func (c *clock) now() int64 { return c.base + int64(time.Since(c.at)) }

// epollWait waits at most d, or without end if d < 0. It goes through Syscall,
// not RawSyscall: it blocks, and the runtime has to know.
func epollWait(epfd int, events []unix.EpollEvent, d time.Duration) (int, syscall.Errno) {
	var ts unix.Timespec
	var tsp unsafe.Pointer
	if d >= 0 {
		ts = unix.NsecToTimespec(int64(d))
		tsp = unsafe.Pointer(&ts)
	}
	n, _, err := syscall.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(epfd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(tsp), 0, 0)
	if err == unix.ENOSYS { // before Linux 5.11
		ms := -1
		if d >= 0 {
			ms = int((d + time.Millisecond - 1) / time.Millisecond)
		}
		n, _, err = syscall.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(ms), 0, 0)
	}
	if err != 0 {
		return 0, err
	}
	return int(n), 0
}
