package netns

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The commands of linux/ethtool.h that turn an offload on and off.
const (
	ethtoolSetTXC = 0x17 // checksums of what is sent
	ethtoolSetTSO = 0x1f
	ethtoolSetGSO = 0x24
	ethtoolSetGRO = 0x2c
)

// Offload turns the device's segmentation and receive offloads (TSO, GSO, GRO)
// on or off: whether TCP sees segments of the wire's size or many in one. Without
// them checksums are computed and verified, too.
func (e End) Offload(on bool) error {
	return e.NS.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open socket for ethtool: %w", err)
		}
		defer unix.Close(fd)
		for _, command := range []uint32{ethtoolSetTXC, ethtoolSetTSO, ethtoolSetGSO, ethtoolSetGRO} {
			value := struct{ command, data uint32 }{command: command}
			if on {
				value.data = 1
			}
			req := struct {
				name [unix.IFNAMSIZ]byte
				data unsafe.Pointer
				_    [16]byte
			}{data: unsafe.Pointer(&value)}
			copy(req.name[:unix.IFNAMSIZ-1], e.Name)
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
				return fmt.Errorf("set offload %#x of %s to %v: %w", command, e.Name, on, errno)
			}
		}
		return nil
	})
}
