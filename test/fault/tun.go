package fault

import (
	"fmt"
	"os"
	"unsafe"

	"github.com/sluice-proxy/sluice/test/netns"
	"golang.org/x/sys/unix"
)

// tun makes a TUN device in the end's namespace and returns our side of it,
// from which whole IP packets are read, or, if it is a TAP device, Ethernet
// frames. The device goes with the file.
func tun(e netns.End, ethernet bool) (f *os.File, err error) {
	err = e.NS.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		var req struct {
			name  [unix.IFNAMSIZ]byte
			flags uint16
			_     [22]byte
		}
		copy(req.name[:unix.IFNAMSIZ-1], e.Name)
		req.flags = unix.IFF_TUN | unix.IFF_NO_PI
		if ethernet {
			req.flags = unix.IFF_TAP | unix.IFF_NO_PI
		}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&req))); errno != 0 {
			unix.Close(fd)
			return fmt.Errorf("make TUN device %s: %w", e.Name, errno)
		}
		f = os.NewFile(uintptr(fd), e.Name)
		return nil
	})
	return f, err
}
