package bpf

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Use is what a feature of the kernel is for.
type Use int

// The uses.
const (
	UseSplice Use = iota
	UseCapture
	UsePins
	UseInbound
	UseGraft
)

// Probe is a feature of the kernel, and whether this process can have it.
type Probe struct {
	Name string
	Use  Use
	// Err is nil if it can. ErrInconclusive: that cannot be told; any other error
	// is what the kernel says.
	Err error
	// Instead says what is done without it, if it can be done without.
	Instead string
}

// ErrInconclusive says that a feature may be there, but not for this process to
// see: mostly for want of a capability.
var ErrInconclusive = errors.New("cannot be told")

// Probes tries each feature that the programs are built on. The versions in the
// names are where a feature came in; they decide nothing.
func Probes() []Probe {
	maps := func(t ebpf.MapType) error { return conclude(features.HaveMapType(t)) }
	helper := func(t ebpf.ProgramType, f asm.BuiltinFunc) error { return conclude(features.HaveProgramHelper(t, f)) }
	return []Probe{
		{Name: "type information of the kernel (BTF)", Use: UseSplice, Err: haveBTF()},
		{Name: "kfunc bpf_cast_to_kern_ctx (6.2)", Use: UseSplice, Err: haveKfunc("bpf_cast_to_kern_ctx")},
		{Name: "sockets in a hash map (sockhash)", Use: UseSplice, Err: maps(ebpf.SockHash)},
		{Name: "redirect by sockhash", Use: UseSplice, Err: helper(ebpf.SkSKB, asm.FnSkRedirectHash)},
		{Name: "bpf_skc_to_tcp_sock (5.9)", Use: UseSplice, Err: helper(ebpf.SkSKB, asm.FnSkcToTcpSock)},
		{Name: "bpf_setsockopt in getsockname hooks", Use: UseSplice, Err: helper(ebpf.CGroupSockAddr, asm.FnSetsockopt)},
		{Name: "ring buffer (5.8)", Use: UseSplice, Err: maps(ebpf.RingBuf)},
		{Name: "link to a sockmap (6.10)", Use: UseSplice, Err: haveSockmapLink(), Instead: "the verdict is attached as long as its map lives"},
		{Name: "storage beside sockets in connect hooks", Use: UseCapture, Err: helper(ebpf.CGroupSockAddr, asm.FnSkStorageGet)},
		{Name: "look-up of listeners in connect hooks", Use: UseCapture, Err: helper(ebpf.CGroupSockAddr, asm.FnSkLookupTcp)},
		{Name: "process ids of a namespace in connect hooks", Use: UseCapture, Err: helper(ebpf.CGroupSockAddr, asm.FnGetNsCurrentPidTgid)},
		{Name: "namespace cookies in connect hooks", Use: UseCapture, Err: helper(ebpf.CGroupSockAddr, asm.FnGetNetnsCookie)},
		{Name: "namespace cookies in sockops (5.15)", Use: UseCapture, Err: helper(ebpf.SockOps, asm.FnGetNetnsCookie)},
		{Name: "longest-prefix map", Use: UseCapture, Err: maps(ebpf.LPMTrie)},
		{Name: "map that forgets the oldest", Use: UseCapture, Err: maps(ebpf.LRUHash)},
		{Name: "unix sockets in a sockmap (5.15)", Use: UseCapture, Err: haveUnixSockmap()},
		{Name: "links to cgroups (5.7)", Use: UsePins, Err: haveCgroupLink()},
		{Name: "programs where listeners are looked up (sk_lookup, 5.9)", Use: UseInbound, Err: conclude(features.HaveProgramType(ebpf.SkLookup))},
		{Name: "links at devices (tcx, 6.6)", Use: UseGraft, Err: haveTCX()},
		{Name: "loops (bpf_loop, 5.17)", Use: UseGraft, Err: helper(ebpf.SchedCLS, asm.FnLoop)},
		{Name: "redirect to a neighbour (5.10)", Use: UseGraft, Err: helper(ebpf.SchedCLS, asm.FnRedirectNeigh)},
		{Name: "membarrier", Use: UseGraft, Err: haveMembarrier()},
	}
}

// Memlock makes room for maps where the kernel counts them against
// RLIMIT_MEMLOCK, before Linux 5.11.
func Memlock() error { return rlimit.RemoveMemlock() }

func conclude(err error) error {
	if err == nil || errors.Is(err, ebpf.ErrNotSupported) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrInconclusive, err)
}

func haveBTF() error {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return fmt.Errorf("find /sys/kernel/btf/vmlinux: %w", err)
	}
	return nil
}

func haveKfunc(name string) error {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return conclude(err)
	}
	var f *btf.Func
	if err := kernel.TypeByName(name, &f); err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	return nil
}

func haveUnixSockmap() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.SockMap, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return conclude(err)
	}
	defer m.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return conclude(err)
	}
	defer unix.Close(fd)
	return m.Put(uint32(0), uint64(fd))
}

// haveSockmapLink attaches to a map that nobody else has.
func haveSockmapLink() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.SockMap, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return conclude(err)
	}
	defer m.Close()
	p, err := passing(ebpf.SkSKB, ebpf.AttachSkSKBStreamVerdict)
	if err != nil {
		return conclude(err)
	}
	defer p.Close()
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: m.FD(), Program: p, Attach: ebpf.AttachSkSKBStreamVerdict})
	if err != nil {
		return err
	}
	return l.Close()
}

// haveTCX asks for a link to no device, as haveCgroupLink does.
func haveTCX() error {
	p, err := passing(ebpf.SchedCLS, ebpf.AttachTCXIngress)
	if err != nil {
		return conclude(err)
	}
	defer p.Close()
	l, err := link.AttachTCX(link.TCXOptions{Interface: 1 << 30, Program: p, Attach: ebpf.AttachTCXIngress})
	if err == nil {
		return l.Close()
	}
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// haveCgroupLink asks for a link to what is no cgroup: a kernel that knows links
// says so, another that it knows no such call.
func haveCgroupLink() error {
	p, err := passing(ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Connect)
	if err != nil {
		return conclude(err)
	}
	defer p.Close()
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: p.FD(), Program: p, Attach: ebpf.AttachCGroupInet4Connect})
	if err == nil {
		return l.Close()
	}
	if errors.Is(err, unix.EBADF) {
		return nil
	}
	return err
}

func passing(t ebpf.ProgramType, at ebpf.AttachType) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: t, AttachType: at, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
}

// TryCapture loads what capture needs, and attaches nothing.
func TryCapture() error {
	c := &Capture{attachment: attachment{life: -1}}
	err := loadRouteObjects(&c.objects, nil)
	if err == nil {
		err = c.live(c.objects.Life)
	}
	return errors.Join(err, c.Close())
}

// TryInbound loads what inbound capture needs, and attaches nothing.
func TryInbound() error {
	var o inboundObjects
	if err := loadInboundObjects(&o, nil); err != nil {
		return err
	}
	return o.Close()
}
