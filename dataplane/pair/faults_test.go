package pair

import (
	"errors"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
	"golang.org/x/sys/unix"
)

// planted is a rig whose faults are meant, with one spliced pair.
func planted(t *testing.T) (*rig, *testPair) {
	r := newRig(t, Always, "tcp4")
	r.faults = true
	p := r.pair(nil)
	pingPong(t, p.client, p.server, 3, 10)
	return r, p
}

// The backlog overflows and the verdict's calls are lost: the scan finds it.
func TestLostWakeupIsRescued(t *testing.T) {
	r, p := planted(t)
	r.faults = false
	r.w.Do(func() { bpf.Plant{Slot: &p.direction[1].slot}.LoseWakeups(true, 0) })
	const back = 4 << 20
	overflow(r, p, back)
	await(t, "the direction is taken back", func() (there bool) {
		r.w.Do(func() { there = p.direction[1].leaving || p.direction[1].path != api.PathSplice })
		return there
	})
	counted, err := r.splice.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if counted["event.wake_lost"] == 0 || r.set.Rescues.Load() == 0 {
		t.Errorf("%d wake-ups lost, %d rescues", counted["event.wake_lost"], r.set.Rescues.Load())
	}
	p.server.CloseWrite()
	if n := readStamped(t, p.client, 1); n != back {
		t.Errorf("client read %d bytes of %d", n, back)
	}
}

// A worker that does not come, for it is here: the kernel takes the verdict away
// when the backlog overflows, and no byte is lost.
func TestVerdictLeavesWithoutAWorker(t *testing.T) {
	const total = 16 << 20
	r, p := planted(t)
	r.faults = false
	r.w.Do(func() {
		d := &p.direction[0]
		go func() {
			writeStamped(p.client, total, 5)
			p.client.CloseWrite()
		}()
		for !d.slot.Left() {
			if _, broken := d.slot.Broken(); broken || d.slot.Redirected() == total {
				t.Error("the kernel went on")
				break
			}
			runtime.Gosched()
		}
		// One more skb may go in where there is room for one byte, and before an
		// acknowledgement is sent; coalesced, one has up to 17 fragments of 32 KiB.
		if n := d.slot.MaxBacklog(); n > d.p.cfg.Limit+2*17*32<<10 {
			t.Errorf("backlog of %d bytes", n)
		}
	})
	if n := readStamped(t, p.server, 5); n != total {
		t.Errorf("server read %d bytes of %d", n, total)
	}
}

// A queue of many segments overflows the backlog while the verdict goes through
// it: the verdict stays until it is through.
func TestOverflowInMidQueueLosesNothing(t *testing.T) {
	r := newRig(t, Auto, "tcp4")
	p := r.pair(func(c *Config) { c.Limit = 16 << 10 })
	p.server.SetReadBuffer(16 << 10)
	const total = 2 << 20
	r.w.Do(func() {
		d := &p.direction[0]
		setsockopt(p.ends[1].fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10)
		// A window that is full, so that each segment that is taken sends word.
		setsockopt(d.src().fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 512<<10)
		go func() {
			writeFrom(p.client, 0, total, 2)
			p.client.CloseWrite()
		}()
		for n, was, end := 0, -1, time.Now().Add(time.Second); n == 0 || n != was || time.Now().Before(end); n, _ = unread(d.src().fd) {
			if n != was {
				was, end = n, time.Now().Add(50*time.Millisecond)
			}
			runtime.Gosched()
		}
		p.Force(0, api.PathSplice)
	})
	if n := readStamped(t, p.server, 2); n != total {
		t.Errorf("server read %d bytes of %d", n, total)
	}
	if counted, err := r.splice.Counters(); err != nil || counted["event.leave_later"] == 0 {
		t.Errorf("event.leave_later is 0, %v: the verdict was never asked to leave too soon", err)
	}
}

