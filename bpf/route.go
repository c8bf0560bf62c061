package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

// CaptureOptions say whose connections are captured.
type CaptureOptions struct {
	// Cgroup is that of the programs whose connections are captured; see Cgroup.
	// The kernel goes by the cgroup that a socket was made in.
	Cgroup string
	// AcceptCgroup, if set, is that of other programs that accept what is
	// captured, and ask SO_ORIGINAL_DST what was meant. This process asks Origin.
	AcceptCgroup string
	// OnExit says what connections get that are to be captured while nobody
	// listens for them, and whether pins stay after Close.
	OnExit OnExit
	// RefuseWhenFull refuses connections (EPERM) for which the kernel has no memory
	// to note what they meant; else they pass.
	RefuseWhenFull bool
	// MaxRoutes is how many entries a table may have; 0: MaxRoutes.
	MaxRoutes int
	// First, if set, is in force before the hooks are attached, unless a table of
	// the process before is taken over. Without, every connection passes until the
	// first Swap.
	First *RouteTable
	// Pin, if set, is a directory on a bpffs, mode 0700: hooks and maps are pinned
	// there, outlive the process, and are taken over from the process before.
	Pin string
}

// Capture owns the routes in the kernel and the hooks that go by them. Its
// methods are safe for concurrent use, but for Swap and Detach.
type Capture struct {
	// read-only after LoadCapture
	objects routeObjects
	attachment
	netns uint64

	// Swap only
	filler   filler
	settings routeSettings // as they are in the map
}

// LoadCapture attaches the hooks, or takes them over. It needs CAP_BPF and
// CAP_NET_ADMIN, cgroup v2, and the helpers that the hooks call; the error says
// what is missing.
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
	_ = rlimit.RemoveMemlock() // see Load
	c = &Capture{attachment: attachment{onExit: o.OnExit, life: -1}}
	if c.filler, err = newFiller(o.MaxRoutes); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.abandon())
			c = nil
		}
	}()
	if c.settings, err = captureSettings(o); err != nil {
		return c, err
	}
	c.netns = c.settings.Netns
	old, err := c.open(o.Pin, partOutbound, (*pinDirectory).loadCapture)
	if err != nil {
		return c, err
	}
	defer old.close()
	takeOver := old.maps != nil
	if err := loadRouteObjects(&c.objects, &ebpf.CollectionOptions{MapReplacements: old.maps}); err != nil {
		return c, fmt.Errorf("load routes: %w", err)
	}
	// While this process is not known to live the policy decides. From here to the
	// first Swap it still does.
	if err := c.putSettings(); err != nil {
		return c, err
	}
	if err := c.live(c.objects.Life); err != nil {
		return c, err
	}
	if o.First != nil && !takeOver {
		if err := c.put(o.First); err != nil {
			return c, err
		}
	}
	return c, c.hang(c.pinned(), c.hooks(dir, accept), old)
}

// hooks in the order that matters: what is captured must find everything behind
// it there.
func (c *Capture) hooks(dir, accept string) []hook {
	p := &c.objects.routePrograms
	var out []hook
	for _, a := range []struct {
		dir     string
		attach  ebpf.AttachType
		program *ebpf.Program
		name    string
	}{
		{accept, ebpf.AttachCGroupGetsockopt, p.RouteGetsockopt, hookGetsockopt},
		{dir, ebpf.AttachCGroupSockOps, p.RouteSockops, hookSockops},
		{dir, ebpf.AttachCgroupInet4GetPeername, p.RouteGetpeername4, hookGetpeername4},
		{dir, ebpf.AttachCgroupInet6GetPeername, p.RouteGetpeername6, hookGetpeername6},
		{dir, ebpf.AttachCGroupInet4Connect, p.RouteConnect4, hookConnect4},
		{dir, ebpf.AttachCGroupInet6Connect, p.RouteConnect6, hookConnect6},
	} {
		if a.dir == "" {
			continue
		}
		out = append(out, hook{
			name: a.name, program: a.program, at: a.dir,
			attach: func() (link.Link, error) {
				l, err := link.AttachCgroup(link.CgroupOptions{Path: a.dir, Attach: a.attach, Program: a.program})
				if err != nil {
					return nil, fmt.Errorf("attach %v to cgroup %s: %w", a.attach, a.dir, err)
				}
				return l, nil
			},
			here: func(i *link.Info) bool {
				at := i.Cgroup()
				return at != nil && at.CgroupId == cgroupID(a.dir) && uint32(at.AttachType) == uint32(a.attach)
			},
		})
	}
	return out
}

// Hooks are those that LoadCapture attached.
func (c *Capture) Hooks() []HookStatus { return c.status }

// Taken says what became of the pins that were there at the start.
func (c *Capture) Taken() string { return c.taken }

// Detach ends the capture of what opens from then on. Under ExitOpen the hooks
// and pins go; else they stay, and the policy decides. Connections that were
// captured go on, and Origin answers for them; without hooks their programs'
// getpeername shows the proxy's address.
func (c *Capture) Detach() error { return c.detach() }

// Close detaches the hooks and frees the maps. Nothing else may be running.
func (c *Capture) Close() error { return errors.Join(c.Detach(), c.objects.Close()) }

// abandon ends a start that did not come to its end: pins of the process before
// stay as they are, and go on by the policy.
func (c *Capture) abandon() error {
	c.onExit = ExitKeep
	return c.Close()
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
