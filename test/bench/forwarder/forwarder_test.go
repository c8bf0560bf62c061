package forwarder

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Each way hands on every byte in order, both ways, in messages of odd sizes.
func TestEveryWayForwards(t *testing.T) {
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			if name == "uring" {
				if r, err := newRing(); err != nil {
					t.Skipf("needs io_uring: %v", err)
				} else {
					r.close()
				}
			}
			server, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			go func() {
				c, err := server.Accept()
				if err == nil {
					_, _ = io.Copy(c, c)
					c.Close()
				}
			}()
			free, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			at := netip.MustParseAddrPort(free.Addr().String())
			free.Close()
			go func() { _ = Forward(name, at, netip.MustParseAddrPort(server.Addr().String())) }() // for the life of the test
			var c net.Conn
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				if c, err = net.Dial("tcp", at.String()); err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			r := rand.New(rand.NewPCG(3, 4))
			for _, size := range []int{1, 64, 1000, 65536, 65537, 300_000} {
				want, got := make([]byte, size), make([]byte, size)
				for i := range want {
					want[i] = byte(r.Uint32())
				}
				go func() { _, _ = c.Write(want) }()
				if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes: error %v, equal %v", size, err, bytes.Equal(got, want))
				}
			}
		})
	}
}

func TestUnknownWayIsRefused(t *testing.T) {
	if err := Forward("telepathy", netip.AddrPort{}, netip.AddrPort{}); err == nil {
		t.Error("telepathy forwards")
	}
	if !ended(unix.ECONNRESET) || ended(unix.EINVAL) {
		t.Error("a reset is no fault, an invalid argument is one")
	}
}
