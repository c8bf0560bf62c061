package netns

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func inode(t *testing.T) string {
	t.Helper()
	s, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDoEntersAndLeavesNoTrace(t *testing.T) {
	ns := ForTest(t)
	outside, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var inside string
	if err := ns.Do(func() error { inside = inode(t); return nil }); err != nil {
		t.Fatal(err)
	}
	if inside == outside {
		t.Fatal("Do ran in the namespace of the process")
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if err := ns.Do(func() error {
				if got := inode(t); got != inside {
					t.Errorf("Do ran in %s, want %s", got, inside)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
			if got := inode(t); got != outside {
				t.Errorf("goroutine after Do is in %s, want %s", got, outside)
			}
		})
	}
	wg.Wait()
}

func TestDoHandsOnTheError(t *testing.T) {
	ns := ForTest(t)
	if err := ns.Do(func() error { return io.ErrUnexpectedEOF }); err != io.ErrUnexpectedEOF {
		t.Errorf("Do returned %v", err)
	}
}

func TestNamespacesDoNotShareLoopback(t *testing.T) {
	a, b := ForTest(t), ForTest(t)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	ln, err := a.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if c, err := b.Dial(ctx, "tcp", ln.Addr().String()); err == nil {
		c.Close()
		t.Error("a listener on loopback was reached from the other namespace")
	}
	c, err := a.Dial(ctx, "tcp", ln.Addr().String())
	if err != nil {
		t.Fatalf("dial in the same namespace: %v", err)
	}
	c.Close()
}

func TestConnect(t *testing.T) {
	for _, mtu := range []int{0, 1280, 9000} {
		t.Run("mtu "+strconv.Itoa(mtu), func(t *testing.T) {
			a, b := ForTest(t), ForTest(t)
			p := netip.MustParsePrefix
			err := Connect(
				End{NS: a, Name: "left", Addrs: []netip.Prefix{p("10.9.0.1/24"), p("fd00:9::1/64")}},
				End{NS: b, Name: "right", Addrs: []netip.Prefix{p("10.9.0.2/24"), p("fd00:9::2/64")}}, mtu)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			for _, addr := range []string{"10.9.0.2:0", "[fd00:9::2]:0"} {
				ln, err := b.Listen(ctx, "tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close()
				c, err := a.Dial(ctx, "tcp", ln.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				if host, _, _ := net.SplitHostPort(c.LocalAddr().String()); host != "10.9.0.1" && host != "fd00:9::1" {
					t.Errorf("came from %s", host)
				}
				c.Close()
			}
			want := mtu
			if want == 0 {
				want = 1500
			}
			for ns, dev := range map[*NS]string{a: "left", b: "right"} {
				if err := ns.Do(func() error {
					i, err := net.InterfaceByName(dev)
					if err == nil && i.MTU != want {
						t.Errorf("%s has mtu %d, want %d", dev, i.MTU, want)
					}
					return err
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestErrorsNameWhatFailed(t *testing.T) {
	ns := ForTest(t)
	err := ns.Route(netip.MustParsePrefix("10.1.0.0/16"), netip.MustParseAddr("10.9.9.9"))
	if err == nil || !strings.Contains(err.Error(), "route add 10.1.0.0/16 via 10.9.9.9") {
		t.Errorf("error %v does not name the command", err)
	}
	if _, err := ns.Dial(context.Background(), "tcp", "localhost:1"); err == nil || !strings.Contains(err.Error(), "localhost") {
		t.Errorf("error %v does not name the address", err)
	}
}
