package route

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/test/netns"
)

func TestOwnAddressesAreFollowed(t *testing.T) {
	ns := netns.ForTest(t)
	ip := func(args ...string) {
		t.Helper()
		if err := ns.Do(func() error {
			out, err := exec.Command("ip", args...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("ip %v: %w\n%s", args, err, out)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	ip("addr", "add", "10.1.0.2", "peer", "10.1.0.9/24", "dev", "lo")
	var mu sync.Mutex
	have := map[string]bool{"198.51.100.9": true} // of a process before
	var w *addresses
	if err := ns.Do(func() (err error) {
		w, err = watchAddresses([]netip.Addr{netip.MustParseAddr("198.51.100.9")}, func(a netip.Addr, has bool) error {
			mu.Lock()
			defer mu.Unlock()
			if have[a.String()] == has {
				t.Errorf("%v: told %v twice", a, has)
			}
			have[a.String()] = has
			return nil
		}, slog.New(slog.DiscardHandler))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer w.close()
	if mu.Lock(); have["198.51.100.9"] {
		t.Error("an address that there is not any more is still known")
	}
	mu.Unlock()
	is := func(want map[string]bool) bool {
		mu.Lock()
		defer mu.Unlock()
		for a, has := range want {
			if have[a] != has {
				return false
			}
		}
		return true
	}
	await := func(what string, want map[string]bool) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Second); !is(want); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: have %v, want %v", what, have, want)
			}
		}
	}
	if want := map[string]bool{"127.0.0.1": true, "::1": true, "10.1.0.2": true, "10.1.0.9": false}; !is(want) {
		t.Fatalf("at the start: have %v, want %v", have, want)
	}
	ip("addr", "add", "10.2.0.2/24", "dev", "lo")
	ip("addr", "add", "fd01::2/64", "dev", "lo", "nodad")
	await("added", map[string]bool{"10.2.0.2": true, "fd01::2": true})
	// An address that two devices have stays with the other one.
	ip("link", "add", "d0", "type", "veth", "peer", "name", "d1")
	ip("addr", "add", "10.2.0.2/32", "dev", "d0")
	ip("addr", "del", "10.2.0.2/24", "dev", "lo")
	ip("addr", "del", "fd01::2/64", "dev", "lo")
	await("one of two removed", map[string]bool{"10.2.0.2": true, "fd01::2": false})
	ip("addr", "del", "10.2.0.2/32", "dev", "d0")
	await("both removed", map[string]bool{"10.2.0.2": false})
}
