package route

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/bpf"
)

// clientEnv makes this test binary a program that connects: its CPU, its rate
// per second, and how many destinations there are.
const clientEnv = "SLUICE_ROUTE_TEST_CLIENT"

// destination is the address of one of many listeners, every third of IPv6.
func destination(i int) netip.AddrPort {
	if i%3 == 2 {
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8, 14: byte(i >> 8), 15: byte(i)}), 80)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 80)
}

func destinationIndex(a netip.Addr) int {
	b := a.As16()
	return int(b[14])<<8 | int(b[15])
}

// clientMain connects at its rate until its input ends, then says how often that
// went well, and what went wrong.
func clientMain(args string) {
	var cpu, rate, destinations int
	fmt.Sscan(args, &cpu, &rate, &destinations)
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		fmt.Fprintln(os.Stderr, "pin client:", err) // a machine of one CPU
	}
	in := bufio.NewReader(os.Stdin)
	_, _ = in.ReadString('\n') // may begin
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in)
		close(done)
	}()
	good, bad := 0, []string{}
	random := rand.New(rand.NewPCG(8, uint64(cpu)))
	for next := time.Now(); ; {
		select {
		case <-done:
			fmt.Println(good)
			for _, b := range bad {
				fmt.Println(b)
			}
			return
		default:
		}
		next = next.Add(time.Second / time.Duration(rate))
		switch wait := time.Until(next); {
		case wait > 0:
			time.Sleep(wait)
		case wait < -time.Second: // more is not made up for
			next = time.Now()
		}
		if err := connectOnce(destination(random.IntN(destinations)), random.IntN(2) == 0); err != nil {
			bad = append(bad, err.Error())
		} else {
			good++
		}
	}
}

// connectOnce connects, asks for the peer's address, and ends by RST.
func connectOnce(to netip.AddrPort, mapped bool) error {
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
	if to.Addr().Is4() && !mapped {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sa); err != nil {
		return fmt.Errorf("connect to %v: %w", to, err)
	}
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return fmt.Errorf("ask peer of %v: %w", to, err)
	}
	var seen netip.AddrPort
	switch p := peer.(type) {
	case *unix.SockaddrInet4:
		seen = netip.AddrPortFrom(netip.AddrFrom4(p.Addr), uint16(p.Port))
	case *unix.SockaddrInet6:
		seen = netip.AddrPortFrom(netip.AddrFrom16(p.Addr).Unmap(), uint16(p.Port))
	}
	if seen != to {
		return fmt.Errorf("the peer of %v is %v", to, seen)
	}
	return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// client is such a program.
type client struct {
	t     *testing.T
	in    io.WriteCloser
	out   *bufio.Scanner
	ended bool
	cmd   *exec.Cmd
}

func startClient(t *testing.T, dir string, cpu, rate, destinations int) (*client, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d %d", clientEnv, cpu, rate, destinations))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(d.Fd())}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &client{t: t, in: in, out: bufio.NewScanner(out), cmd: cmd}
	t.Cleanup(func() {
		if !c.ended {
			c.end()
		}
	})
	return c, nil
}

func (c *client) begin() { fmt.Fprintln(c.in) }

// end stops it; how often it connected, and what went wrong.
func (c *client) end() (good int, bad []string) {
	c.ended = true
	c.in.Close()
	if c.out.Scan() {
		fmt.Sscan(c.out.Text(), &good)
	}
	for c.out.Scan() {
		bad = append(bad, strings.TrimSpace(c.out.Text()))
	}
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("client: %v", err)
	}
	if good == 0 {
		c.t.Errorf("a client never connected")
	}
	return good, bad
}

// newCgroup makes a cgroup that goes with the test.
func newCgroup(t *testing.T) string {
	t.Helper()
	root, err := bpf.Cgroup("/")
	if err != nil {
		t.Skipf("needs cgroup v2: %v", err)
	}
	dir, err := os.MkdirTemp(root, "sluice-route-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Rmdir(dir); err != nil {
			t.Errorf("remove cgroup: %v", err)
		}
	})
	return dir
}
