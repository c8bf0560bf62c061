package e2e

import (
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/test/books"
	"github.com/sluice-proxy/sluice/test/peer"
)

// Short connections, each spliced from its first byte, leave nothing behind.
// CONNECTIONS=1000000 for the whole, 5000 otherwise.
func TestShortConnectionsLeaveNothing(t *testing.T) {
	needRoot(t)
	n := int64(5000)
	if v, err := strconv.ParseInt(os.Getenv("CONNECTIONS"), 10, 64); err == nil {
		n = v
	}
	kept, err := books.Open()
	if err != nil {
		t.Fatal(err)
	}
	at := free(t)
	p := start(t, sluice, static(at, echo(t, peer.Echo).Addr(), ""), nil, "--splice", "always")
	burst := func(n int64) {
		var wg sync.WaitGroup
		var next atomic.Int64
		for range 16 {
			wg.Go(func() {
				for next.Add(1) <= n && !t.Failed() {
					if err := short(at.String()); err != nil {
						t.Errorf("connection %d: %v", next.Load(), err)
					}
				}
			})
		}
		wg.Wait()
		p.await("all connections are gone", func() bool { return len(p.connections()) == 0 })
	}
	burst(min(n, 2000)) // buffers, slots and the runtime have their size
	fds, before := p.descriptors(), p.cost()
	began := time.Now()
	burst(n)
	took := time.Since(began)
	p.await("all descriptors are closed", func() bool { return p.descriptors() <= fds })
	after := p.cost()
	t.Logf("%d connections, %.0f/s; descriptors %d before, %d after; RSS %d KiB before, %d after; CPU %v; TCP pages %d before", n, float64(n)/took.Seconds(),
		fds, p.descriptors(), before.rss>>10, after.rss>>10, after.cpu-before.cpu, kept.Pages())
	if grown := after.rss - before.rss; grown > 16<<20 {
		t.Errorf("RSS grew by %d KiB", grown>>10)
	}
	c := dial(t, at)
	if err := pingPong(c, 1); err != nil {
		t.Error(err)
	}
	p.await("the next one is spliced as the first", func() bool { return p.allSpliced(1) })
	c.Close()
	p.cmd.Process.Kill()
	if err := kept.Close(time.Minute); err != nil {
		t.Error(err)
	}
	if pages, err := books.TCPPages(); err == nil {
		t.Logf("TCP pages %d after", pages)
	}
}

func short(at string) error {
	c, err := net.Dial("tcp", at)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return pingPong(c, 1)
}
