package pair

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
	"github.com/sluice-proxy/sluice/test/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a worker with a set, and pairs between real loopback connections.
type rig struct {
	t      testing.TB
	w      *loop.Worker
	set    *Set
	splice *bpf.Splice
	family string
	faults bool // are planted
	// of a rig that grafts
	ns    *netns.NS
	graft *bpf.Graft
}

// newGraftRig is a rig in a namespace of its own, which grafts and never splices.
func newGraftRig(t testing.TB, family string) *rig {
	t.Helper()
	log := slog.New(slog.NewTextHandler(testWriter{t}, nil))
	w, err := loop.New(0, log)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, w: w, family: family, ns: netns.ForTest(t)}
	if r.set, err = NewSet(w, nil, Off, "", NewCrowd(), log); err != nil {
		t.Fatal(err)
	}
	if err := r.ns.Do(func() (err error) {
		r.graft, err = bpf.LoadGraft(1, nil)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	r.set.partWithin = 8 * time.Second // of a busy machine
	if err := r.set.UseGraft(r.graft, true); err != nil {
		t.Fatal(err)
	}
	go r.ns.Do(func() error { w.Run(); return nil })
	t.Cleanup(func() {
		w.Do(func() { r.set.KillAll(); r.set.Close() })
		w.Close()
		places, used, resting := r.graft.Sizes()
		if used != 0 || places != 4*resting {
			t.Errorf("maps still hold %d addresses, %d grafts are in use, %d rest", places, used, resting)
		}
		if n := r.set.Faults.Load(); n != 0 && !t.Failed() {
			t.Errorf("%d faults", n)
		}
		r.graft.Close()
	})
	return r
}

func newRig(t testing.TB, mode Mode, family string) *rig {
	t.Helper()
	log := slog.New(slog.NewTextHandler(testWriter{t}, nil))
	w, err := loop.New(0, log)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, w: w, family: family}
	if mode != Off {
		r.splice = loadSplice(t)
	}
	if r.set, err = NewSet(w, r.splice, mode, "", NewCrowd(), log); err != nil {
		t.Fatal(err)
	}
	go w.Run()
	t.Cleanup(func() {
		w.Do(func() {
			r.set.KillAll()
			r.set.Close()
			if n := r.set.pipes.made; n != 0 {
				t.Errorf("%d pipes are still open", n)
			}
		})
		w.Close()
		if r.splice != nil {
			a, b, c := r.splice.Sizes()
			if a+b+c != 0 || r.splice.InUse() != 0 {
				t.Errorf("maps still hold intercepted %d targets %d slots %d, %d slots in use", a, b, c, r.splice.InUse())
			}
			if n := r.set.Faults.Load() + r.set.Stuck.Load(); n != 0 && !r.faults && !t.Failed() {
				t.Errorf("%d faults", n)
			}
			r.splice.Close()
		}
	})
	return r
}

func loadSplice(t testing.TB) *bpf.Splice {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	s, err := bpf.Load(1)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Helper()
	w.t.Log(string(bytes.TrimSpace(b)))
	return len(b), nil
}

// connection makes a connected loopback pair: the test's end, and the proxy's.
func (r *rig) connection() (c *net.TCPConn, fd int) {
	r.t.Helper()
	if r.ns == nil {
		return r.connectionHere()
	}
	r.ns.Do(func() error {
		c, fd = r.connectionHere()
		return nil
	})
	return c, fd
}

func (r *rig) connectionHere() (*net.TCPConn, int) {
	r.t.Helper()
	addr := "127.0.0.1:0"
	if r.family == "tcp6" {
		addr = "[::1]:0"
	}
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(r.t.Context(), r.family, addr)
	if err != nil {
		r.t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial(r.family, ln.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		r.t.Fatal(err)
	}
	f, err := s.(*net.TCPConn).File()
	if err != nil {
		r.t.Fatal(err)
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		r.t.Fatal(err)
	}
	f.Close()
	s.Close()
	unix.SetNonblock(fd, true)
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0) // which Go turns on
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	return c.(*net.TCPConn), fd
}

type testPair struct {
	*Pair
	client, server *net.TCPConn
	ended          chan Outcome
}

