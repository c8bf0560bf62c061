package bpf

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// programEnv makes this test binary one of the programs below, which the tests
// start in cgroups of their own.
const programEnv = "SLUICE_BPF_TEST_PROGRAM"

func programMain(role string) {
	switch role {
	case "client":
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			how, addr, _ := strings.Cut(in.Text(), " ")
			fmt.Println(dial(how, netip.MustParseAddrPort(addr)))
		}
	case "acceptor":
		for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
			l, err := net.Listen("tcp", at)
			if err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			go answer(l)
			fmt.Println(l.Addr())
		}
		io.Copy(io.Discard, os.Stdin)
	}
}

// dial connects and says what the program sees: its peer, and what the other
// side sent. how is tcp4, tcp6, mapped (IPv4 by an AF_INET6 socket), udp4, or
// device (bound to lo).
func dial(how string, to netip.AddrPort) string {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(to.Port())}
	if s, ok := sa.(*unix.SockaddrInet4); ok && to.Addr().Is4() {
		s.Addr = to.Addr().As4()
	}
	switch how {
	case "tcp6", "mapped":
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	case "udp4":
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "socket: " + err.Error()
	}
	defer unix.Close(fd)
	if how == "device" {
		if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "lo"); err != nil {
			return "bind: " + err.Error()
		}
	}
	if err := unix.Connect(fd, sa); err != nil {
		return "connect: " + err.Error()
	}
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return "getpeername: " + err.Error()
	}
	var seen netip.AddrPort
	switch p := peer.(type) {
	case *unix.SockaddrInet4:
		seen = netip.AddrPortFrom(netip.AddrFrom4(p.Addr), uint16(p.Port))
	case *unix.SockaddrInet6:
		seen = netip.AddrPortFrom(netip.AddrFrom16(p.Addr), uint16(p.Port))
	}
	if how == "udp4" {
		return "peer " + seen.String()
	}
	said, _ := io.ReadAll(os.NewFile(uintptr(must(unix.Dup(fd))), ""))
	return fmt.Sprintf("peer %v said %s", seen, said)
}

func must(fd int, err error) int {
	if err != nil {
		panic(err)
	}
	return fd
}

// answer tells each client what SO_ORIGINAL_DST says, twice, as programs may ask
// twice; then what it says into too short a buffer.
func answer(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err == nil {
			raw.Control(func(fd uintptr) {
				v4 := c.LocalAddr().(*net.TCPAddr).IP.To4() != nil
				fmt.Fprintf(c, "%s %s %s", originalDst(fd, v4, 28), originalDst(fd, v4, 28), originalDst(fd, v4, 8))
			})
		}
		c.Close()
	}
}

func originalDst(fd uintptr, v4 bool, size uint32) string {
	var b [28]byte
	level := unix.SOL_IPV6
	if v4 {
		level = unix.SOL_IP
	}
	if _, _, err := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, uintptr(level), 80, uintptr(unsafe.Pointer(&b)), uintptr(unsafe.Pointer(&size)), 0); err != 0 {
		return unix.ErrnoName(err)
	}
	port := uint16(b[2])<<8 | uint16(b[3])
	if v4 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port).String()
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), port).String()
}

// cgroup makes a cgroup that goes with the test.
func cgroup(t *testing.T) string {
	t.Helper()
	root, err := Cgroup("/")
	if err != nil {
		t.Skipf("needs cgroup v2: %v", err)
	}
	dir, err := os.MkdirTemp(root, "sluice-test-")
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

// program is this test binary in another role.
type program struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Scanner
}

// startProgram starts a program in a cgroup; flags are clone's.
func startProgram(t *testing.T, role, dir string, flags uintptr) *program {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), programEnv+"="+role)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(d.Fd()), Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	return &program{t: t, in: in, out: bufio.NewScanner(out)}
}

func (p *program) line() string {
	p.t.Helper()
	if !p.out.Scan() {
		p.t.Fatalf("program ended: %v", p.out.Err())
	}
	return p.out.Text()
}

// dial has the program connect.
func (p *program) dial(how, to string) string {
	p.t.Helper()
	fmt.Fprintln(p.in, how, to)
	return p.line()
}

// enter moves this process to a cgroup until the end of the test.
func enter(t *testing.T, dir string) {
	t.Helper()
	root, err := Cgroup("/")
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	was := root
	for _, l := range strings.Split(string(own), "\n") {
		if p, ok := strings.CutPrefix(l, "0::"); ok {
			was = filepath.Join(root, p)
		}
	}
	move := func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(fmt.Sprint(os.Getpid())), 0o644); err != nil {
			t.Error(err)
		}
	}
	move(dir)
	t.Cleanup(func() { move(was) })
}
