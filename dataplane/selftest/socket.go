package selftest

import (
	"context"
	"fmt"
	"net"

	"github.com/sluice-proxy/sluice/dataplane/upstream"
	"golang.org/x/sys/unix"
)

// connection makes a loopback connection: one end to use, and the descriptor of
// the other, ready to be one side of a pair.
func connection() (*net.TCPConn, int, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, -1, fmt.Errorf("listen on loopback: %w", err)
	}
	defer ln.Close()
	c, err := net.DialTCP("tcp4", nil, ln.Addr().(*net.TCPAddr))
	if err != nil {
		return nil, -1, fmt.Errorf("connect over loopback: %w", err)
	}
	a, err := ln.Accept()
	if err != nil {
		c.Close()
		return nil, -1, fmt.Errorf("accept on loopback: %w", err)
	}
	defer a.Close()
	fd, err := duplicate(a.(*net.TCPConn))
	if err != nil {
		c.Close()
		return nil, -1, err
	}
	return c, fd, nil
}

func duplicate(c *net.TCPConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("reach socket: %w", err)
	}
	fd := -1
	var dupErr error
	if err := raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return -1, fmt.Errorf("reach socket: %w", err)
	}
	if dupErr != nil {
		return -1, fmt.Errorf("duplicate socket: %w", dupErr)
	}
	err = upstream.Prepare(fd)
	if err == nil { // which Go turns on
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func closeFD(fd int) { unix.Close(fd) }
