package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Inbound gives connections that come to a network namespace to listeners of
// this process. Swap is for one goroutine at a time, the rest for any.
type Inbound struct {
	// read-only after LoadInbound
	objects inboundObjects
	attachment
	netns string

	// of Swap
	places []uint64 // of the listeners map: cookies, 0 is free
}

// InboundTable is one generation of what is captured.
type InboundTable struct {
	Entries []InboundEntry
	// Sockets are what entries refer to.
	Sockets []ListeningSocket
}

// InboundEntry is what becomes of connections to an address. Among those of the
// connection's family the one of its very address and port decides, else the one
// of the port, else the one of port 0.
type InboundEntry struct {
	// To has the unspecified address of its family for any address, and port 0
	// for any port, with the unspecified address only.
	To      netip.AddrPort
	Verdict Verdict
	// Socket is, with VerdictCapture, an index of the table's sockets. It stands
	// for all of its SO_REUSEPORT group.
	Socket int
}

// ListeningSocket is one that listens, of this namespace.
type ListeningSocket struct {
	FD int
	// Cookie tells it from one that has its descriptor later.
	Cookie uint64
}

// InboundOptions say what stays of the process.
type InboundOptions struct {
	// OnExit says what connections get that are to be captured while nobody
	// listens for them, and whether pins stay after Close.
	OnExit OnExit
	// First, if set, is in force before the program is attached, unless a table of
	// the process before is taken over. It has no sockets.
	First *InboundTable
	// Pin is as of CaptureOptions, and may be the same.
	Pin string
}

// LoadInbound attaches the program to the calling thread's network namespace, or
// takes it over; without a First table every connection passes until the first
// Swap. It needs CAP_BPF, CAP_NET_ADMIN and Linux's sk_lookup with the device that
// a packet came by; the error says what is missing.
func LoadInbound(o InboundOptions) (in *Inbound, err error) {
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	spec, err := loadInbound()
	if err != nil {
		return nil, fmt.Errorf("read inbound object: %w", err)
	}
	_ = rlimit.RemoveMemlock() // see Load
	in = &Inbound{attachment: attachment{onExit: o.OnExit, life: -1}, places: make([]uint64, spec.Maps[inboundMapListeners].MaxEntries)}
	defer func() {
		if err != nil {
			in.onExit = ExitKeep // pins of the process before stay as they are
			err = errors.Join(err, in.Close())
			in = nil
		}
	}()
	if in.netns, err = os.Readlink("/proc/thread-self/ns/net"); err != nil {
		return in, fmt.Errorf("read network namespace: %w", err)
	}
	old, err := in.open(o.Pin, partInbound, (*pinDirectory).loadInbound)
	if err != nil {
		return in, err
	}
	defer old.close()
	takeOver := old.maps != nil
	if err := spec.LoadAndAssign(&in.objects, &ebpf.CollectionOptions{MapReplacements: old.maps}); err != nil {
		return in, fmt.Errorf("load sk_lookup: %w", err)
	}
	settings := inboundSettings{Layout: pinLayout, OnExit: inboundOnExit(o.OnExit), Process: uint32(os.Getpid())}
	if err := in.objects.Setting.Put(uint32(0), settings); err != nil {
		return in, fmt.Errorf("put settings: %w", err)
	}
	if err := in.live(in.objects.Life); err != nil {
		return in, err
	}
	if o.First != nil && !takeOver {
		if err := in.put(o.First, nil); err != nil {
			return in, err
		}
	}
	return in, in.hang(in.pinned(), []hook{in.hook(ns)}, old)
}

// Namespace is what the program is attached to, as /proc/PID/ns/net shows it.
func (in *Inbound) Namespace() string { return in.netns }

// Hooks are those that LoadInbound attached, and Taken says what became of the
// pins that were there.
func (in *Inbound) Hooks() []HookStatus { return in.status }
func (in *Inbound) Taken() string       { return in.taken }

// Detach takes the program away: what comes from then on finds whoever listens
// there. Unless ExitOpen says so it stays, if it is pinned, and the policy
// decides. Not for two goroutines at a time.
func (in *Inbound) Detach() error { return in.detach() }

// Close detaches the program and frees the maps. Nothing else may be running.
func (in *Inbound) Close() error { return errors.Join(in.Detach(), in.objects.Close()) }

// Swap puts a table in force: its sockets first, then a fresh inner map by one
// update of the outer one's slot, and when no look-up goes by the old one any
// more (the kernel waits for those), the sockets go that it had and t has not.
// With an error the old table stays.
func (in *Inbound) Swap(t *InboundTable) error {
	places, fresh, err := in.place(t.Sockets)
	if err == nil {
		err = in.put(t, places)
	}
	if err != nil {
		in.leave(fresh)
		return err
	}
	used := map[uint32]bool{}
	for _, p := range places {
		used[p] = true
	}
	var gone []uint32
	for p, cookie := range in.places {
		if cookie != 0 && !used[uint32(p)] {
			gone = append(gone, uint32(p))
		}
	}
	in.leave(gone)
	return nil
}

