// Package netns gives tests and demos network namespaces of their own, joined
// by veth pairs. Addresses and links are set with iproute2's ip.
package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrPrivilege says that this process may not make namespaces (CAP_SYS_ADMIN).
var ErrPrivilege = errors.New("no privilege to make a network namespace")

// NS is a network namespace. It lives until Close, or longer if a process or a
// socket still uses it.
type NS struct{ file *os.File }

// New makes a namespace with the loopback device up. The error wraps
// ErrPrivilege if the process lacks CAP_SYS_ADMIN.
func New() (*NS, error) {
	var ns *NS
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			if errors.Is(err, unix.EPERM) {
				return fmt.Errorf("%w: unshare: %w", ErrPrivilege, err)
			}
			return fmt.Errorf("unshare network namespace: %w", err)
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return fmt.Errorf("open network namespace: %w", err)
		}
		ns = &NS{file: f}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := ns.ip("link", "set", "lo", "up"); err != nil {
		ns.Close()
		return nil, err
	}
	return ns, nil
}

// Host is the namespace that this process is in.
func Host() (*NS, error) {
	f, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return &NS{file: f}, nil
}

// Close lets go of the namespace.
func (n *NS) Close() error { return n.file.Close() }

// Path is a path by which other processes of this user can open the namespace
// while this one has it.
func (n *NS) Path() string {
	return "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(n.file.Fd()))
}

// Do runs fn on a thread that is in the namespace. Sockets that fn makes and
// processes that it starts stay in it; goroutines that it starts do not.
func (n *NS) Do(fn func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return fn()
	})
}

// onThread runs fn on a thread that ends with it: the goroutine stays locked,
// so the runtime throws the thread away instead of reusing one that is in
// another namespace. The thread must not be the process's first, which cannot
// end, and whose namespace /proc/self shows.
func onThread(fn func() error) error {
	type result struct {
		err     error
		isFirst bool
	}
	done := make(chan result)
	for {
		release := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			if unix.Gettid() == os.Getpid() {
				done <- result{isFirst: true}
				<-release // hold the first thread until another was used
				runtime.UnlockOSThread()
				return
			}
			done <- result{err: fn()}
		}()
		r := <-done
		if !r.isFirst {
			close(release)
			return r.err
		}
		defer close(release)
	}
}

// Listen listens in the namespace.
func (n *NS) Listen(ctx context.Context, network, addr string) (ln net.Listener, err error) {
	err = n.Do(func() (err error) {
		var lc net.ListenConfig
		ln, err = lc.Listen(ctx, network, addr)
		return err
	})
	return ln, err
}

// Dial connects from the namespace. addr must hold an IP address, as names would
// be looked up by goroutines outside.
func (n *NS) Dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return nil, fmt.Errorf("dial in namespace: %w", err)
	}
	err = n.Do(func() (err error) {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// End is one end of a veth pair.
type End struct {
	NS   *NS
	Name string
	// Addrs may be of both families; IPv6 addresses are usable at once (nodad).
	Addrs []netip.Prefix
}

// Connect joins two namespaces by a veth pair. mtu 0 leaves the kernel's 1500.
// Two ends in one namespace are fine. The pair goes when either namespace does.
func Connect(a, b End, mtu int) error {
	if err := a.NS.ip("link", "add", a.Name, "type", "veth", "peer", "name", b.Name, "netns", b.NS.Path()); err != nil {
		return err
	}
	for _, e := range []End{a, b} {
		if err := e.Configure(mtu); err != nil {
			return err
		}
	}
	// The kernel notes the carrier up to a second later, and drops what is sent
	// before (net/core/link_watch.c).
	for _, e := range []End{a, b} {
		if err := e.awaitCarrier(5 * time.Second); err != nil {
			return err
		}
	}
	return nil
}

// Configure gives a device its MTU (0: as it is) and addresses, and sets it up.
func (e End) Configure(mtu int) error {
	if mtu != 0 {
		if err := e.NS.ip("link", "set", e.Name, "mtu", strconv.Itoa(mtu)); err != nil {
			return err
		}
	}
	for _, p := range e.Addrs {
		args := []string{"addr", "add", p.String(), "dev", e.Name}
		if p.Addr().Is6() {
			args = append(args, "nodad")
		}
		if err := e.NS.ip(args...); err != nil {
			return err
		}
	}
	return e.NS.ip("link", "set", e.Name, "up")
}

func (e End) awaitCarrier(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		running := false
		err := e.NS.Do(func() error {
			i, err := net.InterfaceByName(e.Name)
			if err == nil {
				running = i.Flags&net.FlagRunning != 0
			}
			return err
		})
		if err != nil || running {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("await carrier of %s: none after %v", e.Name, limit)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Route adds a route by way of a neighbour.
func (n *NS) Route(to netip.Prefix, via netip.Addr) error {
	return n.ip("route", "add", to.String(), "via", via.String())
}

// IP runs iproute2's ip in the namespace.
func (n *NS) IP(args ...string) error { return n.ip(args...) }

func (n *NS) ip(args ...string) error {
	return n.Do(func() error {
		out, err := exec.Command("ip", args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("run ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
		return nil
	})
}