// writeFrom writes n bytes of a stream from an offset on.
func writeFrom(c net.Conn, off, n int, seed byte) {
	buf := make([]byte, n)
	for i := range buf {
		buf[i] = stamp(off+i, seed)
	}
	c.Write(buf)
}

// The verdict has left, more bytes and a FIN came after, and the worker hears of
// the FIN first.
func TestFINAfterTheVerdictHasLeft(t *testing.T) {
	r, p := planted(t)
	r.faults = false
	total := 0
	r.w.Do(func() {
		d := &p.direction[0]
		setsockopt(p.ends[1].fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10)
		bpf.Plant{Slot: &d.slot}.LoseWakeups(true, 0)
		for !d.slot.Left() {
			writeFrom(p.client, total, 10000, 4)
			total += 10000
		}
		writeFrom(p.client, total, 10000, 4)
		total += 10000
		p.client.CloseWrite()
		var info unix.TCPInfo
		for tcpInfo(d.src().fd, &info); info.State == tcpEstablished; tcpInfo(d.src().fd, &info) {
		}
	})
	if n := readStamped(t, p.server, 4); n != total {
		t.Errorf("server read %d bytes of %d", n, total)
	}
	p.server.Close()
	if o := p.end(t); o != Complete {
		t.Errorf("ended %v", o)
	}
}

// Bytes and a FIN are all in the backlog, which is under its limit: the FIN waits.
func TestFINWaitsForTheBacklog(t *testing.T) {
	r, p := planted(t)
	r.faults = false
	r.w.Do(func() { setsockopt(p.ends[1].fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10) })
	p.server.SetReadBuffer(16 << 10)
	const total = 400 << 10
	writeFrom(p.client, 0, total, 6)
	p.client.CloseWrite()
	await(t, "the FIN is there", func() (fin bool) {
		r.w.Do(func() { fin = p.ends[0].fin })
		return fin
	})
	if n := readStamped(t, p.server, 6); n != total {
		t.Errorf("server read %d bytes of %d", n, total)
	}
}

// Where the kernel cannot take the verdict away: the backlog stops growing at its bound, and the pair is
// reset once the worker is there.
func TestBacklogThatNobodyStopsIsBounded(t *testing.T) {
	const more = 1 << 20
	r, p := planted(t)
	r.w.Do(func() {
		d := &p.direction[0]
		slot := bpf.Plant{Slot: &d.slot}
		if err := slot.KeepVerdicts(); err != nil {
			t.Error(err)
			return
		}
		slot.Bound(d.p.cfg.Limit + more)
		go func() {
			buf := make([]byte, 64<<10)
			for {
				if _, err := p.client.Write(buf); err != nil {
					return
				}
			}
		}()
		for broken := false; !broken; _, broken = d.slot.Broken() {
			runtime.Gosched()
		}
		if n := d.slot.MaxBacklog(); n > d.p.cfg.Limit+more+17*32<<10 {
			t.Errorf("backlog of %d bytes", n)
		}
	})
	expectReset(t, p)
	if counted, err := r.splice.Counters(); err != nil || counted["exit.full"] == 0 {
		t.Errorf("exit.full is %d, %v", counted["exit.full"], err)
	}
}

// Sockets of another cgroup: a direction still leaves, when its source is silent.
func TestSilentSourceLeavesByTheMapAlone(t *testing.T) {
	r, p := planted(t)
	r.faults = false
	r.w.Do(func() {
		if err := (bpf.Plant{Slot: &p.direction[0].slot}).KeepVerdicts(); err != nil {
			t.Error(err)
			return
		}
		p.Force(0, api.PathRelay)
	})
	await(t, "the request direction is back on the relay", func() (there bool) {
		r.w.Do(func() { there = p.direction[0].path == api.PathRelay })
		return there
	})
	if n := r.set.Ungated.Load(); n != 1 {
		t.Errorf("%d verdicts taken away without the lock", n)
	}
	pingPong(t, p.client, p.server, 3, 10)
}

