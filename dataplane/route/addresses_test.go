package route

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
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
	// One link-local address on two links is two addresses.
	ip("link", "set", "d0", "up")
	ip("link", "set", "d1", "up")
	ip("addr", "add", "fe80::7/64", "dev", "d0", "nodad")
	ip("addr", "add", "fe80::7/64", "dev", "d1", "nodad")
	var zones []string
	if err := ns.Do(func() error {
		for _, name := range []string{"d0", "d1"} {
			i, err := net.InterfaceByName(name)
			if err != nil {
				return err
			}
			zones = append(zones, "fe80::7%"+strconv.Itoa(i.Index))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	await("link-local", map[string]bool{zones[0]: true, zones[1]: true})
	ip("addr", "del", "fe80::7/64", "dev", "d0")
	await("one link-local removed", map[string]bool{zones[0]: false, zones[1]: true})
	await("both removed", map[string]bool{"10.2.0.2": false})
}
