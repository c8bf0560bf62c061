package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// CaptureOptions say whose connections are captured.
type CaptureOptions struct {
	// Cgroup is that of the programs whose connections are captured; see Cgroup.
	// The kernel goes by the cgroup that a socket was made in.
	Cgroup string
	// AcceptCgroup, if set, is that of other programs that accept what is
	// captured, and ask SO_ORIGINAL_DST what was meant. This process asks Origin.
	AcceptCgroup string
	// Closed refuses connections (EPERM) that are to be captured while nobody
	// listens for them; else they pass.
	Closed bool
}

// Capture owns the routes in the kernel and the hooks that go by them. Its
// methods are safe for concurrent use, but for Swap.
type Capture struct {
	// read-only after LoadCapture
	objects routeObjects
	links   []link.Link
	netns   uint64

	filler filler // Swap only
}

// LoadCapture attaches the hooks; until the first Swap every connection passes.
// It needs CAP_BPF and CAP_NET_ADMIN, cgroup v2, and the helpers that the hooks call; the
// error says what is missing.
func LoadCapture(o CaptureOptions) (c *Capture, err error) {
	dir, err := Cgroup(o.Cgroup)
	if err != nil {
		return nil, err
	}
	accept := ""
	if o.AcceptCgroup != "" {
		if accept, err = Cgroup(o.AcceptCgroup); err != nil {
			return nil, err
		}
	}
	settings, err := captureSettings(o)
	if err != nil {
		return nil, err
	}
	_ = rlimit.RemoveMemlock() // see Load
	c = &Capture{netns: settings.Netns}
	defer func() {
		if err != nil {
			c.Close()
			c = nil
		}
	}()
	if err := loadRouteObjects(&c.objects, nil); err != nil {
		return c, fmt.Errorf("load routes: %w", err)
	}
	if err := c.objects.Setting.Put(uint32(0), settings); err != nil {
		return c, fmt.Errorf("put settings: %w", err)
	}
	p := &c.objects.routePrograms
	// The order matters: what is captured must find everything behind it there.
	for _, a := range []struct {
		dir     string
		attach  ebpf.AttachType
		program *ebpf.Program
	}{
		{accept, ebpf.AttachCGroupGetsockopt, p.RouteGetsockopt},
		{dir, ebpf.AttachCGroupSockOps, p.RouteSockops},
		{dir, ebpf.AttachCgroupInet4GetPeername, p.RouteGetpeername4},
		{dir, ebpf.AttachCgroupInet6GetPeername, p.RouteGetpeername6},
		{dir, ebpf.AttachCGroupInet4Connect, p.RouteConnect4},
		{dir, ebpf.AttachCGroupInet6Connect, p.RouteConnect6},
	} {
		if a.dir == "" {
			continue
		}
		l, err := link.AttachCgroup(link.CgroupOptions{Path: a.dir, Attach: a.attach, Program: a.program})
		if err != nil {
			return c, fmt.Errorf("attach %v to cgroup %s: %w", a.attach, a.dir, err)
		}
		c.links = append(c.links, l)
	}
	return c, nil
}

// Detach takes the hooks away: what opens from then on passes. Connections that
// were captured go on, and Origin answers for them; their programs' getpeername
// shows the proxy's address from then on. Not for two goroutines at a time.
func (c *Capture) Detach() error {
	var errs []error
	for i := len(c.links) - 1; i >= 0; i-- {
		errs = append(errs, c.links[i].Close())
	}
	c.links = nil
	return errors.Join(errs...)
}

// Close detaches the hooks and frees the maps. Nothing else may be running.
func (c *Capture) Close() error { return errors.Join(c.Detach(), c.objects.Close()) }

// captureSettings tells the hooks who this process is: its own connections pass,
// and namespaces other than its own cannot reach its listeners.
func captureSettings(o CaptureOptions) (routeSettings, error) {
	s := routeSettings{Process: uint32(os.Getpid())}
	if o.Closed {
		s.Closed = 1
	}
	info, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return s, fmt.Errorf("read pid namespace: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.PidnsDev, s.PidnsIno = st.Dev, st.Ino
	}
	s.Netns, err = netnsCookie()
	return s, err
}

func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("read namespace cookie: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("read namespace cookie: %w", err)
	}
	return cookie, nil
}

// Origin is what a captured connection's program meant.
type Origin struct {
	Addr netip.AddrPort // unmapped
	// Generation is that of the table that decided, the others are the numbers
	// that its route has.
	Generation                        uint64
	Listener, Cluster, Policy, Target uint32
}

// Origin asks for a connection that was accepted, by its two ends. It answers
// once: the entry is taken away, so that a later connection of the same ends
// that was not captured does not find it. False: the connection was not captured.
func (c *Capture) Origin(client, server netip.AddrPort) (Origin, bool, error) {
	key := routeFlow{
		Netns:  c.netns,
		Client: kernelAddress(client.Addr()), ClientPort: bigEndian(client.Port()),
		Server: kernelAddress(server.Addr()), ServerPort: bigEndian(server.Port()),
	}
	var o routeOrigin
	err := c.objects.Flows.LookupAndDelete(key, &o)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return Origin{}, false, nil
	}
	if err != nil {
		return Origin{}, false, fmt.Errorf("look up flow: %w", err)
	}
	return Origin{
		Addr:       netip.AddrPortFrom(goAddress(o.Address), bigEndian(o.Port)),
		Generation: o.Generation, Listener: o.Listener, Cluster: o.Cluster, Policy: o.Policy, Target: o.Target,
	}, true, nil
}

// kernelAddress maps IPv4 into IPv6, as all addresses in the maps are.
func kernelAddress(a netip.Addr) routeAddress {
	b := a.As16()
	return *(*routeAddress)(unsafe.Pointer(&b))
}

func goAddress(a routeAddress) netip.Addr {
	return netip.AddrFrom16(*(*[16]byte)(unsafe.Pointer(&a))).Unmap()
}

// bigEndian turns a port into network order, and back.
func bigEndian(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}