// The kernel tells of an error once; whoever is told has to pass it on.
func TestProbeTellsOfReset(t *testing.T) {
	r, p := planted(t)
	r.faults = false
	r.w.Do(func() {
		d := &p.direction[0]
		p.client.SetLinger(0)
		p.client.Close()
		var info unix.TCPInfo
		for tcpInfo(d.src().fd, &info); info.State != tcpClose; tcpInfo(d.src().fd, &info) {
		}
		if d.probe() {
			t.Error("a probe of a reset socket found nothing")
		}
	})
	if o := p.end(t); o != DownstreamReset {
		t.Errorf("ended %v", o)
	}
}

// A destination resets while its backlog waits, and the kernel's worker takes the
// error before this one reads it.
func TestErrorThatTheKernelsWorkerTookEndsThePair(t *testing.T) {
	r, p := stuck(t, 16<<20)
	r.w.Do(func() {
		raw, err := p.client.SyscallConn()
		if err != nil {
			t.Error(err)
			return
		}
		raw.Control(func(fd uintptr) {
			unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		})
		p.client.Close()
		var info unix.TCPInfo
		for tcpInfo(p.ends[0].fd, &info); info.State != tcpClose; tcpInfo(p.ends[0].fd, &info) {
		}
		for err := 1; err != 0; err, _ = getsockopt(p.ends[0].fd, unix.SOL_SOCKET, unix.SO_ERROR) {
		}
	})
	if o := p.end(t); o != DownstreamReset {
		t.Errorf("ended %v", o)
	}
}

// overflow has the server send back bytes of stream 1 to a client that does not read.
func overflow(r *rig, p *testPair, back int) {
	p.client.SetReadBuffer(16 << 10)
	r.w.Do(func() { unix.SetsockoptInt(p.ends[0].fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10) })
	go writeStamped(p.server, back, 1)
}

// stuck is a spliced pair whose client does not read: what the server sends, back
// bytes of stream 1, waits in the kernel behind the client's socket.
func stuck(t *testing.T, back int) (*rig, *testPair) {
	r, p := planted(t)
	r.faults = false
	p.client.SetReadBuffer(16 << 10)
	r.w.Do(func() { unix.SetsockoptInt(p.ends[0].fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10) })
	go func() {
		writeStamped(p.server, back, 1)
		p.server.CloseWrite()
	}()
	await(t, "the client's backlog is stuck", func() (stuck bool) {
		r.w.Do(func() { stuck = p.direction[1].leaving && !p.direction[1].drained() })
		return stuck
	})
	return r, p
}

// A direction leaves the splice while the other's bytes wait behind its source:
// the target map keeps them.
func TestLeavingKeepsTheOtherBacklog(t *testing.T) {
	const back = 16 << 20
	r, p := stuck(t, back)
	r.w.Do(func() { p.Force(0, api.PathRelay) })
	await(t, "the request direction is back on the relay", func() (there bool) {
		r.w.Do(func() { there = p.direction[0].path == api.PathRelay })
		return there
	})
	if n := readStamped(t, p.client, 1); n != back {
		t.Errorf("client read %d bytes of %d", n, back)
	}
}

// A pair that owes bytes which nothing brings is reset, and counted.
func TestStuckPairIsReset(t *testing.T) {
	r, p := planted(t)
	r.w.Do(func() {
		r.set.stuckAfter = 300 * time.Millisecond
		p.direction[0].base-- // as if a redirected byte had not come
		p.Force(0, api.PathRelay)
	})
	expectReset(t, p)
	if r.set.Stuck.Load() != 1 {
		t.Errorf("%d stuck", r.set.Stuck.Load())
	}
}

// The verdict sees a gap: both sides are reset.
func TestMissingBytesResetThePair(t *testing.T) {
	r, p := planted(t)
	r.w.Do(func() { bpf.Plant{Slot: &p.direction[0].slot}.Expect(-1) })
	p.client.Write([]byte("after the gap"))
	expectReset(t, p)
	if r.set.Faults.Load() != 1 {
		t.Errorf("%d faults", r.set.Faults.Load())
	}
}

