package listen

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
	"golang.org/x/sys/unix"
)

// acceptRounds is how many connections one socket may bring before others get
// their turn.
const acceptRounds = 64

// Sockets are the listening sockets of one address, one per worker, or a single
// one that all workers watch.
type Sockets struct {
	// read-only after Open
	Addr    api.BindAddress
	Bound   netip.AddrPort // with the port that port 0 got
	Reuse   bool
	workers []*loop.Worker
	fds     []int // one per worker, or one
	accept  func(worker, fd int)
}

// Options are those of listener.proto that concern the socket.
type Options struct {
	Backlog   int // 0 means the kernel's somaxconn
	ReusePort bool
}

// Open binds an address for the workers. accept is called on a worker's thread
// with each connection: plain TCP, non-blocking, with TCP_NODELAY and
// SO_LINGER{1,0}, which accepted sockets inherit. Nothing is accepted before
// Start.
//
// SO_REUSEPORT lets another process of the same user in, and lets us into its
// address, without a word; so the address is tried once without it.
func Open(addr api.BindAddress, o Options, workers []*loop.Worker, accept func(worker, fd int)) (s *Sockets, err error) {
	s = &Sockets{Addr: addr, Reuse: o.ReusePort, workers: workers, accept: accept}
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
	n := 1
	bind := addr.Addr
	if o.ReusePort {
		probe, err := open(addr, bind, false, -1)
		if err != nil {
			return s, err
		}
		bind, err = local(probe)
		unix.Close(probe)
		if err != nil {
			return s, err
		}
		n = len(workers)
	}
	for range n {
		fd, err := open(addr, bind, o.ReusePort, o.Backlog)
		if err != nil {
			return s, err
		}
		s.fds = append(s.fds, fd)
		if s.Bound, err = local(fd); err != nil {
			return s, err
		}
		bind = s.Bound
	}
	return s, nil
}

// open makes one socket; it listens unless backlog is negative.
func open(addr api.BindAddress, bind netip.AddrPort, reusePort bool, backlog int) (int, error) {
	family := unix.AF_INET6
	if bind.Addr().Is4() {
		family = unix.AF_INET
	}
	// IPPROTO_TCP by name: an MPTCP socket can be put into no sockmap.
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("open socket for %v: %w", bind, err)
	}
	fail := func(what string, err error) (int, error) {
		unix.Close(fd)
		return -1, fmt.Errorf("%s %v: %w", what, bind, err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fail("set SO_REUSEADDR for", err)
	}
	if reusePort {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return fail("set SO_REUSEPORT for", err)
		}
	}
	if family == unix.AF_INET6 {
		only := 1
		if addr.IPv4Compat {
			only = 0
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return fail("set IPV6_V6ONLY for", err)
		}
	}
	if err := upstream.Prepare(fd); err != nil {
		return fail("prepare socket for", err)
	}
	if err := unix.Bind(fd, upstream.Sockaddr(bind)); err != nil {
		unix.Close(fd)
		return -1, bindError{bind, err}
	}
	if backlog >= 0 {
		if err := unix.Listen(fd, backlog); err != nil {
			return fail("listen on", err)
		}
	}
	return fd, nil
}

// bindError is put in Envoy's words: what a control plane is told of a port in
// use, operators and tools search for.
type bindError struct {
	at    netip.AddrPort
	cause error
}

func (e bindError) Error() string {
	text := e.cause.Error() // Go writes C's messages in lower case
	return fmt.Sprintf("cannot bind '%v': %s%s", e.at, strings.ToUpper(text[:1]), text[1:])
}

func (e bindError) Unwrap() error { return e.cause }

func local(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read bound address: %w", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), nil
	}
	return netip.AddrPort{}, errors.New("read bound address: neither IPv4 nor IPv6")
}

// Start lets connections in.
func (s *Sockets) Start() error {
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
// first: they were promised service.
func (s *Sockets) Close() {
	for i, w := range s.workers {
		a := &acceptor{s: s, worker: i, fd: s.fds[min(i, len(s.fds)-1)]}
		w.Do(func() {
			w.Del(a.fd)
			for a.round() {
			}
		})
	}
	for _, fd := range s.fds {
		unix.Close(fd)
	}
	s.fds = nil
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
}

// Ready is called by the worker when connections wait.
func (a *acceptor) Ready(uint32) { a.round() }

// round accepts some connections; true says that there may be more.
func (a *acceptor) round() bool {
	for range acceptRounds {
		fd, _, err := unix.Accept4(a.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			a.s.accept(a.worker, fd)
		case unix.EINTR, unix.ECONNABORTED:
		default:
			// EAGAIN: none left. EMFILE and the like: the connection stays in
			// the queue, and the next round may have a descriptor for it.
			return false
		}
	}
	return true
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
