package bpf

import (
	"io"
	"math"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bench is a one-way splice without a proxy around it: what client sends is
// intercepted at source, and the verdict hands it to target, whose other end is
// server.
type bench struct {
	*testing.T
	splice         *Splice
	slot           Slot
	client, server *net.TCPConn
	source, target int
}

func newBench(t *testing.T, limit uint32) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	s, err := Load(1)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, splice: s}
	b.client, b.source = socketPair(t)
	b.server, b.target = socketPair(t)
	cookie, err := Cookie(b.target)
	if err != nil {
		t.Fatal(err)
	}
	if b.slot, err = s.NewSlot(0, b.source, cookie, limit, 2*limit); err != nil {
		t.Fatal(err)
	}
	for _, fd := range []int{b.target, b.source} {
		if err := s.Adopt(fd); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.slot.Intercept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.client.Close()
		b.server.Close()
		unix.Close(b.source)
		unix.Close(b.target)
		b.slot.Free()
		if _, charged := s.Budget(); charged != 0 {
			t.Errorf("%d bytes of the budget are still charged", charged)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// socketPair is a loopback connection: one end, and the descriptor of the other.
func socketPair(t *testing.T) (*net.TCPConn, int) {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
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
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	unix.SetNonblock(fd, true)
	return c.(*net.TCPConn), fd
}

func (b *bench) send(text string) {
	b.Helper()
	if _, err := io.WriteString(b.client, text); err != nil {
		b.Fatal(err)
	}
}

// arrives checks what the destination's peer reads.
func (b *bench) arrives(text string) {
	b.Helper()
	got := make([]byte, len(text))
	b.server.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := io.ReadFull(b.server, got); err != nil || string(got) != text {
		b.Fatalf("the target's peer read %q, %v, want %q", got[:n], err, text)
	}
}

// passed checks what user space reads from the source.
func (b *bench) passed(text string) {
	b.Helper()
	got := make([]byte, len(text)+100)
	var n int
	b.await("bytes for user space", func() bool {
		k, err := unix.Read(b.source, got[n:])
		if err != nil && err != unix.EAGAIN {
			b.Fatal(err)
		}
		n += max(k, 0)
		return n >= len(text)
	})
	if string(got[:n]) != text {
		b.Fatalf("user space read %q, want %q", got[:n], text)
	}
}

func (b *bench) await(what string, ok func() bool) {
	b.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("not in time: %s", what)
		}
	}
}

func (b *bench) counted(name string) uint64 {
	b.Helper()
	all, err := b.splice.Counters()
	if err != nil {
		b.Fatal(err)
	}
	n, ok := all[name]
	if !ok {
		b.Fatalf("there is no counter %s", name)
	}
	return n
}

