package bpf

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/test/netns"
	"golang.org/x/sys/unix"
)

// expect checks what was counted since the last time, by the names that are given.
func (k *stock) expect(before map[string]uint64, want map[string]uint64) {
	k.Helper()
	now := k.counters()
	for name, n := range want {
		if got := now[name] - before[name]; got < n {
			k.Errorf("%s: %d, want %d at least", name, got, n)
		}
	}
}

func fd(c *net.TCPConn, f func(fd int)) {
	raw, err := c.SyscallConn()
	if err == nil {
		raw.Control(func(p uintptr) { f(int(p)) })
	}
}

// Every end that a packet can come to is counted; those of a pair that drains, as
// it ends by itself, and as it is ended.
func TestEveryPassageIsCounted(t *testing.T) {
	t.Run("what the sockets held", func(t *testing.T) {
		k := newStock(t, loopbackSite(t, false))
		k.relay(k.client, k.down, k.up, k.server, "hello")
		// The server does not read: bytes of the proxy's wait for it.
		k.up.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := k.up.Write(make([]byte, 8<<20))
		if err == nil {
			t.Fatal("the server took everything")
		}
		k.up.SetWriteDeadline(time.Now().Add(20 * time.Second))
		k.must(k.join())
		before := k.counters()
		send(t, k.server, "its ACK is for the proxy, its bytes for the client")
		receive(t, k.client, "its ACK is for the proxy, its bytes for the client")
		go io.CopyN(io.Discard, k.server, int64(n))
		k.await("the proxy's bytes", func() bool {
			q := 1
			fd(k.up, func(fd int) { q, _ = unix.IoctlGetInt(fd, unix.SIOCOUTQ) })
			return q == 0
		})
		// What the proxy's socket acknowledges is old by now.
		send(t, k.server, "more")
		receive(t, k.client, "more")
		send(t, k.up, "of the proxy")
		k.expect(before, map[string]uint64{"passage.copied": 1, "passage.own_lifted": 1, "passage.local": 3})
	})
	t.Run("what the proxy had read", func(t *testing.T) {
		k := newStock(t, loopbackSite(t, false))
		send(t, k.client, "hello")
		receive(t, k.down, "hello")
		send(t, k.up, "hello")
		receive(t, k.server, "hello")
		send(t, k.client, "again") // it is in the socket at the graft
		k.await("the bytes", func() bool {
			n := 0
			fd(k.down, func(fd int) { n, _ = unix.IoctlGetInt(fd, unix.SIOCINQ) })
			return n == 5
		})
		k.must(k.join())
		before := k.counters()
		receive(t, k.down, "again")
		send(t, k.up, "again")
		receive(t, k.server, "again")
		k.expect(before, map[string]uint64{"passage.own": 1})
	})
	t.Run("a reset while it drains", func(t *testing.T) {
		k := newStock(t, loopbackSite(t, true))
		k.must(k.join())
		before := k.counters()
		k.client.SetLinger(0)
		k.client.Close()
		if _, err := k.down.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the proxy's socket: %v", err)
		}
		k.expect(before, map[string]uint64{"passage.reset": 1})
	})
	t.Run("an end, and its addresses again", func(t *testing.T) {
		k := newStock(t, loopbackSite(t, false))
		k.must(k.join())
		k.exchange("ping")
		k.activate()
		k.must(k.server.CloseWrite()) // so that the client's port rests nowhere
		if _, err := k.client.Read(make([]byte, 1)); err != io.EOF {
			t.Fatal(err)
		}
		from, to := k.client.LocalAddr().(*net.TCPAddr), k.client.RemoteAddr().String()
		k.must(k.client.CloseWrite())
		k.await("the end", func() bool { return k.pair.State() == GraftClosed })
		before := k.counters()
		for _, c := range []*net.TCPConn{k.down, k.up} {
			c.SetLinger(0)
			c.Close() // by an RST that nobody is to see
		}
		k.await("the RSTs", func() bool { return k.counters()["passage.own_stale"] >= before["passage.own_stale"]+2 })
		k.client.Close()
		index, generation := k.pair.Index(), k.pair.Generation()
		k.pair.Rest()
		ln, err := k.in.Listen(t.Context(), "tcp", to)
		k.must(err)
		defer ln.Close()
		var again net.Conn
		k.must(k.in.Do(func() (err error) {
			again, err = (&net.Dialer{LocalAddr: from, Timeout: 5 * time.Second}).Dial("tcp", to)
			return err
		}))
		defer again.Close()
		send(t, again.(*net.TCPConn), "a new connection")
		k.expect(before, map[string]uint64{"passage.reused": 1, "passage.off": 1})
		told := false
		k.graft.Ring(0).Drain(func(slot, g uint32) { told = told || slot == index && g == generation })
		if !told {
			t.Error("no event told of it")
		}
		k.graft.Reused(index, generation)
		if places, used, resting := k.graft.Sizes(); places+used+resting != 0 {
			t.Errorf("left over: %d addresses, %d in use, %d at rest", places, used, resting)
		}
		k.pair = Grafted{} // it has been given back
	})
	t.Run("the proxy ends it", func(t *testing.T) {
		s := vethSite(t, false, true)
		k := newStock(t, s)
		k.must(k.join())
		k.exchange("ping")
		k.activate()
		before := k.counters()
		k.pair.End()
		for _, c := range []*net.TCPConn{k.down, k.up} {
			c.SetLinger(0)
			c.Close()
		}
		for _, c := range []*net.TCPConn{k.client, k.server} {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read: %v, want a reset", err)
			}
		}
		// A segment that was under way, or claims to be.
		k.raw(s.client, k.client, segmentOf(ends(k.client), 1, 1, 0x10, 5, []byte("late")), 0)
		k.await("the segment", func() bool { return k.counters()["passage.ended"] > before["passage.ended"] })
		k.expect(before, map[string]uint64{"passage.own_reset": 2, "passage.ended": 1})
	})
	t.Run("both ends came to the sockets", func(t *testing.T) {
		k := newStock(t, loopbackSite(t, false))
		k.must(k.join())
		before := k.counters()
		k.pair.Back()
		send(t, k.client, "to the proxy")
		receive(t, k.down, "to the proxy")
		k.expect(before, map[string]uint64{"passage.back": 1})
	})
	t.Run("what is no segment of its", func(t *testing.T) {
		k := newStock(t, loopbackSite(t, false))
		k.must(k.join())
		before := k.counters()
		k.raw(k.in, k.client, segmentOf(ends(k.client), 1, 1, 0x10, 4, nil), 0) // a header of 16 bytes
		k.await("the short header", func() bool { return k.counters()["passage.malformed"] > before["passage.malformed"] })
		for _, c := range []*net.TCPConn{k.down, k.up} {
			c.SetLinger(0)
			c.Close()
		}
		k.raw(k.in, k.client, segmentOf(ends(k.client), 1, 1, 0x10, 5, nil), markCopy)
		connect(t, k.in, k.in, "127.0.0.1:0")
		k.await("a copy for nobody", func() bool { return k.counters()["passage.uncopied"] > before["passage.uncopied"] })
		k.expect(before, map[string]uint64{"passage.other": 1})
	})
	// passage.loopback, neighbour, local and marked: TestGraftedPairNeedsNoProxy.
	// passage.short: a header that the kernel has and cannot show; not provoked.
}

