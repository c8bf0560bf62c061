package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/test/books"
	"github.com/sluice-proxy/sluice/test/peer"
)

// attack is what hostile clients do. begin brings them into place; hold goes on
// until ctx ends, and is where the figures are taken.
type attack struct {
	name  string
	begin func(t *testing.T, dial func() *net.TCPConn) (hold func(ctx context.Context))
	// idle says that what is in place costs no CPU.
	idle bool
	// conns of the attackers, and what TCP's own buffers may hold for each: of
	// three sockets' tcp_wmem and tcp_rmem, where somebody floods.
	conns int
	tcp   int64
}

var attacks = []attack{
	{name: "50 senders of 1-byte segments", conns: 50, begin: func(t *testing.T, dial func() *net.TCPConn) func(context.Context) {
		cs := many(50, dial, "e")
		return func(ctx context.Context) {
			each(ctx, cs, func(c *net.TCPConn) error {
				_, err := c.Write([]byte{1})
				if err == nil {
					_, err = io.ReadFull(c, make([]byte, 1))
				}
				return err
			})
		}
	}},
	{name: "100 readers with a zero window", conns: 100, tcp: 16 << 20, idle: true, begin: func(t *testing.T, dial func() *net.TCPConn) func(context.Context) {
		many(100, dial, "f")
		return nil
	}},
	{name: "100 readers of 1 B/s", conns: 100, tcp: 16 << 20, idle: true, begin: func(t *testing.T, dial func() *net.TCPConn) func(context.Context) {
		cs := many(100, dial, "f")
		return func(ctx context.Context) {
			each(ctx, cs, func(c *net.TCPConn) error {
				_, err := c.Read(make([]byte, 1))
				select {
				case <-ctx.Done():
				case <-time.After(time.Second):
				}
				return err
			})
		}
	}},
	// No faster: past that the CPUs are the attackers' own, who live here too.
	{name: "RST flood, 1600 connections a second", conns: 8, begin: func(t *testing.T, dial func() *net.TCPConn) func(context.Context) {
		return func(ctx context.Context) {
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for tick := time.NewTicker(5 * time.Millisecond); ctx.Err() == nil; <-tick.C {
						c := dial()
						c.Write([]byte("eRST"))
						peer.Reset(c)
					}
				})
			}
			wg.Wait()
		}
	}},
	{name: "1000 half-sent first messages", conns: 1000, idle: true, begin: func(t *testing.T, dial func() *net.TCPConn) func(context.Context) {
		many(1000, dial, "h")
		return nil
	}},
	{name: "5000 connections that say nothing", conns: 5000, idle: true, begin: func(t *testing.T, dial func() *net.TCPConn) func(context.Context) {
		many(5000, dial, "")
		return nil
	}},
}

// mixed does what the first byte says: flood, wait for the rest, or echo.
func mixed(ctx context.Context, c *net.TCPConn) {
	var b [1]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return
	}
	switch b[0] {
	case 'f':
		for buf := make([]byte, 64<<10); ; {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	case 'h':
		<-ctx.Done()
	default:
		peer.Echo(ctx, c)
	}
}

func many(n int, dial func() *net.TCPConn, say string) []*net.TCPConn {
	var cs []*net.TCPConn
	for range n {
		c := dial()
		io.WriteString(c, say)
		cs = append(cs, c)
	}
	return cs
}

func each(ctx context.Context, cs []*net.TCPConn, f func(*net.TCPConn) error) {
	var wg sync.WaitGroup
	for _, c := range cs {
		wg.Go(func() {
			for ctx.Err() == nil && f(c) == nil {
			}
		})
	}
	<-ctx.Done()
	for _, c := range cs {
		c.SetDeadline(time.Now())
	}
	wg.Wait()
}

