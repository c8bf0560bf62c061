package pair

import (
	"errors"
	"io"
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

// The verdict passes bytes and its wake-up is lost: the scan finds them.
func TestLostWakeupIsRescued(t *testing.T) {
	r, p := planted(t)
	r.w.Do(func() {
		d := &p.direction[0]
		bpf.Plant{Slot: d.slot}.LoseWakeups(true, 0)
		d.slot.SetSplice(false)
	})
	p.client.Write([]byte("unheard"))
	buf := make([]byte, 7)
	p.server.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(p.server, buf); err != nil || string(buf) != "unheard" {
		t.Fatalf("read %q, %v", buf, err)
	}
	counted, err := r.splice.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if counted["event.wake_lost"] == 0 || r.set.Rescues.Load() == 0 {
		t.Errorf("%d wake-ups lost, %d rescues", counted["event.wake_lost"], r.set.Rescues.Load())
	}
}

// Passed bytes wait where the ledger counts: they are copied to nowhere, not over
// the stack.
func TestCountingDoesNotCopyPassedBytes(t *testing.T) {
	r, p := planted(t)
	r.w.Do(func() {
		d := &p.direction[0]
		bpf.Plant{Slot: d.slot}.LoseWakeups(true, 0)
		d.slot.SetSplice(false)
		p.client.Write(make([]byte, 20000))
		for d.slot.Passed() == 0 {
		}
		if n, err := unread(d.src.fd); err != syscall.EFAULT {
			t.Errorf("counted %d, %v", n, err)
		}
		if missing, ok := d.balance(false); ok || p.closed {
			t.Errorf("balance %d, closed %v", missing, p.closed)
		}
	})
	p.server.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(p.server, make([]byte, 20000)); err != nil {
		t.Error(err)
	}
}

// The verdict is taken away while its last bytes and a FIN come in, so that it
// cannot be put back: what it passed still arrives, and then the end.
func TestPassedBytesOutliveTheVerdict(t *testing.T) {
	r, p := planted(t)
	r.faults = false
	r.w.Do(func() {
		d := &p.direction[0]
		bpf.Plant{Slot: d.slot}.LoseWakeups(true, 0)
		d.slot.SetSplice(false)
		d.leaving = true
		p.client.Write(make([]byte, 20000))
		p.client.CloseWrite()
		var info unix.TCPInfo
		for tcpInfo(d.src.fd, &info); info.State == tcpEstablished || d.slot.Passed() != 20000; tcpInfo(d.src.fd, &info) {
		}
		if err := d.slot.Restore(); err != nil {
			t.Error(err)
		}
		d.retake()
	})
	p.server.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := io.Copy(io.Discard, p.server); n != 20000 || err != nil {
		t.Errorf("server read %d, %v", n, err)
	}
	p.server.Close()
	if o := p.end(t); o != Complete {
		t.Errorf("ended %v", o)
	}
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
		for tcpInfo(d.src.fd, &info); info.State != tcpClose; tcpInfo(d.src.fd, &info) {
		}
		if d.probe() {
			t.Error("a probe of a reset socket found nothing")
		}
	})
	if o := p.end(t); o != DownstreamReset {
		t.Errorf("ended %v", o)
	}
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
		r.w.Do(func() { stuck = p.direction[1].slot.Overflows() > 0 && !p.direction[1].drained() })
		return stuck
	})
	return r, p
}

// What was passed waits behind the other direction's backlog: recv has nothing
// to give, and the source's FIN was seen, but the stream is not at its end.
func TestPassedBytesBehindABacklogArrive(t *testing.T) {
	const back = 16 << 20
	r, p := stuck(t, back)
	r.w.Do(func() { p.direction[0].slot.SetSplice(false) })
	p.client.Write(make([]byte, 1000))
	p.client.CloseWrite()
	await(t, "bytes and FIN are there", func() (there bool) {
		r.w.Do(func() { there = p.ends[0].fin && p.direction[0].slot.Passed() >= 1000 })
		return there
	})
	got := make(chan int64)
	go func() {
		n, err := io.Copy(io.Discard, p.server)
		if err != nil {
			t.Error(err)
		}
		got <- n
	}()
	if n := readStamped(t, p.client, 1); n != back {
		t.Errorf("client read %d bytes of %d", n, back)
	}
	if n := <-got; n != 1000 {
		t.Errorf("server read %d bytes and a clean end, of 1000", n)
	}
	if counted, err := r.splice.Counters(); err != nil || counted["event.crossed"] == 0 {
		t.Errorf("event.crossed is 0, %v: nothing was seen to pass behind a backlog", err)
	}
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
		p.direction[0].slot.AddWritten(-1) // as if a byte had been passed and not come
	})
	expectReset(t, p)
	if r.set.Stuck.Load() != 1 {
		t.Errorf("%d stuck", r.set.Stuck.Load())
	}
}

// The verdict sees a gap: both sides are reset.
func TestMissingBytesResetThePair(t *testing.T) {
	r, p := planted(t)
	r.w.Do(func() { bpf.Plant{Slot: p.direction[0].slot}.Expect(-1) })
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
	r.w.Do(func() { bpf.Plant{Slot: p.direction[0].slot}.Expect(4) })
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
	r.w.Do(func() { bpf.Plant{Slot: p.direction[0].slot}.Expect(4) })
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
	pingPong(t, p.client, p.server, 100, 10)
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
	pingPong(t, p.client, p.server, 100, 10)
	if c := r.status(p); c.Request.Path != api.PathSplice {
		t.Errorf("request is on %v (%s)", c.Request.Path, c.Request.Reason)
	}
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
