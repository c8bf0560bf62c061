package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

// One spliced pair, full duplex, every byte checked. BYTES=1000000000 for the
// whole, 64 MB otherwise.
func TestFullDuplexOnOneSplicedPair(t *testing.T) {
	needRoot(t)
	n := int64(64 << 20)
	if v, err := strconv.ParseInt(os.Getenv("BYTES"), 10, 64); err == nil {
		n = v
	}
	done := make(chan error, 1)
	both := peer.Both(1, 2, n, func(err error) { done <- err })
	// The server's first bytes would find a client that does not read yet: a
	// direction that starts behind them is never found empty, and not spliced.
	spliced := make(chan struct{})
	server := echo(t, func(ctx context.Context, c *net.TCPConn) {
		select {
		case <-spliced:
			both(ctx, c)
		case <-ctx.Done():
		}
	})
	at := free(t)
	p := start(t, sluice, static(at, server.Addr(), ""), nil, "--splice", "always")
	c := dial(t, at)
	began := time.Now()
	p.await("the pair is spliced", func() bool { return p.allSpliced(1) })
	close(spliced)
	go func() {
		if _, err := io.Copy(struct{ io.Writer }{c}, peer.NewSource(2, n)); err != nil {
			t.Error(err)
		}
		c.CloseWrite()
	}()
	check := peer.NewChecker(1)
	if got, err := io.Copy(check, c); err != nil || got != n {
		t.Errorf("client got %d of %d bytes: %v", got, n, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	t.Logf("%d bytes each way in %v", n, time.Since(began))
}

func (p *proxy) descriptors() int {
	d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	return len(d)
}

// 200 connections of random sizes: half-close in both orders, slow readers, RST
// in mid-stream; every byte checked, and nothing left over.
func TestManyConnectionsLeaveNothingBehind(t *testing.T) {
	needRoot(t)
	for _, mode := range []string{"auto", "always"} {
		t.Run(mode, func(t *testing.T) {
			server := echo(t, func(_ context.Context, c *net.TCPConn) {
				io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
				c.CloseWrite()
			})
			at := free(t)
			p := start(t, sluice, static(at, server.Addr(), ""), nil, "--splice", mode)
			if mode == "auto" { // the graft's own stay
				c := dial(t, at)
				if err := pingPong(c, 10); err != nil {
					t.Fatal(err)
				}
				p.grafted(c)
				c.Close()
				p.await("it is gone", func() bool { return len(p.connections()) == 0 })
			}
			p.connections()
			before := p.descriptors()
			slots := make(chan struct{}, 40)
			var wg sync.WaitGroup
			for i := range 200 {
				slots <- struct{}{}
				wg.Go(func() {
					defer func() { <-slots }()
					if err := talk(at.String(), i); err != nil {
						t.Errorf("connection %d: %v", i, err)
					}
				})
			}
			wg.Wait()
			p.await("all connections are gone", func() bool { return len(p.connections()) == 0 })
			p.await("all descriptors are closed", func() bool { return p.descriptors() <= before })
		})
	}
}

// talk sends a stamped stream of random length and checks its echo; every fifth
// connection breaks off by RST, every fourth reads slowly.
func talk(at string, i int) error {
	conn, err := net.Dial("tcp", at)
	if err != nil {
		return err
	}
	c := conn.(*net.TCPConn)
	defer c.Close()
	c.SetDeadline(time.Now().Add(60 * time.Second))
	seed, n := uint64(i), rand.Int64N(1<<20)
	go func() {
		buf := make([]byte, 1+rand.IntN(64<<10))
		io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{peer.NewSource(seed, n)}, buf)
		if i%5 == 0 {
			peer.Reset(c)
			return
		}
		c.CloseWrite()
	}()
	check := peer.NewChecker(seed)
	buf := make([]byte, 32<<10)
	for {
		k, err := c.Read(buf)
		if _, bad := check.Write(buf[:k]); bad != nil {
			return bad
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			if i%5 == 0 && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)) {
				return nil
			}
			return err
		}
		if i%4 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	if check.Good() != n && i%5 != 0 {
		return fmt.Errorf("clean end after %d of %d bytes", check.Good(), n)
	}
	return nil
}
