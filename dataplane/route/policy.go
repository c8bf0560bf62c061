package route

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Policy is what the operator wants captured.
type Policy struct {
	// All captures every port that is not excluded; else ByListener captures the
	// addresses of listeners, or Ports are captured.
	All, ByListener bool
	Ports           []uint16
	// ExcludePorts and Exclude pass, also where a listener is.
	ExcludePorts []uint16
	Exclude      []netip.Prefix
	// RefuseIdle refuses what is to be captured while no listener can take it.
	RefuseIdle bool
	// WhenFull says what becomes of what the kernel has no room to capture.
	WhenFull WhenFull
}

// WhenFull is what becomes of connections that are to be captured when the kernel
// has no room for what that takes.
type WhenFull int

// The policies.
const (
	// FullPass lets them pass.
	FullPass WhenFull = iota
	// FullCapture captures more than was asked for if the routes do not fit, and
	// refuses a connection (EPERM) that there is no memory for.
	FullCapture
)

// ParseWhenFull reads the word.
func ParseWhenFull(s string) (WhenFull, error) {
	switch s {
	case "pass":
		return FullPass, nil
	case "capture":
		return FullCapture, nil
	}
	return 0, fmt.Errorf("%q is none of pass, capture", s)
}

// ports are those whose connections are captured wherever they go; 0 is any.
func (p *Policy) ports() []uint16 {
	if p.All {
		return []uint16{0}
	}
	return slices.DeleteFunc(slices.Clone(p.Ports), func(port uint16) bool { return slices.Contains(p.ExcludePorts, port) })
}

// serves tells whether a port of a listener is to be captured.
func (p *Policy) serves(port uint16) bool {
	return (len(p.Ports) == 0 || slices.Contains(p.Ports, port)) && !slices.Contains(p.ExcludePorts, port)
}

// ParsePolicy reads the flags: ports is all, listeners, or a list as of
// excludePorts (80,443,8000-8010); exclude is a list of prefixes and addresses.
func ParsePolicy(ports, excludePorts, exclude string) (Policy, error) {
	var p Policy
	var err error
	switch ports {
	case "all", "":
		p.All = true
	case "listeners":
		p.ByListener = true
	default:
		if p.Ports, err = parsePorts(ports); err != nil {
			return p, fmt.Errorf("read --capture-ports: %w", err)
		}
	}
	if p.ExcludePorts, err = parsePorts(excludePorts); err != nil {
		return p, fmt.Errorf("read --capture-exclude-ports: %w", err)
	}
	if p.Exclude, err = parsePrefixes(exclude); err != nil {
		return p, fmt.Errorf("read --capture-exclude: %w", err)
	}
	return p, nil
}

func parsePorts(s string) ([]uint16, error) {
	var out []uint16
	for _, item := range items(s) {
		from, to, isRange := strings.Cut(item, "-")
		if !isRange {
			to = from
		}
		a, err := parsePort(from)
		if err != nil {
			return nil, err
		}
		b, err := parsePort(to)
		if err != nil {
			return nil, err
		}
		if a > b {
			return nil, fmt.Errorf("%q ends before it begins", item)
		}
		for port := int(a); port <= int(b); port++ {
			out = append(out, uint16(port))
		}
	}
	return out, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no port (1 to 65535)", s)
	}
	return uint16(n), nil
}

func parsePrefixes(s string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, item := range items(s) {
		p, err := netip.ParsePrefix(item)
		if err != nil {
			a, err := netip.ParseAddr(item)
			if err != nil || a.Zone() != "" {
				return nil, fmt.Errorf("%q is neither a prefix nor an address", item)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if p.Addr().Is4In6() {
			return nil, fmt.Errorf("%q is an IPv4 address in IPv6: write it as IPv4", item)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

func items(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

// local is never captured: it does not leave the machine, has a scope that
// another address would lose, or is no single peer's.
var local = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("0.0.0.0/32"), netip.MustParsePrefix("::/128"), // connect(2): this host
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8"),
	netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("fe80::/10"),
}