// Every end of the verdict that can be reached, its counter, and where the
// bytes go. (no_slot and no_seq cannot: the map and the socket are there when
// the verdict runs; the verifier asks for the branches. Nor can untrimmed: what is to be
// cut off is never more than there is.)
func TestEveryEndOfTheVerdict(t *testing.T) {
	tests := []struct {
		name, counter string
		limit         uint32
		run           func(*bench)
	}{
		{"redirected", "exit.redirected", 1 << 20, func(b *bench) {
			b.send("onward")
			b.arrives("onward")
		}},
		{"a lone FIN", "exit.empty", 1 << 20, func(b *bench) {
			b.send("x")
			b.arrives("x")
			b.client.CloseWrite()
		}},
		{"source without a direction", "exit.unknown", 1 << 20, func(b *bench) {
			if err := b.splice.objects.Slots.Delete(b.slot.source); err != nil {
				b.Fatal(err)
			}
			b.send("whose?")
			b.passed("whose?")
		}},
		{"all bytes seen before", "exit.duplicate", 1 << 20, func(b *bench) {
			b.send("first")
			b.arrives("first")
			Plant{&b.slot}.Expect(5)
			b.send("again")
			b.await("the bytes are dropped", func() bool { return b.counted("exit.duplicate") == 1 })
			b.send("then")
			b.arrives("then")
		}},
		{"head seen before", "event.trimmed", 1 << 20, func(b *bench) {
			b.send("first")
			b.arrives("first")
			Plant{&b.slot}.Expect(3)
			b.send("12345")
			b.arrives("45")
		}},
		{"bytes missing", "exit.gap", 1 << 20, func(b *bench) {
			b.send("first")
			b.arrives("first")
			Plant{&b.slot}.Expect(-1)
			b.send("gap")
			b.breaks("bytes are missing before a segment")
			b.send("more") // it stays broken, and the first reason stands
			b.await("what follows is dropped", func() bool { return b.counted("exit.broken") == 1 })
			b.breaks("bytes are missing before a segment")
		}},
		{"broken before", "exit.broken", 1 << 20, func(b *bench) {
			b.slot.dir().Broken = spliceExitEXIT_GAP
			b.send("lost")
			b.await("a wake-up", func() bool { return b.counted("event.woken") == 1 })
		}},
		{"destination gone", "exit.no_target", 1 << 20, func(b *bench) {
			b.slot.dir().Target = math.MaxUint64
			b.send("nowhere")
			b.breaks("the destination is not among the targets")
		}},
		{"redirect refused", "exit.refused", 1 << 20, func(b *bench) {
			// A listening socket may be in the map, but not be redirected to.
			ln, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { unix.Close(ln) })
			unix.Bind(ln, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
			unix.Listen(ln, 1)
			if err := b.splice.Adopt(ln); err != nil {
				b.Fatal(err)
			}
			b.slot.dir().Target, _ = Cookie(ln)
			b.send("listen!")
			b.breaks("a redirect was refused")
		}},
		{"backlog past its limit", "event.overflow", 64 << 10, func(b *bench) {
			Plant{&b.slot}.Bound(math.MaxUint32)
			b.stall(func() bool { return b.slot.Overflowed() })
			b.woken(1)
			if why, broken := b.slot.Broken(); broken {
				b.Errorf("broken: %s", why)
			}
		}},
		{"the verdict leaves where its backlog overflows", "event.left", 64 << 10, func(b *bench) {
			b.stall(func() bool { return b.slot.Left() })
			b.await("bytes wait in the source's queue", func() bool {
				n, _, err := unix.Recvfrom(b.source, make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
				return err == nil && n > 0
			})
			given := b.slot.Redirected()
			b.stall(func() bool { return b.counted("event.left") == 1 })
			if got := b.slot.Redirected(); got != given {
				b.Errorf("%d bytes were redirected after the verdict had left", got-given)
			}
			// One more skb may go in where there is room for one byte, and before
			// an acknowledgement is sent; coalesced, one has up to 17 fragments of 32 KiB.
			if n := b.slot.MaxBacklog(); n > 64<<10+2*17*32<<10 {
				b.Errorf("backlog of %d bytes with a limit of 64 KiB", n)
			}
		}},
		{"the verdict leaves when it is recalled", "event.left", 64 << 10, func(b *bench) {
			b.send("here")
			b.arrives("here")
			b.slot.Recall()
			if b.slot.Left() {
				b.Error("it has left before its source sent")
			}
			if _, err := unix.SendmsgN(b.source, nil, nil, nil, unix.MSG_DONTWAIT); err != nil {
				b.Fatal(err)
			}
			if !b.slot.Left() {
				b.Error("it has not left")
			}
			b.send("mine")
			b.passed("mine")
		}},
		{"the call is lost, and repeated", "event.wake_lost", 64 << 10, func(b *bench) {
			b.keep()
			Plant{&b.slot}.Bound(math.MaxUint32)
			Plant{&b.slot}.LoseWakeups(true, 0)
			b.stall(func() bool { return b.counted("event.wake_lost") > 2 })
			if !b.slot.Overflowed() {
				b.Error("the slot does not tell")
			}
			b.woken(0)
			Plant{&b.slot}.LoseWakeups(false, 0)
			b.stall(func() bool { return b.counted("event.woken") == 1 })
			b.woken(1)
			if n := b.counted("event.overflow"); n != 1 {
				b.Errorf("%d overflows, want 1", n)
			}
		}},
		{"backlog at its bound", "exit.full", 64 << 10, func(b *bench) {
			b.keep()
			b.stall(func() bool { return b.counted("exit.full") > 0 })
			b.breaks("the backlog reached its bound before the worker came")
		}},
		{"all backlogs past theirs", "event.budget", 1 << 30, func(b *bench) {
			b.splice.SetBudget(256 << 10)
			b.stall(func() bool { return b.slot.Overflowed() })
			if _, charged := b.splice.Budget(); charged <= 256<<10 {
				b.Errorf("%d bytes are charged", charged)
			}
			if why, broken := b.slot.Broken(); broken {
				b.Errorf("broken: %s", why)
			}
		}},
		{"past the budget and its limit", "exit.full", 512 << 10, func(b *bench) {
			b.keep()
			Plant{&b.slot}.Bound(math.MaxUint32)
			b.splice.SetBudget(256 << 10)
			b.stall(func() bool { return b.counted("exit.full") > 0 })
			// One more skb may go in when there is room for one byte; coalesced,
			// it has up to 17 fragments of 32 KiB.
			if n := b.slot.MaxBacklog(); n > 512<<10+17*32<<10 {
				b.Errorf("backlog of %d bytes with a limit of 512 KiB and no budget", n)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, tt.limit)
			tt.run(b)
			b.await(tt.counter+" moves", func() bool { return b.counted(tt.counter) > 0 })
		})
	}
}

func (b *bench) keep() {
	b.Helper()
	if err := (Plant{&b.slot}).KeepVerdicts(); err != nil {
		b.Fatal(err)
	}
}

// stall sends to a peer that does not read, until something is so.
func (b *bench) stall(until func() bool) {
	b.Helper()
	done := make(chan struct{})
	b.client.SetWriteDeadline(time.Time{})
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			if _, err := b.client.Write(buf); err != nil {
				return
			}
		}
	}()
	b.await("the stall shows", until)
	b.client.SetWriteDeadline(time.Unix(1, 0))
	<-done
}

// breaks checks that the slot is broken, for a reason, and that its worker was told.
func (b *bench) breaks(why string) {
	b.Helper()
	b.await("the slot is broken", func() bool { _, broken := b.slot.Broken(); return broken })
	if got, _ := b.slot.Broken(); got != why {
		b.Errorf("broken: %s, want %s", got, why)
	}
	if b.counted("event.woken") == 0 {
		b.Error("no wake-up came")
	}
	if n, err := unix.Read(b.source, make([]byte, 100)); n > 0 {
		b.Errorf("user space got %d bytes, %v", n, err)
	}
}

// woken checks the wake-ups in the ring.
func (b *bench) woken(want int) {
	b.Helper()
	n := 0
	b.splice.Ring(0).Drain(func(slot, generation uint32) {
		if slot != b.slot.Index() || generation != b.slot.Generation() {
			b.Errorf("woken for %d, %d", slot, generation)
		}
		n++
	})
	if n != want {
		b.Errorf("%d wake-ups, want %d", n, want)
	}
}
