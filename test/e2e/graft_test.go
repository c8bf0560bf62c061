package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

// atRest waits until n pairs are grafted and their sockets hold nothing.
func (p *proxy) atRest(n int) {
	p.t.Helper()
	p.await("pairs are grafted and at rest", func() bool {
		for _, c := range p.connections() {
			if c.Request.Path != "graft" || c.Response.Path != "graft" {
				return false
			}
		}
		_, b := p.get("/stats?filter=%5Esplice.graft_freezes%24")
		return strings.TrimSpace(b) == "splice.graft_freezes: "+string(rune('0'+n))
	})
}

// grafted waits for a connection that has lasted long enough: the graft is loaded for
// it, and it relays meanwhile.
func (p *proxy) grafted(c net.Conn) {
	p.t.Helper()
	p.await("the graft is loaded", func() bool { _, b := p.get("/splice"); return strings.Contains(b, `"name": "graft-kill"`) })
	if err := pingPong(c, 1); err != nil {
		p.t.Fatal(err)
	}
	p.atRest(1)
}

// It is what a conversation comes to unless the operator says otherwise.
func TestGraftedConversation(t *testing.T) {
	needRoot(t)
	at := free(t)
	p := start(t, sluice, static(at, echo(t, peer.Echo).Addr(), ""), nil)
	c := dial(t, at)
	if err := pingPong(c, 10); err != nil {
		t.Fatal(err)
	}
	p.grafted(c)
	if err := pingPong(c, 999); err != nil {
		t.Fatal(err)
	}
	cs := p.connections()
	if len(cs) != 1 || cs[0].Request.Bytes != 1010*19 || cs[0].Response.Bytes != 1010*19 {
		t.Errorf("connections %+v, want one with %d bytes each way", cs, 1010*19)
	}
	if _, b := p.get("/splice"); !strings.Contains(strings.Join(strings.Fields(b), ""), `"graft":{"mode":"auto","available":true,"reason":"","self_test":[{"name":"graft","result":"ok"`) {
		t.Errorf("/splice says %s", b)
	}
	c.CloseWrite()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read %d, %v, want EOF", n, err)
	}
	p.await("the connection is over", func() bool { return len(p.connections()) == 0 })
	if _, b := p.get("/stats?filter=downstream_cx_destroy"); !strings.Contains(b, ": 1") {
		t.Errorf("stats: %s", b)
	}
}

// Who asks for the splice, or for none, is given no graft, unless by name.
func TestSpliceByNameMeansNoGraft(t *testing.T) {
	needRoot(t)
	for _, flags := range [][]string{{"--splice", "always"}, {"--splice", "off"}, {"--graft", "off"}} {
		p := start(t, sluice, static(free(t), echo(t, peer.Echo).Addr(), ""), nil, flags...)
		if _, b := p.get("/splice"); !strings.Contains(b, "self_test") || strings.Contains(b, "graft") {
			t.Errorf("%v: /splice says %s", flags, b)
		}
	}
}

// A killed proxy takes its programs with it; the sockets of pairs at rest reset both
// sides first, where these really are: nobody waits for ever, and nobody sees a
// clean end.
func TestKilledProxyResetsGraftedPairs(t *testing.T) {
	needRoot(t)
	for _, busy := range []bool{false, true} {
		at := free(t)
		end := make(chan error, 2)
		read := func(c *net.TCPConn) {
			_, err := io.Copy(io.Discard, c)
			end <- err
		}
		server := echo(t, func(ctx context.Context, c *net.TCPConn) {
			if err := pingPong2(c, 11); err != nil {
				t.Error(err)
			}
			read(c)
		})
		p := start(t, sluice, static(at, server.Addr(), ""), nil, "--graft", "auto")
		c := dial(t, at)
		if err := pingPong(c, 10); err != nil {
			t.Fatal(err)
		}
		p.grafted(c)
		if !busy {
			go read(c)
		} else {
			go func() { // the kernel tells of a reset once: to who writes
				for {
					if _, err := c.Write(make([]byte, 4096)); err != nil {
						end <- err
						return
					}
				}
			}()
			p.await("bytes flow", func() bool {
				cs := p.connections()
				return len(cs) == 1 && cs[0].Request.Bytes > 1<<20
			})
		}
		p.cmd.Process.Signal(syscall.SIGKILL)
		for range 2 {
			select {
			case err := <-end:
				if !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("busy %v: an end saw %v, want a reset", busy, err)
				}
			case <-time.After(5 * time.Second):
				t.Errorf("busy %v: an end was never told", busy)
			}
		}
	}
}

// pingPong2 is the other side of pingPong.
func pingPong2(c net.Conn, n int) error {
	_, err := io.CopyN(c, c, int64(19*n))
	return err
}

func TestFailedSelfTestGraftsNothingAndSaysWhy(t *testing.T) {
	needRoot(t)
	at := free(t)
	p := start(t, faulty, static(at, echo(t, peer.Echo).Addr(), ""), []string{"SLUICE_FAULT=graft-reset"}, "--graft", "auto", "--splice", "off")
	if _, b := p.get("/splice"); !strings.Contains(b, "no connection has lasted long enough") {
		t.Errorf("before the first connection /splice says %s", b)
	}
	c := dial(t, at)
	if err := pingPong(c, 100); err != nil {
		t.Fatal(err)
	}
	p.await("the self-test is over", func() bool { _, b := p.get("/splice"); return strings.Contains(b, "self-test:") })
	if err := pingPong(c, 100); err != nil {
		t.Fatal(err)
	}
	if cs := p.connections(); len(cs) != 1 || cs[0].Request.Path != "relay" {
		t.Errorf("connections %+v, want a relay", cs)
	}
	if _, b := p.get("/splice"); !strings.Contains(b, `"reason": "self-test: graft-reset: fault planted`) {
		t.Errorf("/splice says %s", b)
	}
}
