package pair

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Raw system calls on non-blocking sockets. They cannot wait, so the scheduler
// need not know of them; EINTR does not happen to them.

func recv(fd int, b []byte, flags int) (int, syscall.Errno) {
	n, _, err := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(flags|unix.MSG_DONTWAIT), 0, 0)
	if err != 0 {
		return 0, err
	}
	return int(n), 0
}

func send(fd int, b []byte) (int, syscall.Errno) {
	n, _, err := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if err != 0 {
		return 0, err
	}
	return int(n), 0
}

// unread is the number of bytes in the receive queue. FIONREAD says 0 on a
// socket that is in a sockmap without a verdict. TCP counts with MSG_TRUNC and
// copies nothing, so that there need be no buffer.
func unread(fd int) (int, syscall.Errno) {
	n, _, err := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), 0, 1<<30, unix.MSG_PEEK|unix.MSG_TRUNC|unix.MSG_DONTWAIT, 0, 0)
	if err != 0 {
		return 0, err
	}
	return int(n), 0
}

func setsockopt(fd, level, name, value int) syscall.Errno {
	v := int32(value)
	_, _, err := syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&v)), 4, 0)
	return err
}

func getsockopt(fd, level, name int) (int, syscall.Errno) {
	var v int32
	size := uint32(4)
	_, _, err := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&size)), 0)
	return int(v), err
}

func shutdownWrite(fd int) syscall.Errno {
	_, _, err := syscall.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
	return err
}

// lingerOff undoes SO_LINGER{1,0}: the close that follows is a clean end.
func lingerOff(fd int) {
	l := unix.Linger{}
	syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER, uintptr(unsafe.Pointer(&l)), unsafe.Sizeof(l), 0)
}

// States of tcp_states.h.
const (
	tcpEstablished = 1
	tcpClose       = 7
	tcpTimeWait    = 6 // this and what follows have received a FIN, or more
)

func tcpInfo(fd int, ti *unix.TCPInfo) syscall.Errno {
	size := uint32(unsafe.Sizeof(*ti))
	_, _, err := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO, uintptr(unsafe.Pointer(ti)), uintptr(unsafe.Pointer(&size)), 0)
	return err
}

// outq is the number of bytes that the peer has not acknowledged yet.
func outq(fd int) (int, syscall.Errno) {
	var v int32
	_, _, err := syscall.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCOUTQ, uintptr(unsafe.Pointer(&v)))
	return int(v), err
}
