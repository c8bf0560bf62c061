package load

import (
	"io"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// The load's threads keep their processors while they wait.
	runtime.GOMAXPROCS(8)
	goleak.VerifyTestMain(m)
}

func serve(t *testing.T) (netip.AddrPort, <-chan error) {
	t.Helper()
	s, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), 2)
	if err != nil {
		t.Fatal(err)
	}
	failed := s.Serve()
	t.Cleanup(s.Close)
	addr, err := s.Addr()
	if err != nil {
		t.Fatal(err)
	}
	return addr, failed
}

var kinds = []Config{
	{Kind: Requests, Size: 64, Connections: 3, Threads: 2},
	{Kind: Requests, Size: 64 << 10, Connections: 2, Threads: 1},
	{Kind: Requests, Size: maxChunk, Connections: 1, Threads: 1},
	{Kind: Bulk, Connections: 2, Threads: 2},
	{Kind: Duplex, Connections: 2, Threads: 1},
	{Kind: Connections, Size: 64, Connections: 4, Threads: 2},
}

func TestEveryKindMovesCheckedBytes(t *testing.T) {
	for _, cfg := range kinds {
		t.Run(string(cfg.Kind)+" "+strconv.Itoa(cfg.Size), func(t *testing.T) {
			addr, failed := serve(t)
			cfg.To = addr
			c, err := Start(cfg, 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for range 2 { // windows do not count each other's operations
				c.Begin()
				time.Sleep(50 * time.Millisecond)
				w, err := c.End()
				if err != nil {
					t.Fatal(err)
				}
				if w.Operations == 0 {
					t.Error("no operations")
				}
				var latencies uint64
				for _, n := range w.Latency {
					latencies += n
				}
				if want := w.Operations; (cfg.Kind == Requests || cfg.Kind == Connections) && latencies != want {
					t.Errorf("%d latencies of %d operations", latencies, want)
				}
			}
			select {
			case err := <-failed:
				t.Error(err)
			default:
			}
		})
	}
}

// spoil is a proxy that does something to the n-th byte of one direction.
func spoil(t *testing.T, to netip.AddrPort, upstream bool, at int, spoiled func([]byte) []byte) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			down, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", to.String())
			if err != nil {
				down.Close()
				continue
			}
			go relay(up, down, upstream, at, spoiled)
			go relay(down, up, !upstream, at, spoiled)
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

func relay(to, from net.Conn, bad bool, at int, spoiled func([]byte) []byte) {
	defer to.Close()
	defer from.Close()
	if bad {
		if _, err := io.CopyN(to, from, int64(at)); err != nil {
			return
		}
		b := make([]byte, 1)
		if _, err := io.ReadFull(from, b); err != nil {
			return
		}
		if _, err := to.Write(spoiled(b)); err != nil {
			return
		}
	}
	_, _ = io.Copy(to, from)
}

func TestCorruptStreamsAreFound(t *testing.T) {
	faults := map[string]func([]byte) []byte{
		"changed":  func(b []byte) []byte { return []byte{b[0] ^ 1} },
		"repeated": func(b []byte) []byte { return []byte{b[0], b[0]} },
		"lost":     func([]byte) []byte { return nil },
	}
	for _, cfg := range []Config{
		{Kind: Requests, Size: 1000, Connections: 1, Threads: 1},
		{Kind: Duplex, Connections: 1, Threads: 1},
	} {
		for name, f := range faults {
			for _, upstream := range []bool{true, false} {
				if cfg.Kind == Requests && name == "lost" {
					continue // the answer never becomes whole
				}
				t.Run(string(cfg.Kind)+" "+name+map[bool]string{true: " to the server", false: " to the client"}[upstream], func(t *testing.T) {
					addr, serverFailed := serve(t)
					cfg.To = spoil(t, addr, upstream, 200_000, f)
					found := make(chan string, 2)
					c, err := Start(cfg, 10*time.Second)
					if err != nil {
						found <- err.Error()
					} else {
						defer c.Close()
					}
					for {
						var got string
						select {
						case got = <-found:
						case err := <-failedOf(c):
							got = err.Error()
						case err := <-serverFailed:
							got = err.Error()
						case <-time.After(10 * time.Second):
							t.Fatal("nothing was found")
						}
						// Whoever did not see it itself is reset.
						if strings.Contains(got, "corrupt") {
							return
						}
					}
				})
			}
		}
	}
}

func failedOf(c *Client) <-chan error {
	if c == nil {
		return nil
	}
	return c.Failed()
}

func TestQuantilesAreExactToOnePartIn32(t *testing.T) {
	var h Histogram
	for ns := int64(1); ns <= 100_000; ns++ {
		h.add(ns)
	}
	for _, q := range []float64{0.001, 0.5, 0.99, 0.999, 1} {
		want := q * 100_000
		if got := float64(h.Quantile(q)); got < want*31/32-1 || got > want*33/32+1 {
			t.Errorf("quantile %v: got %v, want about %v", q, got, want)
		}
	}
	if got := new(Histogram).Quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing: %d", got)
	}
	h.add(-1)
	h.add(1 << 62) // no index out of range
}

func TestStreamsOfConnectionsDiffer(t *testing.T) {
	for id := uint32(1); id < 100; id++ {
		if streamOf(0).check(streamOf(id).next(64)) {
			t.Errorf("streams 0 and %d begin alike", id)
		}
	}
	s := streamOf(7)
	if !s.check(s.next(maxChunk)) || s.check((s + 1).next(64)) {
		t.Error("a stream does not check its own bytes, or takes others")
	}
}
