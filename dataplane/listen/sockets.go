package listen

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/address"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"golang.org/x/sys/unix"
)

// acceptRounds is how many connections one socket may bring before others get
// their turn, if the configuration sets no bound.
const acceptRounds = 64

// rushStart is how many wake-ups in a row make a rush, as a power of two.
const rushStart = 8

// Sockets are the listening sockets of one address, one per worker, or a single
// one that all workers watch.
type Sockets struct {
	// read-only after Open
	Addr    api.BindAddress
	Bound   api.BoundAddress // with the port that port 0 got
	Reuse   bool
	workers []*loop.Worker
	fds     []int // one per worker, or one
	h       Handler
	// local is that of all connections; invalid where each has to be asked.
	local netip.AddrPort

	rounds atomic.Int64

	// not for two callers at once
	started, paused bool
}

// Handler gets the connections, on the worker's thread.
type Handler interface {
	// Accepted gets a connection: plain TCP or Unix, non-blocking; a TCP one with
	// TCP_NODELAY, SO_OOBINLINE and SO_LINGER{1,0}, which accepted sockets inherit.
	// Its ends are invalid on a Unix socket.
	Accepted(worker, fd int, remote, local netip.AddrPort)
	// Round is called after each wake-up that brought connections.
	Round(worker, connections int)
}

// Options are those of listener.proto that concern sockets of any address.
type Options struct {
	Backlog   int // 0 means the kernel's somaxconn
	ReusePort bool
	// Rounds bounds what one wake-up accepts; 0 is a bound of our own.
	Rounds uint32
	// Beside says that sockets of ours with ReusePort have the address already.
	Beside bool
	// Elsewhere says that programs of ours give the sockets connections that are
	// for other addresses (sk_lookup).
	Elsewhere bool
}

// Open binds an address for the workers. Nothing is accepted before Start.
//
// SO_REUSEPORT lets another process of the same user in, and lets us into its
// address, without a word; so the address is tried once without it. A Unix
// socket has no such thing: all workers share one.
func Open(addr api.BindAddress, o Options, workers []*loop.Worker, h Handler) (s *Sockets, err error) {
	s = &Sockets{Addr: addr, Reuse: o.ReusePort && addr.Path == "", workers: workers, h: h}
	s.SetRounds(o.Rounds)
	defer func() {
		if err != nil {
			for _, fd := range s.fds {
				unix.Close(fd)
			}
			s = nil
		}
	}()
	if o.Backlog == 0 {
		o.Backlog = somaxconn()
	}
	n, bind := 1, api.BoundAddress{Addr: addr.Addr, Path: addr.Path}
	if s.Reuse {
		if !o.Beside {
			if bind, err = s.try(bind); err != nil {
				return s, err
			}
		}
		n = len(workers)
	}
	for range n {
		fd, err := open(&s.Addr, bind, s.Reuse, o.Backlog)
		if err != nil {
			return s, err
		}
		s.fds = append(s.fds, fd)
		if s.Bound, err = local(fd, addr.Path); err != nil {
			return s, err
		}
		bind = s.Bound
	}
	// Where the kernel may hand over connections to other addresses, each is
	// asked for its own.
	if a := s.Bound.Addr; !o.Elsewhere && a.IsValid() && !a.Addr().IsUnspecified() && addr.Socket.Transparent == nil && len(addr.Socket.Options) == 0 {
		s.local = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	return s, nil
}

// try binds without SO_REUSEPORT and lets go again. It chooses the port for 0.
func (s *Sockets) try(bind api.BoundAddress) (api.BoundAddress, error) {
	fd, err := open(&s.Addr, bind, false, -1)
	if err != nil {
		return bind, err
	}
	defer unix.Close(fd)
	return local(fd, "")
}

func local(fd int, path string) (api.BoundAddress, error) {
	if path != "" {
		return api.BoundAddress{Path: path}, nil
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return api.BoundAddress{}, fmt.Errorf("read bound address: %w", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return api.BoundAddress{Addr: netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))}, nil
	case *unix.SockaddrInet6:
		return api.BoundAddress{Addr: netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))}, nil
	}
	return api.BoundAddress{}, errors.New("read bound address: neither IPv4 nor IPv6")
}

// SetRounds changes what one wake-up may accept.
func (s *Sockets) SetRounds(n uint32) {
	if n == 0 {
		n = acceptRounds
	}
	s.rounds.Store(int64(n))
}

