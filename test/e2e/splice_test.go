package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/test/peer"
)

func echo(t *testing.T, h peer.Handler) *peer.Server {
	t.Helper()
	s, err := peer.Listen("127.0.0.1:0", h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func pingPong(c net.Conn, n int) error {
	msg, got := []byte("ping-pong-ping-pong"), make([]byte, 19)
	for i := range n {
		msg[0] = byte(i)
		if _, err := c.Write(msg); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, got); err != nil {
			return err
		}
		if string(got) != string(msg) {
			return fmt.Errorf("message %d came back as %q", i, got)
		}
	}
	return nil
}

// The headline: once spliced, messages cost the proxy no system call, counted at
// sys_enter from outside.
func TestSplicedMessagesCostNoSystemCalls(t *testing.T) {
	needRoot(t)
	counter, err := bpf.CountSyscalls()
	if err != nil {
		t.Fatal(err)
	}
	defer counter.Close()
	at := free(t)
	p := start(t, sluice, static(at, echo(t, peer.Echo).Addr(), ""), nil, "--splice", "always")
	const conns, messages = 10, 100_000
	var cs []net.Conn
	for range conns {
		c := dial(t, at)
		if err := pingPong(c, 1); err != nil {
			t.Fatal(err)
		}
		cs = append(cs, c)
	}
	p.await("all connections are spliced both ways", func() bool { return p.allSpliced(conns) })
	if err := counter.Watch(p.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, c := range cs {
		wg.Go(func() {
			if err := pingPong(c, messages/conns); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n, err := counter.Count(p.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d system calls for %d ping-pongs", n, messages)
	if n >= 100 {
		t.Errorf("%d system calls for %d ping-pongs, want fewer than 100", n, messages)
	}
	// The counter does count: one request to the admin port shows.
	p.get("/ready")
	if after, _ := counter.Count(p.cmd.Process.Pid); after == n {
		t.Error("the counter does not move")
	}
}

// Each side only reads when the proxy dies: an error is told once by the kernel,
// and a writer would take it from the reader.
func TestKilledProxyEndsByResetOnBothSides(t *testing.T) {
	needRoot(t)
	flood := func(c *net.TCPConn) {
		for {
			if _, err := c.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	}
	for _, mode := range []string{"always", "off"} {
		for _, reader := range []string{"client", "server"} {
			t.Run(mode+"/"+reader, func(t *testing.T) {
				end := make(chan error, 1)
				read := func(c *net.TCPConn) {
					_, err := io.Copy(io.Discard, c)
					end <- err
				}
				at := free(t)
				server := echo(t, func(ctx context.Context, c *net.TCPConn) {
					if reader == "server" {
						read(c)
					} else {
						flood(c)
					}
				})
				p := start(t, sluice, static(at, server.Addr(), ""), nil, "--splice", mode)
				c := dial(t, at)
				if reader == "server" {
					go flood(c)
				} else {
					go read(c)
				}
				p.await("bytes flow", func() bool {
					cs := p.connections()
					return len(cs) == 1 && cs[0].Request.Bytes+cs[0].Response.Bytes > 1<<20
				})
				p.cmd.Process.Signal(syscall.SIGKILL)
				if err := <-end; !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%s saw %v, want a reset", reader, err)
				}
			})
		}
	}
}

func TestFailedSelfTestRelaysAndSaysWhy(t *testing.T) {
	needRoot(t)
	for _, step := range []string{"overlap", "stall", "fin", "unsplice", "resplice"} {
		t.Run(step, func(t *testing.T) {
			at := free(t)
			p := start(t, faulty, static(at, echo(t, peer.Echo).Addr(), ""), []string{"SLUICE_FAULT=" + step}, "--splice", "always")
			c := dial(t, at)
			if err := pingPong(c, 100); err != nil {
				t.Fatal(err)
			}
			cs := p.connections()
			if len(cs) != 1 || cs[0].Request.Path != "relay" || !strings.Contains(cs[0].Request.Reason, "self-test: "+step) {
				t.Errorf("connections %+v, want a relay that names the step", cs)
			}
		})
	}
}

// A reader that never reads: what is swallowed and what memory it takes are
// bounded by memory, whatever the size of the writes.
func TestStalledReadersAreBounded(t *testing.T) {
	needRoot(t)
	const limit, pairs = 64 << 10, 20
	for _, size := range []int{1, 16, 64 << 10} {
		t.Run(fmt.Sprintf("writes of %d", size), func(t *testing.T) {
			at := free(t)
			p := start(t, sluice, static(at, echo(t, peer.Stall).Addr(), fmt.Sprintf("per_connection_buffer_limit_bytes: %d", limit)), nil, "--splice", "always")
			before := available(t)
			var wg sync.WaitGroup
			var mu sync.Mutex
			var swallowed int64
			for range pairs {
				c := dial(t, at)
				c.SetNoDelay(true)
				wg.Go(func() {
					c.SetWriteDeadline(time.Now().Add(1500 * time.Millisecond))
					buf := make([]byte, size)
					total := int64(0)
					for {
						n, err := c.Write(buf)
						total += int64(n)
						if err != nil {
							break
						}
					}
					mu.Lock()
					swallowed += total
					mu.Unlock()
				})
			}
			wg.Wait()
			memory := before - available(t)
			t.Logf("%d pairs swallowed %d KiB, MemAvailable fell by %d KiB", pairs, swallowed>>10, memory>>10)
			// Four socket buffers of up to 6 MiB each hold what TCP itself takes;
			// ours is twice the limit and one read.
			if bound := int64(pairs) * (2*limit + 256<<10 + 24<<20); memory > bound || swallowed > bound {
				t.Errorf("swallowed %d bytes, took %d, bound %d", swallowed, memory, bound)
			}
			for _, c := range p.connections() {
				if c.Request.Spliced == 0 {
					t.Errorf("a pair was never spliced: it is on %s: %s", c.Request.Path, c.Request.Reason)
				}
			}
		})
	}
}

func available(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	t.Fatal("no MemAvailable")
	return 0
}
