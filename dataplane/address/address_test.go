package address

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAddressesOfASocket(t *testing.T) {
	for _, on := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		ln, err := net.Listen("tcp", on)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		to := ln.Addr().(*net.TCPAddr).AddrPort()
		if to.Addr().IsUnspecified() { // reached as IPv4, and said so
			to = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), to.Port())
		}
		c, err := net.Dial("tcp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		a, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		f, err := a.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		remote, local := Ends(int(f.Fd()))
		if local != to || remote != c.LocalAddr().(*net.TCPAddr).AddrPort() {
			t.Errorf("on %s: remote %v, local %v, want %v and %v", on, remote, local, c.LocalAddr(), to)
		}
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	if remote, local := Ends(fds[0]); remote.IsValid() || local.IsValid() {
		t.Errorf("a Unix socket is %v, %v", remote, local)
	}
	if remote, local := Ends(-1); remote.IsValid() || local.IsValid() {
		t.Errorf("nothing is %v, %v", remote, local)
	}
}