// Bytes are dropped by the kernel, as a delete that races with a verdict does:
// the ledger finds it at the end, and the end is no clean one.
func TestLedgerTurnsALossIntoAReset(t *testing.T) {
	r, p := planted(t)
	r.w.Do(func() { bpf.Plant{Slot: &p.direction[0].slot}.Expect(4) })
	p.client.Write([]byte("lost"))
	await(t, "the verdict drops them", func() bool {
		counted, err := r.splice.Counters()
		return err == nil && counted["exit.duplicate"] == 1
	})
	p.client.CloseWrite()
	expectReset(t, p)
}

// The same at a change of path.
func TestLedgerChecksTheWayBack(t *testing.T) {
	r, p := planted(t)
	r.w.Do(func() { bpf.Plant{Slot: &p.direction[0].slot}.Expect(4) })
	p.client.Write([]byte("lost"))
	await(t, "the verdict drops them", func() bool {
		counted, err := r.splice.Counters()
		return err == nil && counted["exit.duplicate"] == 1
	})
	r.w.Do(func() { p.Force(0, api.PathRelay) })
	expectReset(t, p)
}

func expectReset(t *testing.T, p *testPair) {
	t.Helper()
	if o := p.end(t); o != Fault {
		t.Errorf("ended %v", o)
	}
	p.server.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.Copy(io.Discard, p.server); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("server read %v, want a reset", err)
	}
}

func TestNothingIsPromotedUnderMemoryPressure(t *testing.T) {
	r := newRig(t, Auto, "tcp4")
	used := uint64(200)
	r.w.Do(func() {
		r.set.memory = func() (Memory, error) { return Memory{Used: used, Low: 50, Pressure: 100}, nil }
	})
	p := r.pair(nil)
	r.pingPongUntil(p, 10, func(api.Connection) bool { return r.set.Pressed.Load() > 0 })
	if c := r.status(p); c.Request.Path != api.PathRelay || c.Request.Reason != reasons[reasonMemory] || r.set.Pressed.Load() == 0 {
		t.Errorf("request is on %v (%s), %d refused", c.Request.Path, c.Request.Reason, r.set.Pressed.Load())
	}
	// Between the marks pressure lasts; below the low one it is over.
	for _, tt := range []struct {
		used uint64
		want bool
	}{{80, true}, {40, false}, {80, false}, {101, true}} {
		r.w.Do(func() {
			used, r.set.memoryRead = tt.used, 0
			if got := r.set.pressed(); got != tt.want {
				t.Errorf("with %d pages: pressure %v", tt.used, got)
			}
		})
	}
	r.w.Do(func() { used, r.set.memoryRead = 40, 0 })
	r.pingPongUntil(p, 10, func(c api.Connection) bool { return c.Request.Path == api.PathSplice })
}

func TestMemoryIsReadFromProc(t *testing.T) {
	if _, err := TCPMemory(); err != nil {
		t.Error(err)
	}
	var m Memory
	stat := []byte("sockets: used 35\nTCP: inuse 14 orphan 1 tw 613 alloc 92 mem 157\nUDP: inuse 0 mem 9\n")
	if err := m.parse([]byte("287901\t383869\t575802\n"), stat); err != nil || m != (Memory{157, 287901, 383869}) {
		t.Errorf("%+v, %v", m, err)
	}
	for _, bad := range [][2]string{{"1 2", string(stat)}, {"a b c", string(stat)}, {"1 2 3", "TCP: inuse 1\n"}, {"1 2 3", "TCP: mem x\n"}} {
		if err := m.parse([]byte(bad[0]), []byte(bad[1])); err == nil {
			t.Errorf("%q gives no error", bad)
		}
	}
}
