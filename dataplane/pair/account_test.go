package pair

import (
	"net"
	"os"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TCP's account of a socket's memory stays right whatever backlogs there are
// (docs/splice.md, "The kernel's own books"): a second of each kind of traffic, or
// what LEAK says.
func TestAccountsOfSocketsStayRight(t *testing.T) {
	length := time.Second
	if s := os.Getenv("LEAK"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	for _, traffic := range []string{"both ways at once", "in turns", "one way"} {
		t.Run(traffic, func(t *testing.T) {
			r := newRig(t, Always, "tcp4")
			off, seen := 0, 0
			for end := time.Now().Add(length); time.Now().Before(end); {
				n, of := r.account(traffic)
				off, seen = off+n, seen+of
			}
			counted, err := r.splice.Counters()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d of %d sockets are off after %d overflows", off, seen, counted["event.overflow"])
			if off > 0 {
				t.Errorf("the accounts of %d sockets of %d are off", off, seen)
			}
			if counted["event.overflow"] == 0 || counted["event.left"] == 0 {
				t.Errorf("%d overflows, %d verdicts taken away: nothing was tried", counted["event.overflow"], counted["event.left"])
			}
		})
	}
}

// account drives a few pairs, and counts the sockets whose account is off when
// all has arrived.
func (r *rig) account(traffic string) (off, of int) {
	const there, back = 4 << 20, 1 << 20
	var wg sync.WaitGroup
	var pairs []*testPair
	for i := range 4 {
		p := r.pair(func(c *Config) { c.Limit = 16 << 10 })
		pairs = append(pairs, p)
		answer := func() {
			buf := make([]byte, 200)
			for sent := 0; sent < back; sent += len(buf) {
				p.server.Write(buf[:min(len(buf), back-sent)])
			}
		}
		wg.Go(func() { writeStamped(p.client, there, byte(i)) })
		wg.Go(func() {
			drain(p.server, there, 100*time.Microsecond)
			if traffic == "in turns" {
				answer()
			}
		})
		if traffic == "both ways at once" {
			wg.Go(answer)
		}
		if traffic != "one way" {
			wg.Go(func() { drain(p.client, back, 0) })
		}
	}
	wg.Wait()
	for _, p := range pairs {
		for i := range p.ends {
			var m [9]int32
			await(r.t, "the socket is at rest", func() bool {
				m = memoryOf(p.ends[i].fd)
				return m[0] == 0 && m[5] == 0 // nothing received, nothing queued
			})
			of++
			if m[4]&4095 != 0 {
				off++
			}
		}
		p.client.Close()
		p.server.Close()
	}
	return off, of
}

func drain(c net.Conn, n int, nap time.Duration) {
	buf := make([]byte, 64<<10)
	for n > 0 {
		k, err := c.Read(buf)
		if err != nil {
			return
		}
		n -= k
		if nap > 0 {
			time.Sleep(nap)
		}
	}
}

// memoryOf reads SO_MEMINFO (linux/sock_diag.h): the fifth is forward_alloc.
func memoryOf(fd int) (m [9]int32) {
	size := uint32(unsafe.Sizeof(m))
	unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO, uintptr(unsafe.Pointer(&m)), uintptr(unsafe.Pointer(&size)), 0)
	return m
}
