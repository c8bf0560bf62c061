package loop

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestParkedDescriptorIsSilentUntilItIsAddedAgain(t *testing.T) {
	w := start(t)
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	first, second := make(chan struct{}), make(chan struct{})
	w.Do(func() {
		w.Add(fds[0], unix.EPOLLIN|unix.EPOLLONESHOT, handlerFunc(func(uint32) {
			w.Park(fds[0]) // the byte stays in the pipe
			close(first)
		}))
		unix.Write(fds[1], []byte("x"))
	})
	<-first
	var before, after uint64
	w.Do(func() { before = w.Iterations })
	w.Do(func() { after = w.Iterations })
	if after-before > 2 { // one for each Do, and no spinning between
		t.Errorf("%d rounds while it was parked", after-before)
	}
	w.Do(func() {
		if err := w.Add(fds[0], unix.EPOLLIN, handlerFunc(func(uint32) {
			w.Del(fds[0])
			close(second)
		})); err != nil {
			t.Error(err)
		}
	})
	<-second
	// Parked and closed: the next descriptor of that number is added as new.
	third := make(chan struct{})
	w.Do(func() {
		w.Add(fds[0], unix.EPOLLIN|unix.EPOLLONESHOT, handlerFunc(func(uint32) {}))
		w.Park(fds[0])
		unix.Close(fds[0])
		unix.Close(fds[1])
		var next [2]int
		if err := unix.Pipe2(next[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
			t.Error(err)
		}
		if next[0] != fds[0] {
			unix.Dup3(next[0], fds[0], unix.O_CLOEXEC)
			unix.Close(next[0])
		}
		fds[1] = next[1]
		if err := w.Add(fds[0], unix.EPOLLIN, handlerFunc(func(uint32) {
			w.Del(fds[0])
			close(third)
		})); err != nil {
			t.Error(err)
		}
		unix.Write(fds[1], []byte("y"))
	})
	<-third
	unix.Close(fds[0])
	unix.Close(fds[1])
}
