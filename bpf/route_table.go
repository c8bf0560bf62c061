package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
)

// Verdict is what becomes of a connection.
type Verdict uint32

// The verdicts of routes.
const (
	VerdictPass    = Verdict(routeVerdictVERDICT_PASS)
	VerdictCapture = Verdict(routeVerdictVERDICT_CAPTURE)
	VerdictRefuse  = Verdict(inboundVerdictVERDICT_REFUSE) // of inbound tables only
)

// String is the word of metrics and docs.
func (v Verdict) String() string {
	switch v {
	case VerdictPass:
		return "pass"
	case VerdictCapture:
		return "capture"
	case VerdictRefuse:
		return "refuse"
	}
	return fmt.Sprintf("verdict %d", uint32(v))
}

// Route is one entry of a table. The route of a connection is, among those of its
// very port or else those of port 0, the one with the longest prefix.
type Route struct {
	Prefix  netip.Prefix // IPv4 prefixes are of IPv4 connections, also from AF_INET6 sockets
	Port    uint16       // 0: any
	Verdict Verdict
	// Listener, Cluster and Policy are the caller's numbers, for Origin.
	Listener, Cluster, Policy uint32
	// Target is, with VerdictCapture, an index of the table's targets.
	Target uint32
}

// RouteTable is one generation of routes. No two routes have the same prefix and
// port.
type RouteTable struct {
	Generation uint64
	// Exclude passes, whatever the routes say.
	Exclude []netip.Prefix
	Routes  []Route
	// Targets are listening sockets of this namespace, none of them unspecified.
	// One that is not valid is not there: what is routed to it passes.
	Targets []netip.AddrPort
}

// MaxRoutes is how many entries a table may have.
const MaxRoutes = 1 << 20

// ErrTooManyRoutes says that a table has more than MaxRoutes entries.
var ErrTooManyRoutes = errors.New("too many routes")

// keyHead are the bits of a key before its address (KEY_HEAD).
const keyHead = 64

// Swap fills a fresh inner map and puts it in force by one update of the outer
// one's slot, from where on every connect decides by it; one that is running ends
// by the table that it began with, and Swap returns once none is (the kernel
// waits for a grace period). With an error the old table stays.
func (c *Capture) Swap(t *RouteTable) error {
	if err := c.put(t); err != nil {
		return err
	}
	return c.serve()
}

func (c *Capture) put(t *RouteTable) error {
	table, err := c.filler.fill(t)
	if err != nil {
		return err
	}
	defer table.Close() // the slot holds it
	if err := c.objects.Tables.Put(uint32(0), table); err != nil {
		return fmt.Errorf("swap routes: %w", err)
	}
	return nil
}

// filler makes inner maps. What it keeps spares reading the object file and
// growing the arrays at each swap.
type filler struct {
	inner  *ebpf.MapSpec
	keys   []routeRouteKey
	values []routeRoute
}

func newFiller(limit int) (filler, error) {
	spec, err := loadRoute()
	if err != nil {
		return filler{}, fmt.Errorf("read route object: %w", err)
	}
	inner := spec.Maps[routeMapTables].InnerMap
	if limit > MaxRoutes {
		return filler{}, fmt.Errorf("make tables: %w: %d of at most %d", ErrTooManyRoutes, limit, MaxRoutes)
	}
	if limit > 0 {
		inner.MaxEntries = uint32(limit)
	}
	return filler{inner: inner}, nil
}

func (f *filler) fill(t *RouteTable) (*ebpf.Map, error) {
	f.encode(t)
	if limit := int(f.inner.MaxEntries); len(f.keys) > limit {
		return nil, fmt.Errorf("fill routes: %w: %d of at most %d", ErrTooManyRoutes, len(f.keys), limit)
	}
	table, err := ebpf.NewMap(f.inner)
	if err != nil {
		return nil, fmt.Errorf("make table: %w", err)
	}
	if err := put(table, f.keys, f.values); err != nil {
		table.Close()
		return nil, fmt.Errorf("fill routes: %w", err)
	}
	return table, nil
}

func put(table *ebpf.Map, keys []routeRouteKey, values []routeRoute) error {
	if len(keys) == 0 {
		return nil
	}
	_, err := table.BatchUpdate(keys, values, nil)
	if !errors.Is(err, ebpf.ErrNotSupported) {
		return err
	}
	for i := range keys { // before Linux 5.13
		if err := table.Put(keys[i], values[i]); err != nil {
			return err
		}
	}
	return nil
}

func (f *filler) encode(t *RouteTable) {
	n := len(t.Exclude) + len(t.Routes) + len(t.Targets)
	f.keys, f.values = slices.Grow(f.keys[:0], n), slices.Grow(f.values[:0], n)
	add := func(k routeRouteKey, v routeRoute) {
		v.Generation = t.Generation
		f.keys, f.values = append(f.keys, k), append(f.values, v)
	}
	for i, a := range t.Targets {
		if !a.IsValid() {
			continue
		}
		k := routeRouteKey{Bits: keyHead + 128, Kind: routeKindKIND_TARGET}
		k.Address.Word[0] = uint32(i)
		add(k, routeRoute{Address: kernelAddress(a.Addr()), Port: bigEndian(a.Port())})
	}
	for _, p := range t.Exclude {
		k := prefixKey(p)
		k.Kind = routeKindKIND_EXCLUDE
		add(k, routeRoute{Verdict: routeVerdictVERDICT_PASS})
	}
	for i := range t.Routes {
		r := &t.Routes[i]
		k := prefixKey(r.Prefix)
		k.Kind, k.Port = routeKindKIND_ROUTE, bigEndian(r.Port)
		add(k, routeRoute{Verdict: routeVerdict(r.Verdict), Listener: r.Listener, Cluster: r.Cluster, Policy: r.Policy, Target: r.Target})
	}
}

func prefixKey(p netip.Prefix) routeRouteKey {
	bits := uint32(p.Bits())
	if p.Addr().Is4() {
		bits += 96
	}
	return routeRouteKey{Bits: keyHead + bits, Address: kernelAddress(p.Masked().Addr())}
}
