package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// graftSize is the stride of the grafts map in bytes.
const graftSize = unsafe.Sizeof(graftGraft{})

// loopback is the number of lo, in every namespace.
const loopback = 1

// Graft owns the programs that turn packets of one connection of a pair into
// packets of the other. It is for the network namespace of the thread that loads
// it, and Join has to be called from there. Its methods are safe for concurrent
// use; the grafts that it hands out are each for one worker.
type Graft struct {
	// read-only after LoadGraft
	objects graftObjects
	joining joinObjects
	parting partObjects
	words   []byte // the grafts map, mapped for life
	rings   []*Ring
	grace   *grace
	linger  time.Duration

	mu            sync.Mutex
	links         map[uint32][]link.Link // by device
	low           *Low
	free          slotQueue
	addresses     map[netip.Addr]uint32 // devices that have this host's, as of addressesRead
	addressesRead time.Time
	resting       restQueue
}

// LoadGraft loads the programs, attaches one to lo, and makes one ring for each of
// so many workers. It needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (join reads
// tcp_sock), BTF, links at devices (tcx, Linux 6.6), and membarrier.
//
// It takes low, numbers that were kept before the first connection came; nil keeps
// some now.
func LoadGraft(workers int, low *Low) (g *Graft, err error) {
	spec, err := loadGraft()
	if err != nil {
		return nil, fmt.Errorf("read graft object: %w", err)
	}
	if got := spec.Maps[graftMapGrafts].ValueSize; uintptr(got) != graftSize {
		return nil, fmt.Errorf("check graft object: a graft has %d bytes in C and %d in Go", got, graftSize)
	}
	if limit := spec.Maps[graftMapRings].MaxEntries; workers > int(limit) {
		return nil, fmt.Errorf("load graft: %d workers, but only %d rings", workers, limit)
	}
	_ = rlimit.RemoveMemlock() // as in Load

	if low == nil {
		if low, err = KeepLow(); err != nil {
			return nil, err
		}
	}
	g = &Graft{links: map[uint32][]link.Link{}, low: low, addresses: map[netip.Addr]uint32{}, linger: graftLinger}
	defer func() {
		if err != nil {
			g.Close()
			g = nil
		}
	}()
	if g.grace, err = newGrace(); err != nil {
		return g, err
	}
	if err := spec.LoadAndAssign(&g.objects, nil); err != nil {
		return g, fmt.Errorf("load graft: %w", err)
	}
	if err := g.loadJoin(); err != nil {
		return g, err
	}
	if err := g.loadPart(); err != nil {
		return g, err
	}
	size := int(g.objects.Grafts.MaxEntries()) * int(graftSize)
	g.words, err = unix.Mmap(g.objects.Grafts.FD(), 0, pageAlign(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return g, fmt.Errorf("map grafts: %w", err)
	}
	for i := range workers {
		r, err := newRing(spec.Maps[graftMapRings].InnerMap)
		if err != nil {
			return g, fmt.Errorf("make ring %d: %w", i, err)
		}
		g.rings = append(g.rings, r)
		if err := g.objects.Rings.Put(uint32(i), r.ring); err != nil {
			return g, fmt.Errorf("put ring %d: %w", i, err)
		}
	}
	g.free.init(g.objects.Grafts.MaxEntries())
	return g, g.attach(loopback)
}

func (g *Graft) loadJoin() error {
	spec, err := loadJoin()
	if err != nil {
		return fmt.Errorf("read join object: %w", err)
	}
	if err := spec.LoadAndAssign(&g.joining, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		graftMapPlaces: g.objects.Places, graftMapGrafts: g.objects.Grafts,
	}}); err != nil {
		return fmt.Errorf("load join: %w", err)
	}
	return nil
}

// Ring returns the events of one worker: grafts that changed their state.
func (g *Graft) Ring(worker int) *Ring { return g.rings[worker] }

// attach puts the programs onto a device, once. With g.mu held, or before g is
// known to others.
func (g *Graft) attach(device uint32) error {
	if _, done := g.links[device]; done {
		return nil
	}
	hooks := []struct {
		at      ebpf.AttachType
		program *ebpf.Program
	}{{ebpf.AttachTCXIngress, g.objects.GraftIngress}, {ebpf.AttachTCXEgress, g.objects.GraftEgress}}
	if device == loopback {
		hooks = hooks[:1] // what leaves comes in again
	}
	var links []link.Link
	undo := func() {
		for _, l := range links {
			l.Close()
		}
	}
	for _, h := range hooks {
		l, err := link.AttachTCX(link.TCXOptions{Interface: int(device), Program: h.program, Attach: h.at, Anchor: link.Head()})
		if err != nil {
			undo()
			return fmt.Errorf("attach graft to device %d: %w", device, err)
		}
		links = append(links, l)
	}
	if err := g.joining.Devices.Put(device, device); err != nil {
		undo()
		return fmt.Errorf("note device %d: %w", device, err)
	}
	g.links[device] = slices.DeleteFunc(links, g.low.take)
	return nil
}

// Close takes the programs away and frees the maps. Packets of pairs that are
// still grafted go to the proxy's sockets from then on; end them first.
func (g *Graft) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for _, links := range g.links {
		for _, l := range links {
			errs = append(errs, l.Close())
		}
	}
	clear(g.links)
	g.low.Close()
	if g.grace != nil {
		g.grace.close()
	}
	for _, r := range g.rings {
		errs = append(errs, r.close())
	}
	g.rings = nil
	if g.words != nil {
		errs = append(errs, unix.Munmap(g.words))
		g.words = nil
	}
	return errors.Join(append(errs, g.joining.Close(), g.parting.Close(), g.objects.Close())...)
}

func (g *Graft) graft(slot uint32) *graftGraft {
	return (*graftGraft)(unsafe.Pointer(&g.words[uintptr(slot)*graftSize]))
}
