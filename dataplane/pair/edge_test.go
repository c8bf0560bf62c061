package pair

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A read stops short of urgent data, which is no empty queue: an end that is
// watched edge-triggered would wait for what is there already.
func TestUrgentDataDoesNotStopTheRest(t *testing.T) {
	r := newRig(t, Off, "tcp4")
	p := r.pair(nil)
	pingPong(t, p.client, p.server, 3, 10)
	raw, err := p.server.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	r.w.Do(func() {
		if !p.ends[1].edge {
			t.Error("the upstream is not watched edge-triggered")
		}
		unix.SetsockoptInt(p.ends[1].fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
		raw.Control(func(fd uintptr) {
			for _, flags := range []int{0, unix.MSG_OOB, 0} {
				if err := unix.Sendto(int(fd), []byte("abc"), flags, nil); err != nil {
					t.Error(err)
				}
			}
		})
	})
	got := make([]byte, 9)
	p.client.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := io.ReadFull(p.client, got); err != nil || string(got) != "abcabcabc" {
		t.Errorf("read %q, %v", got[:n], err)
	}
}

// One message each way costs a single watch of the upstream, its connect's.
func TestNagleIsTurnedOffBeforeItCouldHoldBytesBack(t *testing.T) {
	for _, mode := range []Mode{Off, Always} {
		r := newRig(t, mode, "tcp4")
		p := r.pair(nil)
		option := func() (n int) {
			r.w.Do(func() { n, _ = unix.GetsockoptInt(p.ends[1].fd, unix.IPPROTO_TCP, unix.TCP_NODELAY) })
			return n
		}
		if mode == Off {
			pingPong(t, p.client, p.server, 1, 10)
			if option() != 0 {
				t.Error("the first message has paid for TCP_NODELAY")
			}
		}
		pingPong(t, p.client, p.server, 1, 10)
		if option() == 0 {
			t.Errorf("%v: TCP_NODELAY is off when the second message goes", mode)
		}
	}
}

// What the kernel has no more room for waits, and an end that was watched
// edge-triggered does not miss that there is room again.
func TestEdgeTriggeredEndStallsAndGoesOn(t *testing.T) {
	r := newRig(t, Off, "tcp4")
	p := r.pair(func(c *Config) { c.Limit = 16 << 10 })
	const n = 16 << 20
	for seed, c := range []*net.TCPConn{p.client, p.server} {
		go func() {
			writeStamped(c, n, byte(seed))
			c.CloseWrite()
		}()
	}
	await(t, "both ends are full", func() (full bool) {
		r.w.Do(func() { full = p.direction[0].holds() && p.direction[1].holds() })
		return full
	})
	back := make(chan int)
	go func() { back <- readStamped(t, p.client, 1) }()
	if got := readStamped(t, p.server, 0); got != n {
		t.Errorf("server read %d of %d", got, n)
	}
	if got := <-back; got != n {
		t.Errorf("client read %d of %d", got, n)
	}
}
