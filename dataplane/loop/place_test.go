package loop

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A worker must not keep a whole registration for each descriptor of the process:
// most belong to other workers, or to nobody.
func TestPlacesAreOnlyForWhatIsRegistered(t *testing.T) {
	w := start(t)
	w.Do(func() {
		ignore := handlerFunc(func(uint32) {})
		const high = 900
		for i := range 300 {
			fd := high - i%100
			e, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
			if err != nil {
				t.Error(err)
			}
			unix.Dup3(e, fd, unix.O_CLOEXEC)
			unix.Close(e)
			if err := w.Add(fd, unix.EPOLLIN, ignore); err != nil {
				t.Error(err)
			}
			switch i % 3 {
			case 0:
				w.Del(fd)
			case 1:
				w.Forget(fd)
			default: // the number comes again, and is registered anew
				w.Park(fd)
			}
			unix.Close(fd)
		}
		if err := w.Mod(high+1, unix.EPOLLIN); err == nil {
			t.Error("a descriptor that is registered nowhere was changed")
		}
		w.Del(high + 1)
		w.Forget(high + 1)
		if n := len(w.handlers); n > 110 {
			t.Errorf("%d places for 100 descriptors", n)
		}
	})
	if n := unsafe.Sizeof(registered{}); n > 24 {
		t.Errorf("%d bytes for each registered descriptor, want 24 at most", n)
	}
}
