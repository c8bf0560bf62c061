package upstream

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/address"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"golang.org/x/sys/unix"
)

// ErrConnectTimeout says that connect_timeout ran out.
var ErrConnectTimeout = errors.New("connect timeout")

// ConnectError is why connect(2) failed at once.
type ConnectError struct {
	To  string
	Why error
}

func (e *ConnectError) Error() string { return fmt.Sprintf("connect to %s: %v", e.To, e.Why) }
func (e *ConnectError) Unwrap() error { return e.Why }

// Dial opens a connection on the worker's loop. The socket that done gets is
// connected, plain TCP (never MPTCP, which no sockmap takes) or a Unix socket,
// non-blocking, parked on the worker with Events, and prepared but for
// TCP_NODELAY, which the first send does not need. done is called once, never
// before Dial returns; Cancel prevents it.
type Dial struct {
	worker *loop.Worker
	fd     int
	seen   uint32
	timer  loop.Timer
	header []byte // what is still to be sent before anything else
	race   *race  // nil unless there are several addresses
	done   func(fd int, err error)
}

// Events are what a socket is watched for from its connect on. Edge-triggered,
// they fit the time of the connect as well as what comes after it.
const Events = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET

// Source is where a connection comes from, other than from what the kernel picks.
type Source struct {
	// Addr need not be an address of this machine; invalid leaves the choice.
	Addr netip.Addr
	// Mark is SO_MARK, 0 for none.
	Mark uint32
	// Segment bounds the segments of both ends (TCP_MAXSEG); 0 leaves them.
	Segment int
}

// Way is how a host is reached.
type Way struct {
	// Path is that of a Unix socket.
	Path      string
	From      Source
	Bind      *api.BindConfig
	Keepalive *api.Keepalive
	// Header is sent first.
	Header []byte
}

// NewDial starts a connection.
func NewDial(w *loop.Worker, to netip.AddrPort, from Source, timeout time.Duration, done func(fd int, err error)) *Dial {
	return newDial(w, to, &Way{From: from}, timeout, done)
}

func newDial(w *loop.Worker, to netip.AddrPort, way *Way, timeout time.Duration, done func(fd int, err error)) *Dial {
	d := &Dial{worker: w, fd: -1, header: way.Header, done: done}
	if err := d.start(to, way); err != nil {
		d.timer.F = func() { d.end(err) }
		w.After(&d.timer, 0)
		return d
	}
	if timeout > 0 {
		d.timer.F = func() { d.end(ErrConnectTimeout) }
		w.After(&d.timer, timeout)
	}
	return d
}

func (d *Dial) start(to netip.AddrPort, way *Way) error {
	family, protocol := unix.AF_INET6, unix.IPPROTO_TCP
	switch {
	case way.Path != "":
		family, protocol = unix.AF_UNIX, 0
	case to.Addr().Is4():
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	d.fd = fd
	if err := endByReset(fd); err != nil {
		return err
	}
	if way.Path != "" {
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: way.Path}); err != nil && err != unix.EINPROGRESS {
			return &ConnectError{way.Path, err}
		}
		return d.worker.Add(fd, Events, d)
	}
	if err := way.prepare(fd, family, to.Addr()); err != nil {
		return err
	}
	if err := address.Connect(fd, to); err != nil && err != unix.EINPROGRESS {
		return &ConnectError{to.String(), err}
	}
	return d.worker.Add(fd, Events, d)
}

// bind makes the socket come from the source. It needs CAP_NET_ADMIN for an
// address that is not local, and for a mark.
func (s Source) bind(fd, family int) error {
	if s.Mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(s.Mark)); err != nil {
			return fmt.Errorf("set SO_MARK: %w", err)
		}
	}
	if s.Segment != 0 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, s.Segment); err != nil {
			return fmt.Errorf("set TCP_MAXSEG: %w", err)
		}
	}
	if !s.Addr.IsValid() {
		return nil
	}
	level, transparent := unix.SOL_IP, unix.IP_TRANSPARENT
	if family == unix.AF_INET6 {
		level, transparent = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	if err := unix.SetsockoptInt(fd, level, transparent, 1); err != nil {
		return fmt.Errorf("set IP_TRANSPARENT: %w", err)
	}
	// The port is chosen by connect, when the whole four-tuple is known.
	if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return fmt.Errorf("set IP_BIND_ADDRESS_NO_PORT: %w", err)
	}
	if err := address.Bind(fd, netip.AddrPortFrom(s.Addr, 0)); err != nil {
		return fmt.Errorf("bind to %v: %w", s.Addr, err)
	}
	return nil
}

// Silent says, to done, that the socket has had no event but that it stands, so
// that whoever inherits it from the worker misses none.
func (d *Dial) Silent() bool { return d.seen == unix.EPOLLOUT }

// Ready is called by the worker when the connection stands or is refused.
func (d *Dial) Ready(events uint32) {
	d.seen = events
	if events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) == unix.EPOLLOUT {
		d.stands()
		return
	}
	soerr, err := unix.GetsockoptInt(d.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		d.end(fmt.Errorf("read socket error: %w", err))
	case soerr != 0:
		d.end(fmt.Errorf("connect: %w", syscall.Errno(soerr)))
	default:
		d.stands()
	}
}

// stands sends the header, and is the end once all of it is in the socket.
func (d *Dial) stands() {
	for len(d.header) > 0 {
		n, err := unix.SendmsgN(d.fd, d.header, nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EAGAIN:
			return // for more than the socket's buffer: an event follows
		case err == unix.EINTR:
		case err != nil:
			d.end(fmt.Errorf("send header: %w", err))
			return
		default:
			d.header = d.header[n:]
		}
	}
	d.end(nil)
}

// Cancel gives the connection up; done is not called any more.
func (d *Dial) Cancel() {
	d.worker.Stop(&d.timer)
	if d.race != nil {
		d.race.cancel()
	}
	if d.fd >= 0 {
		d.worker.Forget(d.fd)
		unix.Close(d.fd)
		d.fd = -1
	}
}

func (d *Dial) end(err error) {
	if err != nil {
		d.Cancel()
		d.done(-1, err)
		return
	}
	d.worker.Stop(&d.timer)
	d.worker.Park(d.fd)
	d.done(d.fd, nil)
}

// Prepare sets what every socket of a pair has from its start: TCP_NODELAY;
// SO_LINGER{1,0}, so that a killed process ends its connections by RST and never
// by what looks like a clean end; and SO_OOBINLINE, because the kernel counts an
// urgent byte as received that recv would leave out.
func Prepare(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("set TCP_NODELAY: %w", err)
	}
	return endByReset(fd)
}

func endByReset(fd int) error {
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return fmt.Errorf("set SO_LINGER: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1); err != nil {
		return fmt.Errorf("set SO_OOBINLINE: %w", err)
	}
	return nil
}
