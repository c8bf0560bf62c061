package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// Verdict is what becomes of a connection.
type Verdict uint32

// The verdicts of routes.
const (
	VerdictPass    = Verdict(routeVerdictVERDICT_PASS)
	VerdictCapture = Verdict(routeVerdictVERDICT_CAPTURE)
)

// String is the word of metrics and docs.
func (v Verdict) String() string {
	switch v {
	case VerdictPass:
		return "pass"
	case VerdictCapture:
		return "capture"
	}
	return fmt.Sprintf("verdict %d", uint32(v))
}

// Route is one entry of a table. The route of a connection is, among those of its
// very port or else those of port 0, the one with the longest prefix.
type Route struct {
	Prefix  netip.Prefix // IPv4 prefixes are of IPv4 connections, also from AF_INET6 sockets
	Port    uint16       // 0: any
	Verdict Verdict
	// Listener and Cluster are the caller's numbers, for Origin.
	Listener, Cluster uint32
	// Target is, with VerdictCapture, an index of the table's targets.
	Target uint32
}

// RouteTable is one generation of routes.
type RouteTable struct {
	Generation uint64
	// Exclude passes, whatever the routes say.
	Exclude []netip.Prefix
	Routes  []Route
	// Targets are listening sockets of this namespace, none of them unspecified.
	Targets []netip.AddrPort
}

// MaxRoutes is how many entries a table may have.
const MaxRoutes = 1 << 20

// ErrTooManyRoutes says that a table has more than MaxRoutes entries.
var ErrTooManyRoutes = errors.New("too many routes")

// keyHead are the bits of a key before its address (KEY_HEAD).
const keyHead = 64

// Swap fills a fresh inner map and puts it in force by one update of the outer
// one's slot. A connect that is running ends by the table that it began with.
// With an error the old table stays.
func (c *Capture) Swap(t *RouteTable) error {
	table, err := c.fill(t)
	if err != nil {
		return err
	}
	defer table.Close() // the slot holds it
	if err := c.objects.Tables.Put(uint32(0), table); err != nil {
		return fmt.Errorf("swap routes: %w", err)
	}
	return nil
}

func (c *Capture) fill(t *RouteTable) (*ebpf.Map, error) {
	keys, values := t.entries()
	if len(keys) > MaxRoutes {
		return nil, fmt.Errorf("fill routes: %w: %d of at most %d", ErrTooManyRoutes, len(keys), MaxRoutes)
	}
	spec, err := loadRoute()
	if err != nil {
		return nil, fmt.Errorf("read route object: %w", err)
	}
	table, err := ebpf.NewMap(spec.Maps[routeMapTables].InnerMap)
	if err != nil {
		return nil, fmt.Errorf("make table: %w", err)
	}
	if err := put(table, keys, values); err != nil {
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

func (t *RouteTable) entries() ([]routeRouteKey, []routeRoute) {
	n := len(t.Exclude) + len(t.Routes) + len(t.Targets)
	keys, values := make([]routeRouteKey, 0, n), make([]routeRoute, 0, n)
	add := func(k routeRouteKey, v routeRoute) {
		v.Generation = t.Generation
		keys, values = append(keys, k), append(values, v)
	}
	for i, a := range t.Targets {
		k := routeRouteKey{Bits: keyHead + 128, Kind: routeKindKIND_TARGET}
		k.Address.Word[0] = uint32(i)
		add(k, routeRoute{Address: kernelAddress(a.Addr()), Port: bigEndian(a.Port())})
	}
	for _, p := range t.Exclude {
		k := prefixKey(p)
		k.Kind = routeKindKIND_EXCLUDE
		add(k, routeRoute{Verdict: routeVerdictVERDICT_PASS})
	}
	for _, r := range t.Routes {
		k := prefixKey(r.Prefix)
		k.Kind, k.Port = routeKindKIND_ROUTE, bigEndian(r.Port)
		add(k, routeRoute{Verdict: routeVerdict(r.Verdict), Listener: r.Listener, Cluster: r.Cluster, Target: r.Target})
	}
	return keys, values
}

func prefixKey(p netip.Prefix) routeRouteKey {
	bits := uint32(p.Bits())
	if p.Addr().Is4() {
		bits += 96
	}
	return routeRouteKey{Bits: keyHead + bits, Address: kernelAddress(p.Masked().Addr())}
}