// victims are ordinary clients; they say how many exchanges they made, and the
// slowest of a hundred.
func victims(t *testing.T, cs []*net.TCPConn, during time.Duration) (n int, p99 time.Duration) {
	t.Helper()
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	until := time.Now().Add(during)
	for _, c := range cs {
		wg.Go(func() {
			var own []time.Duration
			for time.Now().Before(until) {
				at := time.Now()
				if err := pingPong(c, 1); err != nil {
					t.Errorf("victim: %v", err)
					return
				}
				own = append(own, time.Since(at))
			}
			mu.Lock()
			took = append(took, own...)
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(took) == 0 {
		return 0, 0
	}
	slices.Sort(took)
	return len(took), took[len(took)*99/100]
}

// cost is what the proxy has used so far.
type cost struct {
	cpu time.Duration
	rss int64 // bytes
}

func (p *proxy) cost() (c cost) {
	p.t.Helper()
	dir := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		p.t.Fatal(err)
	}
	// Fields 14 and 15, counted behind the name, in ticks of 10 ms.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var user, system int64
	fmt.Sscan(fields[11], &user)
	fmt.Sscan(fields[12], &system)
	c.cpu = time.Duration(user+system) * 10 * time.Millisecond
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kb); n == 1 {
			c.rss = kb << 10
		}
	}
	return c
}

// Hostile peers cost bounded memory and CPU, and others are served on.
func TestHostilePeers(t *testing.T) {
	needRoot(t)
	kept, err := books.Open()
	if err != nil {
		t.Fatal(err)
	}
	const window = 2 * time.Second
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			at := free(t)
			server := echo(t, mixed)
			bootstrap := strings.Replace(static(at, server.Addr(), "per_connection_buffer_limit_bytes: 65536"), "    load_assignment",
				"    circuit_breakers: {thresholds: [{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}]}\n    load_assignment", 1)
			p := start(t, sluice, bootstrap, nil, "--splice", "always")
			var good []*net.TCPConn
			for range 4 {
				c := dial(t, at)
				if _, err := c.Write([]byte("e")); err != nil {
					t.Fatal(err)
				}
				good = append(good, c)
			}
			beforeN, beforeP99 := victims(t, good, window/2)
			before, free := p.cost(), available(t)

			var hostile []*net.TCPConn
			var mu sync.Mutex
			var opened atomic.Int64
			hold := a.begin(t, func() *net.TCPConn {
				c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
				if err != nil {
					t.Errorf("hostile client %d: %v", opened.Load(), err)
					return &net.TCPConn{}
				}
				opened.Add(1)
				c.SetReadBuffer(4 << 10)
				mu.Lock()
				hostile = append(hostile, c)
				mu.Unlock()
				return c
			})
			defer func() {
				for _, c := range hostile {
					c.Close()
				}
			}()
			if a.idle {
				p.await("all are connected through", func() bool { return server.Open() >= a.conns+len(good) })
				// What is still moving comes to rest.
				quiet := p.cost().cpu
				for i := 0; i < 20; i++ {
					time.Sleep(100 * time.Millisecond)
					now := p.cost().cpu
					if now-quiet < 10*time.Millisecond {
						break
					}
					quiet = now
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			if hold != nil {
				wg.Go(func() { hold(ctx) })
			}
			atRest := p.cost()
			if a.idle {
				time.Sleep(window)
			}
			idleCPU := p.cost().cpu - atRest.cpu
			n, p99 := victims(t, good, window)
			after := p.cost()
			taken := free - available(t)
			cancel()
			wg.Wait()
			t.Logf("| %s | RSS +%d KiB | MemAvailable -%d KiB | idle CPU %.1f %% | victims %d/s, p99 %v (before: %d/s, %v) | opened %d |", a.name,
				(after.rss-before.rss)>>10, taken>>10, 100*idleCPU.Seconds()/window.Seconds(),
				int(float64(n)/window.Seconds()), p99.Round(10*time.Microsecond), int(float64(beforeN)/(window/2).Seconds()), beforeP99.Round(10*time.Microsecond), opened.Load())
			// User space: a read of a worker's, and what the runtime takes for its
			// own; 8 KiB for each connection is far more than any costs.
			if grown := after.rss - before.rss; grown > 32<<20+int64(a.conns)*8<<10 {
				t.Errorf("RSS grew by %d KiB for %d connections", grown>>10, a.conns)
			}
			// In all: our limit both ways, TCP's own, and 64 KiB for four sockets and
			// the peers in this process. Others use memory on this host too.
			if bound := int64(256<<20) + int64(a.conns)*(2*64<<10+64<<10+a.tcp); taken > bound {
				t.Errorf("%d KiB of memory are gone, bound %d KiB", taken>>10, bound>>10)
			}
			if a.idle && idleCPU > window/10 {
				t.Errorf("%v of CPU in %v for clients that do nothing", idleCPU, window)
			}
			if n == 0 {
				t.Error("others were not served")
			}
		})
	}
	if err := kept.Close(time.Minute); err != nil {
		t.Error(err)
	}
}