// markCopy is MARK_COPY.
const markCopy = 0x536c6331

// raw sends a segment as if the connection had.
func (k *stock) raw(in *netns.NS, c *net.TCPConn, segment []byte, mark int) {
	k.Helper()
	k.must(in.Do(func() error {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_MARK, mark); err != nil {
			return err
		}
		to := c.RemoteAddr().(*net.TCPAddr).AddrPort()
		return unix.Sendto(s, segment, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()})
	}))
}

// segmentOf builds one of IPv4, without options but for those that follow.
func segmentOf(e Ends, seq, ack uint32, flags, words byte, payload []byte) []byte {
	b := make([]byte, 20+len(payload))
	binary.BigEndian.PutUint16(b[0:], e.Local.Port())
	binary.BigEndian.PutUint16(b[2:], e.Remote.Port())
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = words<<4, flags
	binary.BigEndian.PutUint16(b[14:], 512)
	copy(b[20:], payload)
	from, to := e.Local.Addr().As4(), e.Remote.Addr().As4()
	pseudo := append(append(append([]byte(nil), from[:]...), to[:]...), 0, unix.IPPROTO_TCP, byte(len(b)>>8), byte(len(b)))
	sum := uint32(0)
	for _, p := range [][]byte{pseudo, b} {
		for i := range p {
			if i%2 == 0 {
				sum += uint32(p[i]) << 8
			} else {
				sum += uint32(p[i])
			}
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[16:], ^uint16(sum))
	return b
}

// While it drains, the proxy's own segments say what the other side acknowledged
// long ago: far more than a window's worth of bytes went direct since, and their
// receiver would discard them (RFC 5961).
func TestOwnSegmentsAreNotTooOld(t *testing.T) {
	for name, at := range sites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newStock(t, at(t))
			k.must(k.join())
			const total = 32 << 20
			done := make(chan error, 1)
			go func() {
				_, err := io.CopyN(io.Discard, k.client, total)
				done <- err
			}()
			if _, err := k.server.Write(make([]byte, total)); err != nil {
				t.Fatal(err)
			}
			k.must(<-done)
			send(t, k.up, "of the proxy")
			receive(t, k.server, "of the proxy")
		})
	}
}

