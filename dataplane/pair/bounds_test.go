package pair

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Readers that never read. What a pair swallows is bounded by the limit and the
// four socket buffers. The kernel's share is memory: at one byte a segment some
// hundred bytes use it up, because each of them has an skb of its own.
func TestStalledReadersAreBounded(t *testing.T) {
	const limit = 64 << 10
	for _, tt := range []struct {
		pairs, write, buffer int
		skb                  int // the least memory of a segment with such a write
	}{
		// SO_SNDBUF and SO_RCVBUF of the least that there is, so that single
		// bytes show within the time.
		{1, 1, 2304, 512},
		{100, 64 << 10, 32 << 10, 64 << 10},
	} {
		for _, mode := range []Mode{Always, Off} {
			t.Run(fmt.Sprintf("%d pairs, writes of %d, %v", tt.pairs, tt.write, mode), func(t *testing.T) {
				r := newRig(t, mode, "tcp4")
				var wg sync.WaitGroup
				var most, all atomic.Int64
				var pairs []*testPair
				for range tt.pairs {
					p := r.pair(func(c *Config) {
						c.Limit = limit
						for _, fd := range []int{c.Downstream, c.Upstream} {
							setsockopt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, tt.buffer)
							setsockopt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, tt.buffer)
						}
					})
					pairs = append(pairs, p)
					p.client.SetWriteBuffer(tt.buffer)
					p.server.SetReadBuffer(tt.buffer)
					p.client.SetWriteDeadline(time.Now().Add(2 * time.Second))
					wg.Go(func() {
						buf, total := make([]byte, tt.write), int64(0)
						for {
							n, err := p.client.Write(buf)
							total += int64(n)
							if err != nil {
								break
							}
						}
						all.Add(total)
						for was := most.Load(); total > was && !most.CompareAndSwap(was, total); was = most.Load() {
						}
					})
				}
				wg.Wait()
				// The kernel doubles what is asked for, and takes one segment
				// more than fits. Beside the sockets, bytes are either in the
				// kernel's backlog or, once that has drained, in user space.
				bound := int64(limit + 4*(2*tt.buffer+tt.write))
				t.Logf("a pair swallowed at most %d bytes, all of them %d; the bound is %d a pair", most.Load(), all.Load(), bound)
				if most.Load() > bound {
					t.Errorf("a pair swallowed %d bytes, the bound is %d", most.Load(), bound)
				}
				for _, p := range pairs {
					// One more skb may go in where there is room for one byte, and
					// before an acknowledgement is sent; what is queued already has
					// up to 17 fragments of 32 KiB.
					most := uint32(limit*tt.write/tt.skb + 2*min(1000*tt.write, 17*32<<10))
					r.w.Do(func() {
						if s := &p.direction[0].slot; mode == Always && s.MaxBacklog() > most {
							t.Errorf("a backlog of %d bytes, the bound is %d", s.MaxBacklog(), most)
						}
					})
					if c := r.status(p); mode == Always && c.Request.Reason != reasons[reasonSlow] {
						t.Errorf("a pair is on %v (%s)", c.Request.Path, c.Request.Reason)
					}
				}
			})
		}
	}
}
