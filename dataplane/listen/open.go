package listen

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/address"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
	"golang.org/x/sys/unix"
)

// open makes one socket; it listens unless backlog is negative. Errors begin as
// Envoy's do (listener_impl.cc, listen_socket_impl.cc).
func open(addr *api.BindAddress, bind api.BoundAddress, reusePort bool, backlog int) (fd int, err error) {
	family, proto := unix.AF_INET6, unix.IPPROTO_TCP // by name: an MPTCP socket can be put into no sockmap
	switch {
	case bind.Path != "":
		family, proto = unix.AF_UNIX, 0
	case bind.Addr.Addr().Is4():
		family = unix.AF_INET
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return -1, fmt.Errorf("open socket for %v: %w", bind, err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	o := &addr.Socket
	if err := prepare(fd, family, addr.IPv4Compat, reusePort); err != nil {
		return fd, fmt.Errorf("prepare socket for %v: %w", bind, err)
	}
	if err := prebind(fd, family, o); err != nil {
		return fd, fmt.Errorf("ListenSocket: Setting socket options failed: %w", err)
	}
	if bind.Path != "" {
		err = bindUnix(fd, bind.Path, addr.Mode)
	} else {
		err = address.Bind(fd, bind.Addr)
	}
	if err != nil {
		return fd, fmt.Errorf("cannot bind '%v': %w", bind, said(err))
	}
	if err := set(fd, o, api.Bound); err != nil {
		return fd, fmt.Errorf("%v: Setting socket options failed: %w", bind, err)
	}
	if backlog < 0 {
		return fd, nil
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return fd, fmt.Errorf("cannot listen() on '%v': %w", bind, said(err))
	}
	if o.FastOpenQueue != nil && family != unix.AF_UNIX {
		err = option(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, int(*o.FastOpenQueue))
	}
	if err = errors.Join(err, set(fd, o, api.Listening)); err != nil {
		return fd, fmt.Errorf("cannot set post-listen socket option on socket: %v: %w", bind, err)
	}
	return fd, nil
}

// prepare sets what every listening socket of ours has.
func prepare(fd, family int, compat, reusePort bool) error {
	if family == unix.AF_UNIX {
		return nil
	}
	err := option(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if reusePort {
		err = errors.Join(err, option(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	}
	if family == unix.AF_INET6 {
		only := 1
		if compat {
			only = 0
		}
		err = errors.Join(err, option(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only))
	}
	return errors.Join(err, upstream.Prepare(fd))
}

// prebind sets the options of that state. Those for IP mean nothing on a Unix
// socket.
func prebind(fd, family int, o *api.SocketOptions) error {
	var err error
	ip := func(v *bool, level4, name4, level6, name6 int) {
		if v == nil || family == unix.AF_UNIX {
			return
		}
		n := 0
		if *v {
			n = 1
		}
		if family == unix.AF_INET6 {
			err = errors.Join(err, option(fd, level6, name6, n))
		} else {
			err = errors.Join(err, option(fd, level4, name4, n))
		}
	}
	ip(o.Transparent, unix.IPPROTO_IP, unix.IP_TRANSPARENT, unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT)
	ip(o.Freebind, unix.IPPROTO_IP, unix.IP_FREEBIND, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND)
	if k := o.Keepalive; k != nil && family != unix.AF_UNIX {
		err = errors.Join(err, option(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1))
		for name, v := range map[int]uint32{unix.TCP_KEEPCNT: k.Probes, unix.TCP_KEEPIDLE: k.Time, unix.TCP_KEEPINTVL: k.Interval} {
			if v > 0 {
				err = errors.Join(err, option(fd, unix.IPPROTO_TCP, name, int(v)))
			}
		}
	}
	return errors.Join(err, set(fd, o, api.Prebind))
}

// set sets the options of the configuration that belong to a state.
func set(fd int, o *api.SocketOptions, state api.SocketState) error {
	for _, one := range o.Options {
		if one.State != state {
			continue
		}
		if err := unix.SetsockoptString(fd, one.Level, one.Name, one.Value); err != nil {
			return fmt.Errorf("Setting %d/%d option on socket failed: %w", one.Level, one.Name, said(err))
		}
	}
	return nil
}

func option(fd, level, name, value int) error {
	if err := unix.SetsockoptInt(fd, level, name, value); err != nil {
		return fmt.Errorf("Setting %d/%d option on socket failed: %w", level, name, said(err))
	}
	return nil
}

// bindUnix takes the place of a socket that lies at the path, as Envoy does; a
// file of another kind is left alone.
func bindUnix(fd int, path string, mode uint32) error {
	if strings.HasPrefix(path, "@") {
		return unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return err
	}
	if mode != 0 {
		return os.Chmod(path, os.FileMode(mode))
	}
	return nil
}

// cause is an error number with the C library's capital letter, which tools
// compare with.
type cause struct{ syscall.Errno }

func (c cause) Error() string {
	s := c.Errno.Error()
	return strings.ToUpper(s[:1]) + s[1:]
}

func (c cause) Unwrap() error { return c.Errno }

func said(err error) error {
	if n := syscall.Errno(0); errors.As(err, &n) {
		return cause{n}
	}
	return err
}