// An RST from somebody who does not know where the stream is ends nothing.
func TestResetOutsideTheWindowEndsNothing(t *testing.T) {
	k := newStock(t, loopbackSite(t, false))
	k.must(k.join())
	k.exchange("ping")
	k.activate()
	before := k.counters()
	w := k.pair.words()
	for _, seq := range []uint32{w.Way[0].High - 5, w.Way[0].Edge + 5, w.Way[0].High + 1<<31} {
		k.raw(k.in, k.client, segmentOf(ends(k.client), seq, 0, 4, 5, nil), 0)
	}
	k.await("the RSTs", func() bool { return k.counters()["incident.outside"] >= before["incident.outside"]+3 })
	if s := k.pair.State(); s != GraftActive {
		t.Fatalf("state %d", s)
	}
	k.exchange("still there")
	k.raw(k.in, k.client, segmentOf(ends(k.client), w.Way[0].High, 0, 4, 5, nil), 0)
	k.await("the reset", func() bool { return k.pair.State() == GraftReset })
	if _, err := k.server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("server: %v", err)
	}
}

// What is behind its receiver is discarded, with all that it says. Both ends of a
// graft could be in that state at once, and would wait for each other for ever.
func TestWhatIsBehindItsReceiverIsMovedForward(t *testing.T) {
	k := newStock(t, loopbackSite(t, false))
	k.must(k.join())
	k.exchange("ping")
	k.activate()
	before := k.counters()
	w := &k.pair.words().Way
	client := func(behind, ack uint32, flags byte) {
		t.Helper()
		k.raw(k.in, k.client, segmentOf(ends(k.client), w[0].High-behind, ack, flags, 5, nil), 0)
	}
	client(3, w[0].Acked, 0x10)
	k.await("the window that it offers", func() (taken bool) {
		fd(k.server, func(fd int) {
			info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			taken = err == nil && info.Snd_wnd == 512<<w[0].Scale
		})
		return taken
	})
	k.expect(before, map[string]uint64{"incident.behind": 1})
	// A probe is behind so that it is answered. The kernel answers twice a second.
	answers := k.pair.Packets(1)
	k.await("the answer to a probe", func() bool {
		client(1, w[0].Acked, 0x10)
		return k.pair.Packets(1) > answers
	})
	client(3, w[0].Acked-1, 0x14) // of somebody who guesses
	k.await("the RST", func() bool { return k.counters()["incident.outside"] > before["incident.outside"] })
	k.exchange("still there")
	client(3, w[0].Acked, 0x14)
	k.await("the reset", func() bool { return k.pair.State() == GraftReset })
	if _, err := k.server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("server: %v", err)
	}
}

// Options in any order: padding, unknown ones, timestamps at an odd place.
func TestOptionsInAnyOrder(t *testing.T) {
	k := newStock(t, loopbackSite(t, false))
	k.must(k.join())
	k.exchange("ping")
	k.activate()
	before := k.counters()
	w := &k.pair.words().Way[0]
	send := func(options []byte, text string) {
		t.Helper()
		e := ends(k.client)
		words := byte(5 + len(options)/4)
		b := segmentOf(e, w.High, k.pair.words().Way[0].Acked, 0x18, words, append(append([]byte(nil), options...), text...))
		k.raw(k.in, k.client, b, 0)
	}
	stamp := func() []byte {
		b := binary.BigEndian.AppendUint32(nil, w.TimeHigh+1)
		return append(b, 0, 0, 0, 0)
	}
	// NOP, then timestamps at an odd place, then an unknown option.
	send(append(append([]byte{1, 8, 10}, stamp()...), 253, 5, 1, 2, 3), "odd")
	receive(t, k.server, "odd")
	// An unknown option first, SACK of nothing known behind.
	send(append(append([]byte{254, 4, 9, 9, 8, 10}, stamp()...), 5, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1, 1, 1), "other")
	receive(t, k.server, "other")
	// One that is longer than what is left: passed as it is, and counted.
	send(append(append([]byte{1, 1, 8, 10}, stamp()...), 1, 1, 30, 200), "broken")
	receive(t, k.server, "broken")
	k.expect(before, map[string]uint64{"incident.options": 3, "incident.odd_option": 1})
	if got := k.pair.Bytes(0); got != uint64(len("ping"+"odd"+"other"+"broken")) {
		t.Errorf("%d bytes", got)
	}
}
