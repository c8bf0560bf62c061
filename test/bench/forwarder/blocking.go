package forwarder

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls block, and keep their processor: see Forward.

func call(nr uintptr, a ...uintptr) (int, unix.Errno) {
	var args [6]uintptr
	copy(args[:], a)
	for {
		n, _, e := unix.RawSyscall6(nr, args[0], args[1], args[2], args[3], args[4], args[5])
		if e != unix.EINTR {
			return int(n), e
		}
	}
}

// readWrite: two calls and two copies a message.
func readWrite(from, to int) error {
	buf := make([]byte, bufferSize)
	at := uintptr(unsafe.Pointer(&buf[0]))
	for {
		n, e := call(unix.SYS_READ, uintptr(from), at, bufferSize)
		if n <= 0 || e != 0 {
			return outcome("read", e)
		}
		for done := 0; done < n; {
			m, e := call(unix.SYS_WRITE, uintptr(to), uintptr(unsafe.Pointer(&buf[done])), uintptr(n-done))
			if e != 0 {
				return outcome("write", e)
			}
			done += m
		}
	}
}

// splice: two calls a message, by way of a pipe, and no copy.
func splice(from, to int) error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	for {
		n, e := call(unix.SYS_SPLICE, uintptr(from), 0, uintptr(pipe[1]), 0, bufferSize, unix.SPLICE_F_MOVE)
		if n <= 0 || e != 0 {
			return outcome("splice from socket", e)
		}
		for n > 0 {
			m, e := call(unix.SYS_SPLICE, uintptr(pipe[0]), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_MOVE)
			if e != 0 {
				return outcome("splice to socket", e)
			}
			n -= m
		}
	}
}

func outcome(what string, e unix.Errno) error {
	if e == 0 || ended(e) {
		return nil
	}
	return fmt.Errorf("%s: %w", what, e)
}
