package upstream

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/test/peer"
	"golang.org/x/sys/unix"
)

func TestInterleaved(t *testing.T) {
	at := netip.MustParseAddrPort
	own := at("1.0.0.1:1")
	more := []netip.AddrPort{at("1.0.0.2:1"), at("1.0.0.3:1"), at("[::1]:1"), at("[::2]:1")}
	for _, tt := range []struct {
		h    api.HappyEyeballs
		want string
	}{
		{api.HappyEyeballs{}, "[1.0.0.1:1 [::1]:1 1.0.0.2:1 [::2]:1 1.0.0.3:1]"},
		{api.HappyEyeballs{Count: 2}, "[1.0.0.1:1 1.0.0.2:1 [::1]:1 1.0.0.3:1 [::2]:1]"},
		{api.HappyEyeballs{First: api.IPv6, Count: 1}, "[[::1]:1 1.0.0.1:1 [::2]:1 1.0.0.2:1 1.0.0.3:1]"},
		{api.HappyEyeballs{First: api.IPv4, Count: 9}, "[1.0.0.1:1 1.0.0.2:1 1.0.0.3:1 [::1]:1 [::2]:1]"},
	} {
		if got := fmt.Sprint(interleaved(tt.h, own, more)); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.h, got, tt.want)
		}
	}
}

// The first address neither accepts nor refuses: the second is tried beside it,
// well before the timeout.
func TestASlowAddressDoesNotHoldUpTheNext(t *testing.T) {
	hole, err := peer.NewHole()
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	good := ln.Addr().(*net.TCPAddr).AddrPort()
	w := worker(t)
	try := func(timeout time.Duration, to ...netip.AddrPort) (dialed, int, time.Duration) {
		end, further := make(chan dialed, 2), 0
		began := time.Now()
		w.Do(func() {
			newRace(w, to, &Way{Header: []byte("header")}, timeout, func() { further++ }, func(fd int, err error) { end <- dialed{fd, err} })
		})
		d := <-end
		return d, further, time.Since(began)
	}
	d, further, took := try(10*time.Second, hole.Addr(), good)
	if d.err != nil || further != 1 || took < headStart || took > 3*time.Second {
		t.Fatalf("%v after %v and %d further attempts", d.err, took, further)
	}
	defer unix.Close(d.fd)
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 6)
	if _, err := c.Read(buf); err != nil || string(buf) != "header" {
		t.Errorf("the host got %q, %v", buf, err)
	}
	if d, _, _ := try(400*time.Millisecond, hole.Addr(), hole.Addr()); d.err != ErrConnectTimeout {
		t.Errorf("two holes: %v", d.err)
	}
	done := make(chan struct{})
	w.Do(func() {
		race := newRace(w, []netip.AddrPort{hole.Addr(), good}, &Way{}, time.Hour, func() {}, func(int, error) { t.Error("done after Cancel") })
		race.Cancel()
		close(done)
	})
	<-done
}