func (r *rig) pair(change func(*Config)) *testPair {
	r.t.Helper()
	client, down := r.connection()
	server, up := r.connection()
	tp := &testPair{client: client, server: server, ended: make(chan Outcome, 1)}
	cfg := Config{Downstream: down, Upstream: up, Limit: 1 << 20, Ended: func(_ *Pair, o Outcome) { tp.ended <- o }}
	if change != nil {
		change(&cfg)
	}
	r.w.Do(func() {
		// As a Dial hands it over: what came before is told by the first event.
		unix.SetsockoptInt(up, unix.IPPROTO_TCP, unix.TCP_NODELAY, 0)
		if err := r.w.Add(up, upstream.Events, nobody{}); err != nil {
			r.t.Error(err)
		}
		r.w.Park(up)
		cfg.Watched, cfg.Nagle = true, true
		tp.Pair = r.set.Start(cfg)
	})
	r.t.Cleanup(func() { client.Close(); server.Close() })
	return tp
}

type nobody struct{}

func (nobody) Ready(uint32) {}

func (r *rig) status(p *testPair) (c api.Connection) {
	r.w.Do(func() {
		if !p.closed {
			p.Status(&c)
		}
	})
	return c
}

func (p *testPair) end(t testing.TB) Outcome {
	t.Helper()
	select {
	case o := <-p.ended:
		return o
	case <-time.After(10 * time.Second):
		if g := p.cfg.graft; g != nil && g.Taken() {
			t.Logf("graft: state %d, frozen %v, %s", g.State(), g.frozen, &g.Grafted)
		}
		t.Fatal("the pair did not end")
		return 0
	}
}

// forEach runs a test on every path and family.
func forEach(t *testing.T, f func(t *testing.T, r *rig)) {
	for _, family := range []string{"tcp4", "tcp6"} {
		for _, mode := range []Mode{Off, Auto, Always} {
			t.Run(fmt.Sprintf("%s/%v", family, mode), func(t *testing.T) { f(t, newRig(t, mode, family)) })
		}
		t.Run(family+"/graft", func(t *testing.T) { f(t, newGraftRig(t, family)) })
	}
}

func pingPong(t testing.TB, a, b net.Conn, n, size int) {
	t.Helper()
	msg, buf := make([]byte, size), make([]byte, size)
	for i := range n {
		for j := range msg {
			msg[j] = byte(i + j)
		}
		for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
			if _, err := way[0].Write(msg); err != nil {
				t.Fatal(err)
			}
			way[1].SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.ReadFull(way[1], buf); err != nil {
				t.Fatalf("message %d: %v", i, err)
			}
			if !bytes.Equal(msg, buf) {
				t.Fatalf("message %d: got other bytes", i)
			}
		}
	}
}

// pingPongUntil makes exchanges until the rule has made up its mind, and tells how
// many it took.
func (r *rig) pingPongUntil(p *testPair, size int, done func(api.Connection) bool) (n int) {
	r.t.Helper()
	r.await("the rule's decision", func() bool {
		pingPong(r.t, p.client, p.server, 20, size)
		n += 20
		return done(r.status(p))
	})
	return n
}

// pingHalf sends one way only, after the other way has ended.
func pingHalf(t testing.TB, from, to net.Conn) {
	t.Helper()
	go from.Write([]byte("answer after the end"))
	buf := make([]byte, 20)
	to.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(to, buf); err != nil || string(buf) != "answer after the end" {
		t.Errorf("after half-close: %q, %v", buf, err)
	}
}

func stamp(off int, seed byte) byte { return byte(off*131+off>>8*31+off>>16*17) + seed }

func writeStamped(c net.Conn, total int, seed byte) {
	buf := make([]byte, 256<<10)
	for off := 0; off < total; {
		n := min(1+rand.IntN(len(buf)), total-off)
		if rand.IntN(2) == 0 {
			n = min(1+rand.IntN(2000), total-off)
		}
		for i := range n {
			buf[i] = stamp(off+i, seed)
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
		off += n
	}
}

func readStamped(t testing.TB, c net.Conn, seed byte) int {
	buf := make([]byte, 64<<10)
	off := 0
	for {
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, err := c.Read(buf)
		for i := range n {
			if buf[i] != stamp(off+i, seed) {
				t.Errorf("byte %d is wrong", off+i)
				return off
			}
		}
		off += n
		if err != nil {
			if err != io.EOF {
				t.Errorf("after %d bytes: %v", off, err)
			}
			return off
		}
	}
}

// writeChatty sends messages of up to 8 KiB with pauses between some.
func writeChatty(c net.Conn, total int, seed byte) {
	buf := make([]byte, 8<<10)
	for off := 0; off < total; {
		n := min(1+rand.IntN(len(buf)), total-off)
		for i := range n {
			buf[i] = stamp(off+i, seed)
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
		off += n
		if rand.IntN(4) == 0 {
			time.Sleep(time.Duration(rand.IntN(500)) * time.Microsecond)
		}
	}
}

var paths = []api.Path{api.PathRelay, api.PathSplice, api.PathPipe}