// SetBacklog changes the length of the queues, as listen(2) does.
func (s *Sockets) SetBacklog(n int) error {
	if n == 0 {
		n = somaxconn()
	}
	var errs []error
	for _, fd := range s.fds {
		errs = append(errs, unix.Listen(fd, n))
	}
	return errors.Join(errs...)
}

// Start lets connections in, unless Pause says otherwise.
func (s *Sockets) Start() error {
	s.started = true
	if s.paused {
		return nil
	}
	return s.watch()
}

// Pause has connections wait in the kernel's queues, or lets them in again. It may be
// called before Start.
func (s *Sockets) Pause(on bool) error {
	if s.paused == on {
		return nil
	}
	s.paused = on
	switch {
	case !s.started:
	case on:
		for i, w := range s.workers {
			w.Do(func() { w.Del(s.fds[min(i, len(s.fds)-1)]) })
		}
	default:
		return s.watch()
	}
	return nil
}

func (s *Sockets) watch() error {
	errs := make([]error, len(s.workers))
	for i, w := range s.workers {
		fd, events := s.fds[0], uint32(unix.EPOLLIN|unix.EPOLLEXCLUSIVE)
		if len(s.fds) > 1 || len(s.workers) == 1 {
			fd, events = s.fds[i], unix.EPOLLIN
		}
		w.Do(func() { errs[i] = w.Add(fd, events, &acceptor{s: s, worker: i, fd: fd}) })
	}
	return errors.Join(errs...)
}

// Close stops listening. Connections that wait in the queues are accepted
// first: they were promised service. The file of a Unix socket stays, as
// Envoy's does: another process may have bound it anew.
func (s *Sockets) Close() {
	for i, w := range s.workers {
		a := &acceptor{s: s, worker: i, fd: s.fds[min(i, len(s.fds)-1)]}
		w.Do(func() {
			w.Del(a.fd)
			for a.round(acceptRounds) {
			}
		})
	}
	s.Discard()
}

// Discard closes sockets that were never started.
func (s *Sockets) Discard() {
	for _, fd := range s.fds {
		unix.Close(fd)
	}
	s.fds = nil
}

type acceptor struct {
	s          *Sockets
	worker, fd int
	// rush doubles with each wake-up that follows right upon another and took
	// as many as it could.
	rush int
	last uint64 // iteration of the worker
	peer address.Raw
}

// Ready is called by the worker when connections wait. One is taken, for to ask
// whether another waits would cost a call each time, and the next wake-up tells;
// in a rush more and more of them, so that a long queue is not kept waiting by
// what else the worker has to do.
func (a *acceptor) Ready(uint32) {
	now := a.s.workers[a.worker].Iterations
	if a.rush == 0 || now != a.last+1 {
		a.rush = 1
	}
	a.last = now
	if a.round(a.rush / rushStart) {
		a.rush = min(2*a.rush, acceptRounds*rushStart)
	} else {
		a.rush = 0
	}
}

// round accepts some connections, one at least; true says that there may be
// more.
func (a *acceptor) round(most int) bool {
	n := 0
	defer func() {
		if n > 0 {
			a.s.h.Round(a.worker, n)
		}
	}()
	for most = max(1, min(most, int(a.s.rounds.Load()))); n < most; {
		fd, err := a.accept()
		switch err {
		case 0:
			n++
			local := a.s.local
			if !local.IsValid() && a.s.Addr.Path == "" {
				local = address.Local(fd)
			}
			a.s.h.Accepted(a.worker, fd, a.peer.Address(), local)
		case unix.EINTR, unix.ECONNABORTED:
		default:
			// EAGAIN: none left. EMFILE and the like: the connection stays in
			// the queue, and the next round may have a descriptor for it.
			return false
		}
	}
	return true
}

// accept makes the call itself: x/sys/unix asks for the listening socket's
// protocol, too. The peer's address is in peer then.
func (a *acceptor) accept() (int, syscall.Errno) {
	size := a.peer.Size()
	n, _, err := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(a.fd), uintptr(unsafe.Pointer(&a.peer)), uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return int(n), err
}

func somaxconn() int {
	b, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		return 4096
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 4096
	}
	return n
}

// Descriptors are the listening sockets. They stay the property of s.
func (s *Sockets) Descriptors() []int { return s.fds }
