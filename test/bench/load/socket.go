package load

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the server does with a connection.
const (
	modeEcho   = 'e' // whole messages, each answered by itself
	modeSource = 's' // sends without end
	modeBoth   = 'b' // sends without end, and checks what it gets
)

// helloSize is the size of a connection's first bytes.
const helloSize = 16

type hello struct {
	mode byte
	size uint32 // of a message
	id   uint32 // of the stream
}

func (h hello) put(b []byte) {
	copy(b, "slb1")
	b[4] = h.mode
	binary.LittleEndian.PutUint32(b[8:], h.size)
	binary.LittleEndian.PutUint32(b[12:], h.id)
}

func parseHello(b []byte) (h hello, ok bool) {
	h = hello{mode: b[4], size: binary.LittleEndian.Uint32(b[8:]), id: binary.LittleEndian.Uint32(b[12:])}
	return h, string(b[:4]) == "slb1" && (h.mode == modeEcho || h.mode == modeSource || h.mode == modeBoth) && h.size <= maxChunk
}

// The raw calls never block, but for epoll_wait: the garbage collector, which
// would wait for it, is off in this process.

func recv(fd int, b []byte) (int, unix.Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), e
}

func send(fd int, b []byte) (int, unix.Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	return int(n), e
}

// poll is an epoll set of one thread.
type poll struct {
	fd     int
	events [128]unix.EpollEvent
}

func newPoll() (*poll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll set: %w", err)
	}
	return &poll{fd: fd}, nil
}

// wait blocks for up to 100 ms.
func (p *poll) wait() []unix.EpollEvent {
	n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_WAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), 100, 0, 0)
	if e != 0 { // EINTR
		return nil
	}
	return p.events[:n]
}

func (p *poll) set(op, fd int, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd)}
	_, _, e := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
	if e != 0 {
		return fmt.Errorf("watch socket: %w", e)
	}
	return nil
}

// open starts a connection that ends by RST when it is closed: no port stays
// behind in TIME_WAIT.
func open(to *unix.SockaddrInet4) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	prepare(fd)
	if err := unix.Connect(fd, to); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return -1, fmt.Errorf("connect: %w", err)
	}
	return fd, nil
}

// prepare cannot fail on a TCP socket.
func prepare(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

func sockaddr(ap netip.AddrPort) (*unix.SockaddrInet4, error) {
	if !ap.Addr().Is4() {
		return nil, fmt.Errorf("address %s: want IPv4", ap)
	}
	return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}, nil
}
