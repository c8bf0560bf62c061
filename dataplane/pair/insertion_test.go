package pair

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"golang.org/x/sys/unix"
)

// What came before the pair was made has no segment after it that would run the
// verdict.
func TestBytesBeforeInsertionArrive(t *testing.T) {
	for _, family := range []string{"tcp4", "tcp6"} {
		r := newRig(t, Always, family)
		client, down := r.connection()
		server, up := r.connection()
		defer client.Close()
		defer server.Close()
		io.WriteString(client, "early")
		r.w.Do(func() { r.set.Start(Config{Downstream: down, Upstream: up, Limit: 1 << 20}) })
		server.SetReadDeadline(time.Now().Add(time.Second)) // before any scan
		buf := make([]byte, 5)
		if _, err := io.ReadFull(server, buf); err != nil || string(buf) != "early" {
			t.Errorf("%s: server read %q, %v", family, buf, err)
		}
	}
}

// A segment of which user space has read a part is given to the verdict whole.
func TestHalfReadSegmentIsNotRepeated(t *testing.T) {
	r := newRig(t, Auto, "tcp4")
	for _, taken := range []int{1, 4, 999, 0xf00, 0xf01, 9000} {
		p := r.pair(nil)
		const text = 10000
		r.w.Do(func() {
			d := &p.direction[0]
			writeStamped(p.client, text, 0)
			for n := 0; n < text; n, _ = unread(d.src().fd) {
			}
			buf := make([]byte, taken)
			if n, err := recv(d.src().fd, buf, 0); n != taken || err != 0 {
				t.Errorf("read %d, %v", n, err)
				return
			}
			d.plain += uint64(taken)
			d.give(buf)
			p.Force(0, api.PathSplice)
			if d.path != api.PathSplice {
				t.Errorf("path %v, reason %v", d.path, d.reason)
			}
		})
		p.client.CloseWrite()
		if n := readStamped(t, p.server, 0); n != text {
			t.Errorf("%d bytes taken before: server got %d of %d", taken, n, text)
		}
	}
}

// MPTCP sockets cannot be in a sockmap: such a pair is relayed, and whole.
func TestMPTCPSocketIsRelayed(t *testing.T) {
	if b, _ := os.ReadFile("/proc/sys/net/mptcp/enabled"); strings.TrimSpace(string(b)) != "1" {
		t.Skip("needs MPTCP, which is not enabled here")
	}
	r := newRig(t, Always, "tcp4")
	var lc net.ListenConfig
	lc.SetMultipathTCP(true)
	ln, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var dialer net.Dialer
	dialer.SetMultipathTCP(true)
	client, err := dialer.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if yes, err := accepted.(*net.TCPConn).MultipathTCP(); !yes {
		t.Skipf("no MPTCP over loopback: %v", err)
	}
	f, err := accepted.(*net.TCPConn).File()
	accepted.Close()
	if err != nil {
		t.Fatal(err)
	}
	down, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	unix.SetNonblock(down, true)
	server, up := r.connection()
	defer server.Close()
	var p *Pair
	ended := make(chan Outcome, 1)
	r.w.Do(func() {
		p = r.set.Start(Config{Downstream: down, Upstream: up, Limit: 1 << 20, Ended: func(_ *Pair, o Outcome) { ended <- o }})
	})
	pingPong(t, client, server, 100, 100)
	r.w.Do(func() {
		if p.closed || p.direction[0].path == api.PathSplice || p.direction[1].path == api.PathSplice {
			t.Error("an MPTCP socket was spliced")
		}
	})
	// Its FIN is MPTCP's own, and not in TCP's count.
	client.Close()
	if n, err := server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("server read %d, %v, want EOF", n, err)
	}
	server.Close()
	select {
	case o := <-ended:
		if o != Complete {
			t.Errorf("ended %v", o)
		}
	case <-time.After(10 * time.Second):
		t.Error("the pair did not end")
	}
}
