package bpf

import (
	"fmt"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Low are descriptors of low numbers, kept for the links of a graft. When a process is
// killed the kernel lets go of the highest first: sockets of grafted pairs have to send
// their RSTs while the programs are still attached. So they are taken before the first
// connection, and may wait for a graft that is loaded later.
type Low struct {
	numbers []int
	held    int
}

// lowDescriptors are kept for lo and for so many devices besides.
const lowDescriptors = 1 + 2*4

// KeepLow takes the lowest numbers that are free.
func KeepLow() (*Low, error) {
	l := &Low{}
	for range lowDescriptors {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			l.Close()
			return nil, fmt.Errorf("keep descriptor: %w", err)
		}
		l.numbers = append(l.numbers, fd)
	}
	return l, nil
}

// take has a low number stand for the link, in its own descriptor's place: of two
// descriptors the kernel would count the higher one. False says that none is left.
func (l *Low) take(at link.Link) bool {
	of, ok := at.(interface{ FD() int })
	if !ok || l.held == len(l.numbers) || unix.Dup3(of.FD(), l.numbers[l.held], unix.O_CLOEXEC) != nil {
		return false
	}
	l.held++
	at.Close()
	return true
}

// Close gives the numbers back, and lets go of the links.
func (l *Low) Close() {
	for _, fd := range l.numbers {
		unix.Close(fd)
	}
	l.numbers, l.held = nil, 0
}