// place finds the sockets' places in the listeners map, and puts those in that
// are not there yet; these are fresh, also with an error.
func (in *Inbound) place(sockets []ListeningSocket) (places, fresh []uint32, err error) {
	for _, s := range sockets {
		at, free := -1, -1
		for p, cookie := range in.places {
			switch {
			case cookie == s.Cookie:
				at = p
			case cookie == 0 && free < 0:
				free = p
			}
		}
		if at < 0 {
			if free < 0 {
				return places, fresh, fmt.Errorf("put listening socket: more than %d", len(in.places))
			}
			if err := in.objects.Listeners.Put(uint32(free), uint64(s.FD)); err != nil {
				return places, fresh, fmt.Errorf("put listening socket: %w", err)
			}
			at, in.places[free] = free, s.Cookie
			fresh = append(fresh, uint32(at))
		}
		places = append(places, uint32(at))
	}
	return places, fresh, nil
}

// leave takes sockets out. The kernel has done so with those that are closed,
// and says that there is nothing.
func (in *Inbound) leave(places []uint32) {
	for _, p := range places {
		_ = in.objects.Listeners.Delete(p)
		in.places[p] = 0
	}
}

func (in *Inbound) put(t *InboundTable, places []uint32) error {
	spec, err := loadInbound()
	if err != nil {
		return fmt.Errorf("read inbound object: %w", err)
	}
	inner := spec.Maps[inboundMapTables].InnerMap
	if len(t.Entries) > int(inner.MaxEntries) {
		return fmt.Errorf("fill inbound table: %w: %d of at most %d", ErrTooManyRoutes, len(t.Entries), inner.MaxEntries)
	}
	table, err := ebpf.NewMap(inner)
	if err != nil {
		return fmt.Errorf("make inbound table: %w", err)
	}
	defer table.Close() // the slot holds it
	keys, values := t.kernel(places)
	if len(keys) > 0 {
		if _, err := table.BatchUpdate(keys, values, nil); err != nil {
			return fmt.Errorf("fill inbound table: %w", err)
		}
	}
	if err := in.objects.Tables.Put(uint32(0), table); err != nil {
		return fmt.Errorf("swap inbound table: %w", err)
	}
	return nil
}

func (t *InboundTable) kernel(places []uint32) (keys []inboundTableKey, values []inboundTableEntry) {
	for _, e := range t.Entries {
		k := inboundTableKey{Family: unix.AF_INET6, Port: e.To.Port()}
		if e.To.Addr().Is4() {
			k.Family = unix.AF_INET
		}
		if !e.To.Addr().IsUnspecified() {
			k.Address = inboundAddress(kernelAddress(e.To.Addr()))
		}
		v := inboundTableEntry{Verdict: inboundVerdict(e.Verdict)}
		if e.Verdict == VerdictCapture {
			v.Socket = places[e.Socket]
		}
		keys, values = append(keys, k), append(values, v)
	}
	return keys, values
}

// SetOwn says whether an address is one of this namespace's devices: connections
// from it pass. A link-local one has the number of its device as its zone.
func (in *Inbound) SetOwn(a netip.Addr, own bool) error {
	key := inboundOwnAddress{Address: inboundAddress(kernelAddress(a))}
	if a.Zone() != "" {
		device, err := strconv.ParseUint(a.Zone(), 10, 32)
		if err != nil {
			return fmt.Errorf("note own address %v: %w", a, err)
		}
		key.Device = uint32(device)
	}
	var err error
	if own {
		err = in.objects.Own.Put(key, uint8(1))
	} else if err = in.objects.Own.Delete(key); errors.Is(err, ebpf.ErrKeyNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("note own address %v: %w", a, err)
	}
	return nil
}

// Own are the addresses that SetOwn was told of, maybe by the process before.
func (in *Inbound) Own() (out []netip.Addr, err error) {
	var (
		key   inboundOwnAddress
		value uint8
	)
	it := in.objects.Own.Iterate()
	for it.Next(&key, &value) {
		a := goAddress(routeAddress(key.Address))
		if key.Device != 0 {
			a = a.WithZone(strconv.FormatUint(uint64(key.Device), 10))
		}
		out = append(out, a)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read own addresses: %w", err)
	}
	return out, nil
}

// inboundNames are the ends of the program's calls as metrics and docs call them.
var inboundNames = [...]string{
	inboundOutcomeINBOUND_CAPTURED:     "inbound.captured",
	inboundOutcomeINBOUND_NOT_TCP:      "inbound.not_tcp",
	inboundOutcomeINBOUND_LOOPBACK:     "inbound.loopback",
	inboundOutcomeINBOUND_OWN:          "inbound.from_own_address",
	inboundOutcomeINBOUND_NO_TABLE:     "inbound.no_table",
	inboundOutcomeINBOUND_PASSED:       "inbound.passed",
	inboundOutcomeINBOUND_NO_ENTRY:     "inbound.no_entry",
	inboundOutcomeINBOUND_GONE:         "inbound.passed_listener_gone",
	inboundOutcomeINBOUND_REFUSED:      "inbound.refused_listener_gone",
	inboundOutcomeINBOUND_TAKEN:        "inbound.taken_by_another_program",
	inboundOutcomeINBOUND_NOT_ASSIGNED: "inbound.not_assigned",
}

// Counters reads how often the program ended in each way, summed over the CPUs.
func (in *Inbound) Counters() (map[string]uint64, error) {
	return readOutcomes(in.objects.Outcomes, inboundNames[:])
}
